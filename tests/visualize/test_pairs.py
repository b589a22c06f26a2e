"""Pairs of digits: what they are called, where they are, how often they are told right."""

import math

import pytest
import torch
from torch_geometric.loader import DataLoader

from rstg_pyg import SyncMNIST
from rstg_pyg.datasets import NO_SYNC, label_to_pair, pair_to_label
from rstg_pyg.visualize import PairAccuracy, digits_in_step, draw_pair_accuracy, pair_accuracy, pair_names

LABELS = torch.tensor([pair_to_label(7, 1)] * 4 + [pair_to_label(3, 2)] + [NO_SYNC] * 2)
PREDICTIONS = torch.tensor([pair_to_label(7, 1)] * 3 + [0, 0, NO_SYNC, 3])


def cells_of(figure):
    """Texts and hatches of the cells by (x, y)."""
    ax = figure.axes[0]
    texts = {text.get_position(): text.get_text() for text in ax.texts if text.get_ha() == "center"}
    boxes = [(patch, patch.get_bbox()) for patch in ax.patches]
    hatched = {(round(box.x0 + 0.45, 6), round(box.y0 + 0.45, 6)) for patch, box in boxes if patch.get_hatch()}
    return texts, hatched, len(boxes)


def test_it_counts_clips_told_right():
    accuracy, counts, none = pair_accuracy(LABELS, PREDICTIONS)
    assert (accuracy[7, 1], accuracy[1, 7], accuracy[3, 2]) == (0.75, 0.75, 0)
    assert (counts[7, 1], counts[1, 7], counts[3, 2], counts[5, 4]) == (4, 4, 1, 0)
    assert none == (0.5, 2)
    assert torch.equal(accuracy.isnan(), counts == 0)
    assert accuracy.isnan().sum() == 100 - 4


def test_every_label_has_its_cell():
    labels = torch.arange(46).repeat_interleave(2)
    accuracy, counts, none = pair_accuracy(labels, labels)
    assert torch.equal(counts, 2 - 2 * torch.eye(10, dtype=torch.long))
    assert (accuracy[counts > 0] == 1).all()
    assert none == (1, 2)


def test_counts_say_the_same():
    counts = LABELS.bincount(minlength=46)
    correct = LABELS[LABELS == PREDICTIONS].bincount(minlength=46)
    for ours, theirs in zip(PairAccuracy.of_counts(counts, correct), pair_accuracy(LABELS, PREDICTIONS), strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_cells_hold_percent_and_are_hatched_where_there_was_no_clip():
    figure = draw_pair_accuracy(pair_accuracy(LABELS, PREDICTIONS), "pairs")
    texts, hatched, number = cells_of(figure)
    # x is the smaller digit, y the larger one; "none" stands in the free half.
    assert texts == {(1, 7): "75", (2, 3): "0", (8, 3.3): "50"}
    assert hatched == {(low, high) for high in range(10) for low in range(high)} - {(1, 7), (2, 3)}
    assert number == 46
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "57.1 %" in texts
    assert "right of 7 clips" in texts
    assert [text.get_text() for text in figure.texts] == ["pairs"]


def test_where_there_is_no_clip_without_a_pair_that_is_not_a_number_and_hatched():
    assert math.isnan(pair_accuracy(LABELS[:5], PREDICTIONS[:5]).none[0])
    assert (8, 3.3) in cells_of(draw_pair_accuracy(pair_accuracy(LABELS[:5], PREDICTIONS[:5])))[1]


def test_colours_start_at_the_least_accuracy():
    for lowest, ticks in ((None, [80, 90, 100]), (0.5, [50, 75, 100])):
        counts = torch.full((46,), 100)
        correct = counts.clone()
        correct[3] = 84
        scale = draw_pair_accuracy(PairAccuracy.of_counts(counts, correct), lowest=lowest).axes[1]
        assert scale.get_xticks() == pytest.approx(ticks)


def test_names_are_pairs():
    names = pair_names()
    assert len(set(names)) == 46
    assert names[45] == "none"
    assert all(set(names[label].split("-")) == set(map(str, label_to_pair(label))) for label in range(45))


def test_the_boxes_hold_the_digits(tmp_path):
    """With two digits, both in step, every bright pixel is in one of the boxes."""
    for size in (32, 100):
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


def test_other_digits_can_be_in_step_or_none():
    path = torch.arange(3 * 4 * 2).view(1, 3, 4, 2)
    boxes = digits_in_step(path, torch.tensor([[2, 0]]), size=100)
    torch.testing.assert_close(boxes[0, :, 0, :2], path[0, 2] - 0.5)
    torch.testing.assert_close(boxes[0, :, 1, :2], path[0, 0] - 0.5)
    boxes = digits_in_step(torch.zeros(2, 3, 4, 2), torch.tensor([[-1, -1], [0, 1]]), size=64)
    assert boxes[0].isnan().all()
    assert not boxes[1].isnan().any()


ERRORS = [
    (
        lambda: digits_in_step(torch.zeros(3, 4, 2), torch.tensor([0, 1]), 64),
        r"path \[B, D, T, 2\] and sync \[B, 2\], got \[3, 4, 2\] and \[2\]",
    ),
    (
        lambda: digits_in_step(torch.zeros(1, 3, 4, 2), torch.tensor([[0, 3]]), 64),
        r"'sync' to hold digits within 0 to 2, or -1, got \[\[0, 3\]\]",
    ),
    (
        lambda: digits_in_step(torch.zeros(1, 3, 4, 2), torch.tensor([[0, 1]]), 0),
        "'size' to be a positive int, got 0",
    ),
    (
        lambda: pair_accuracy(LABELS, PREDICTIONS[:3]),
        r"labels and predictions of one shape \[n\], got \[7\] and \[3\]",
    ),
    (lambda: pair_accuracy([46], [0]), r"labels to be whole numbers within 0 to 45, got \[46\]"),
    (lambda: pair_accuracy([0], [-1]), r"predictions to be whole numbers within 0 to 45, got \[-1\]"),
    (lambda: pair_accuracy([0.5], [1]), r"labels to be whole numbers within 0 to 45, got \[0\.5\]"),
    (lambda: PairAccuracy.of_counts([1], [1]), r"counts and correct of shape \[46\], got \[1\] and \[1\]"),
    (
        lambda: PairAccuracy.of_counts(torch.zeros(46), torch.ones(46)),
        "'correct' within 0 to 'counts' in every class, got 1.0 of 0.0 in class 0",
    ),
    (
        lambda: draw_pair_accuracy(PairAccuracy.of_counts(torch.zeros(46), torch.zeros(46))),
        "the accuracy of at least one clip, got none",
    ),
    (
        lambda: draw_pair_accuracy(pair_accuracy(LABELS, LABELS), lowest=1),
        "'lowest' to be at least 0 and less than 1, got 1",
    ),
]


def test_errors():
    for call, message in ERRORS:
        with pytest.raises(ValueError, match=f"^expected {message}$"):
            call()
