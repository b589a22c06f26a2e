"""What the networks beside the graph refuse, and in which words."""

import re

import pytest
import torch
from torch.nn import Conv2d, Module

from rstg_pyg import FrameCNN, RSTGToMap, RSTGToVec, VideoClassifier
from rstg_pyg.blocks import RSTGPool, VolumePool
from rstg_pyg.models import ClipCNN, ConvLSTM, MeanLSTM, NonLocalBlock


class LastFrame(Module):
    """A block with no form for streams."""

    channels = 4

    def forward(self, volume):
        return volume[:, :, -1].mean((2, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MeanLSTM(0), "expected 'in_channels' to be a positive int, got 0"),
        (lambda: MeanLSTM(3, -1), "expected 'channels' to be a positive int, got -1"),
        (lambda: MeanLSTM(3, rnn="rnn"), "expected 'rnn' to be one of 'lstm', 'gru', got 'rnn'"),
        (lambda: MeanLSTM(3, readout="sum"), "expected 'readout' to be one of 'last', 'mean', got 'sum'"),
        (lambda: MeanLSTM(3, input_norm="batch"), "expected 'input_norm' to be one of"),
        (lambda: ConvLSTM(3, channels=0), "expected 'channels' to be a positive int, got 0"),
        (lambda: ConvLSTM(3, kernel_size=0), "expected 'kernel_size' to be a positive int, got 0"),
        (lambda: ConvLSTM(3, kernel_size=4), "expected 'kernel_size' to be odd, got 4"),
        (lambda: ConvLSTM(3, readout="max"), "expected 'readout' to be one of 'last', 'mean', got 'max'"),
        (lambda: VolumePool(0), "expected 'channels' to be a positive int, got 0"),
        (lambda: NonLocalBlock(0), "expected 'channels' to be a positive int, got 0"),
        (lambda: NonLocalBlock(3, 0), "expected 'inner_channels' to be a positive int, got 0"),
        (lambda: ClipCNN(1, ()), "expected 'widths' to hold at least one width, got ()"),
        (lambda: ClipCNN(1, (4, 0)), "expected 'widths[1]' to be a positive int, got 0"),
        (lambda: ClipCNN(1, (4,), temporal_kernel=2), "expected 'temporal_kernel' to be odd, got 2"),
        (
            lambda: ClipCNN(1, (4,), padding_mode="same"),
            "expected 'padding_mode' to be one of 'zeros', 'replicate', 'reflect', 'circular', got 'same'",
        ),
        (
            lambda: FrameCNN(1, (4,), padding_mode="same"),
            "expected 'padding_mode' to be one of 'zeros', 'replicate', 'reflect', 'circular', got 'same'",
        ),
        (lambda: ClipCNN(1, (4,), non_local=(1,)), "expected 'non_local' to hold layers from 0 to 0, got (1,)"),
        (
            lambda: VideoClassifier(FrameCNN(1, (4,)), Conv2d(4, 4, 1), 5),
            "expected a block with its vector's size as 'channels', got Conv2d",
        ),
    ],
)
def test_arguments(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize("block", [MeanLSTM(3), ConvLSTM(3), VolumePool(3), NonLocalBlock(3)], ids=repr)
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (2, 4, 4, 5, 6), (2, 3, 0, 5, 6), (2, 3, 4, 0, 6)])
def test_volumes(block, shape):
    message = f"volume of shape [B, 3, T, H, W] with T, H and W of at least 1, got {list(shape)}"
    with pytest.raises(ValueError, match=re.escape(message)):
        block(torch.randn(shape))


@pytest.mark.parametrize("block", [MeanLSTM(3), ConvLSTM(3), VolumePool(3)], ids=repr)
@pytest.mark.parametrize("shape", [(2, 3, 1, 5, 6), (2, 4, 5, 6), (2, 3, 5, 0)])
def test_frames(block, shape):
    message = f"frame of shape [B, 3, H, W] with H and W of at least 1, got {list(shape)}"
    with pytest.raises(ValueError, match=re.escape(message)):
        block.step(torch.randn(shape))


@pytest.mark.parametrize(
    ("block", "state", "message"),
    [
        (MeanLSTM(3, 4), torch.zeros(2, 4), "state to be (h, c), each of shape [2, 4], got [2, 4]"),
        (MeanLSTM(3, 4), (torch.zeros(1, 4),) * 2, "each of shape [2, 4], got ([1, 4], [1, 4])"),
        (MeanLSTM(3, 4, "gru"), (torch.zeros(2, 4),), "state to be h of shape [2, 4], got ([2, 4])"),
        (MeanLSTM(3, 4), (torch.zeros(2, 4), None), "got ([2, 4], None)"),
        (VolumePool(3), (None, 3, 1), "the second entry of the state to be a mean of shape [2, 3], got 3"),
        (VolumePool(3), 3, "a state of 3 entries, got int"),
        (
            RSTGToVec(3, readout="mean"),
            (None, torch.zeros(2, 3), 0.5),
            "third entry of the state to be an int64 of shape [], got 0.5",
        ),
        (RSTGPool(3), (None,), "a state of 2 entries, got 1"),
        (ConvLSTM(3, 4), (torch.zeros(2, 4, 5, 5),) * 2, "each of shape [2, 4, 5, 6], got ([2, 4, 5, 5]"),
    ],
)
def test_states(block, state, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        block.step(torch.randn(2, 3, 5, 6), state)


@pytest.mark.parametrize("block", [MeanLSTM(3), ConvLSTM(3), NonLocalBlock(3), RSTGToVec(3), RSTGToMap(3)])
def test_another_type_than_the_weights(block):
    volume = torch.randn(2, 3, 2, 6, 6)
    with pytest.raises(ValueError, match=r"'volume' of type torch.float32, as the weights, got torch.float64$"):
        block(volume.double())
    with pytest.raises(ValueError, match=r"'volume' of type torch.float32, as the weights, got torch.int64$"):
        block(volume.long())
    with torch.autocast("cpu", torch.bfloat16):
        block(volume.bfloat16())


@pytest.mark.parametrize("shape", [(2, 1, 9, 9), (2, 2, 3, 9, 9), (2, 1, 3, 3, 9), (2, 1, 0, 9, 9)])
def test_clips(shape):
    message = f"clips of shape [B, 1, T, H, W] with H and W of at least 4 and T of at least 1, got {list(shape)}"
    with pytest.raises(ValueError, match=re.escape(message)):
        ClipCNN(1, (4,))(torch.randn(shape))


def test_a_network_of_clips_has_no_stream():
    message = (
        "expected a backbone that takes single frames, got ClipCNN, whose features of a frame depend on later frames: "
        "it has no form for streams"
    )
    with pytest.raises(ValueError, match=message):
        VideoClassifier(ClipCNN(1, (4,)), VolumePool(4), 5).step(torch.rand(2, 1, 9, 9))


def test_a_block_without_step_has_no_stream():
    net = VideoClassifier(FrameCNN(1, (4,)), LastFrame(), 5)
    assert net(torch.rand(2, 1, 3, 9, 9)).shape == (2, 5)
    with pytest.raises(ValueError, match="expected a block with a method 'step', got LastFrame"):
        net.step(torch.rand(2, 1, 9, 9))


def test_a_block_without_attention_returns_none():
    net = VideoClassifier(FrameCNN(1, (4,)), ConvLSTM(4), 5)
    with pytest.raises(ValueError, match="expected a block that returns attention weights, got ConvLSTM"):
        net(torch.rand(2, 1, 3, 9, 9), return_attention_weights=True)


def test_a_graph_on_clip_features_gives_its_attention():
    net = VideoClassifier(ClipCNN(1, (4,)), RSTGToVec(4, scales=(2, 1), num_stages=2), 5)
    logits, attention = net(torch.rand(2, 1, 3, 9, 9), return_attention_weights=True)
    assert logits.shape == (2, 5)
    assert len(attention) == 2
