"""The whole network: streams, attention, pixels, errors."""

import pytest
import torch
from torch.nn import Conv2d, Module

from rstg_pyg import FrameCNN, RSTGToVec, VideoClassifier
from rstg_pyg.blocks import VolumePool
from rstg_pyg.models import ClipCNN, ConvLSTM


class LastFrame(Module):
    """A block with no form for streams."""

    channels = 4

    def forward(self, volume):
        return volume[:, :, -1].mean((2, 3))


def network(**options):
    torch.manual_seed(0)
    return VideoClassifier(FrameCNN(1, (4, 8)), RSTGToVec(8, 6, scales=(2, 1), num_stages=2, **options), num_classes=5)


def test_bytes_are_mapped_to_unit_range():
    net = network()
    video = torch.randint(0, 256, (2, 1, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(net(video), net(video / 255))


@pytest.mark.parametrize("readout", ["last", "mean"])
def test_stream_equals_clip(readout):
    net = network(readout=readout).double()
    video, state = torch.rand(2, 1, 4, 16, 16, dtype=torch.float64), None
    for t in range(4):
        logits, state = net.step(video[:, :, t], state)
        torch.testing.assert_close(logits, net(video[:, :, : t + 1]))


def test_a_batch_equals_its_members():
    net = network().double()
    video = torch.rand(3, 1, 4, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(net(video), torch.cat([net(clip[None]) for clip in video]))


def test_attention():
    net = network(heads=3)
    video = torch.rand(2, 1, 4, 16, 16)
    logits, attention = net(video, return_attention_weights=True)
    torch.testing.assert_close(logits, net(video))
    assert [alpha.shape for _, alpha in attention] == [(16, 2, 4, 3)] * 2


def test_it_learns_a_few_clips_by_heart():
    """What moves in the left half of one clip moves in the right half of its mirror image."""
    net = network(norm="layer_norm", residual=True, input_norm="batch_norm")
    clip = torch.rand(1, 1, 4, 16, 16)
    clip[..., 8:] = 0
    video, label = torch.cat([clip, clip.flip(-1), clip.flip(2), clip.flip(2, -1)]), torch.arange(4)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(net(video), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_a_graph_on_clip_features_gives_its_attention():
    net = VideoClassifier(ClipCNN(1, (4,)), RSTGToVec(4, scales=(2, 1), num_stages=2), 5)
    logits, attention = net(torch.rand(2, 1, 3, 9, 9), return_attention_weights=True)
    assert logits.shape == (2, 5)
    assert len(attention) == 2


def test_it_refuses():
    with pytest.raises(ValueError, match=r"video of shape \[B, C, T, H, W\], got \[2, 1, 16, 16\]"):
        network()(torch.rand(2, 1, 16, 16))
    with pytest.raises(ValueError, match=r"frame of shape \[B, C, H, W\], got \[2, 1, 4, 16, 16\]"):
        network().step(torch.rand(2, 1, 4, 16, 16))
    with pytest.raises(ValueError, match="'num_classes' to be a positive int, got 0"):
        VideoClassifier(FrameCNN(1, (4,)), RSTGToVec(4), num_classes=0)
    with pytest.raises(ValueError, match="expected a block with its vector's size as 'channels', got Conv2d"):
        VideoClassifier(FrameCNN(1, (4,)), Conv2d(4, 4, 1), 5)


def test_what_backbone_or_block_cannot_do_is_refused():
    message = (
        "expected a backbone that takes single frames, got ClipCNN, whose features of a frame depend on later frames: "
        "it has no form for streams"
    )
    with pytest.raises(ValueError, match=message):
        VideoClassifier(ClipCNN(1, (4,)), VolumePool(4), 5).step(torch.rand(2, 1, 9, 9))
    net = VideoClassifier(FrameCNN(1, (4,)), LastFrame(), 5)
    assert net(torch.rand(2, 1, 3, 9, 9)).shape == (2, 5)
    with pytest.raises(ValueError, match="expected a block with a method 'step', got LastFrame"):
        net.step(torch.rand(2, 1, 9, 9))
    net = VideoClassifier(FrameCNN(1, (4,)), ConvLSTM(4), 5)
    with pytest.raises(ValueError, match="expected a block that returns attention weights, got ConvLSTM"):
        net(torch.rand(2, 1, 3, 9, 9), return_attention_weights=True)
