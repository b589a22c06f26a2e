"""Where the digits in step are, and what the classes are called."""

import pytest
import torch
from torch_geometric.loader import DataLoader

from rstg_pyg import SyncMNIST
from rstg_pyg.datasets import label_to_pair
from rstg_pyg.visualize import digits_in_step, pair_names


def test_names_are_pairs():
    names = pair_names()
    assert len(set(names)) == 46
    assert names[45] == "none"
    assert all(set(names[label].split("-")) == set(map(str, label_to_pair(label))) for label in range(45))


@pytest.mark.parametrize("size", [32, 64, 100])
def test_the_boxes_hold_the_digits(tmp_path, size):
    """With two digits, both in step, every bright pixel is in one of the boxes."""
    clips = SyncMNIST(tmp_path, num_digits=2, digits="sklearn", num_clips=8, size=size, no_sync_probability=0)
    batch = next(iter(DataLoader(clips, batch_size=8)))
    boxes = digits_in_step(batch.path, batch.sync, size)
    assert boxes.shape == (8, 10, 2, 4)
    torch.testing.assert_close(boxes[..., 2:] - boxes[..., :2], torch.full((8, 10, 2, 2), 0.28 * size))
    inside = torch.zeros_like(batch.video[:, 0], dtype=torch.bool)
    y, x = torch.arange(size).view(-1, 1), torch.arange(size)
    for digit in range(2):
        y0, x0, y1, x1 = boxes[:, :, digit, :, None, None].unbind(2)
        box = (y0 <= y) & (y <= y1) & (x0 <= x) & (x <= x1)
        assert (batch.video[:, 0][box] > 128).any()
        inside |= box
    assert not (batch.video[:, 0][~inside] > 64).any()


def test_other_digits_than_the_first_two_can_be_in_step():
    path = torch.arange(3 * 4 * 2).view(1, 3, 4, 2)
    boxes = digits_in_step(path, torch.tensor([[2, 0]]), size=100)
    torch.testing.assert_close(boxes[0, :, 0, :2], path[0, 2] - 0.5)
    torch.testing.assert_close(boxes[0, :, 1, :2], path[0, 0] - 0.5)


def test_clips_without_digits_in_step_have_no_boxes():
    boxes = digits_in_step(torch.zeros(2, 3, 4, 2), torch.tensor([[-1, -1], [0, 1]]), size=64)
    assert boxes[0].isnan().all()
    assert not boxes[1].isnan().any()


def test_errors():
    with pytest.raises(
        ValueError, match=r"^expected path \[B, D, T, 2\] and sync \[B, 2\], got \[3, 4, 2\] and \[2\]$"
    ):
        digits_in_step(torch.zeros(3, 4, 2), torch.tensor([0, 1]), 64)
    with pytest.raises(ValueError, match=r"^expected 'sync' to hold digits within 0 to 2, or -1, got \[\[0, 3\]\]$"):
        digits_in_step(torch.zeros(1, 3, 4, 2), torch.tensor([[0, 3]]), 64)
    with pytest.raises(ValueError, match=r"^expected 'size' to be a positive int, got 0$"):
        digits_in_step(torch.zeros(1, 3, 4, 2), torch.tensor([[0, 1]]), 0)
