"""The blocks that stand beside the graph: plain formulas, streams, errors."""

import copy
import re

import pytest
import torch
from torch.nn.functional import conv2d, max_pool2d

from rstg_pyg import FrameCNN, RSTGToMap, RSTGToVec, VideoClassifier
from rstg_pyg.blocks import RSTGPool, VolumePool
from rstg_pyg.models import ClipCNN, ConvLSTM, MeanLSTM, NonLocalBlock

RECURRENT = {
    "mean-lstm": MeanLSTM,
    "mean-gru": lambda *args, **options: MeanLSTM(*args, rnn="gru", **options),
    "conv-lstm": ConvLSTM,
}


def volume(num_frames=4):
    return torch.randn(2, 3, num_frames, 5, 6, dtype=torch.float64)


def recurrent(name, **options):
    return RECURRENT[name](3, 4, **options).double()


def awake(block):
    """A non-local block that does not start as the identity, with running statistics."""
    torch.nn.init.normal_(block.norm.weight)
    torch.nn.init.normal_(block.norm.bias)
    block(torch.randn(4, block.channels, 4, 5, 6, dtype=block.norm.weight.dtype))
    return block.eval()


def test_mean_lstm_is_an_lstm_over_means():
    block, clips = recurrent("mean-lstm"), volume()
    w, u = block.rnn.weight_ih_l0, block.rnn.weight_hh_l0
    bias = block.rnn.bias_ih_l0 + block.rnn.bias_hh_l0
    h = c = torch.zeros(2, 4, dtype=torch.float64)
    vectors = []
    for t in range(4):
        i, f, g, o = (clips[:, :, t].mean((2, 3)) @ w.T + h @ u.T + bias).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        vectors.append(h)
    torch.testing.assert_close(block(clips), vectors[-1])
    block.readout = "mean"
    torch.testing.assert_close(block(clips), torch.stack(vectors).mean(0))


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_conv_lstm_is_its_formula(kernel_size):
    block, clips = recurrent("conv-lstm", kernel_size=kernel_size), volume()
    pad = kernel_size // 2
    weights = [layer.weight.chunk(4) for layer in (block.conv_input, block.conv_hidden)]
    bias = block.conv_input.bias.chunk(4)
    h = c = torch.zeros(2, 4, 5, 6, dtype=torch.float64)
    vectors = []
    for t in range(4):
        gates = [
            conv2d(clips[:, :, t], w, b, padding=pad) + conv2d(h, u, padding=pad)
            for w, u, b in zip(*weights, bias, strict=True)
        ]
        c = gates[1].sigmoid() * c + gates[0].sigmoid() * gates[2].tanh()
        h = gates[3].sigmoid() * c.tanh()
        vectors.append(h.mean((2, 3)))
    torch.testing.assert_close(block(clips), vectors[-1])
    block.readout = "mean"
    torch.testing.assert_close(block(clips), torch.stack(vectors).mean(0))


def test_conv_lstm_of_one_place_is_an_lstm():
    conv, mean = recurrent("conv-lstm", kernel_size=1), recurrent("mean-lstm")
    with torch.no_grad():
        mean.rnn.weight_ih_l0.copy_(conv.conv_input.weight[:, :, 0, 0])
        mean.rnn.weight_hh_l0.copy_(conv.conv_hidden.weight[:, :, 0, 0])
        mean.rnn.bias_ih_l0.copy_(conv.conv_input.bias)
        mean.rnn.bias_hh_l0.zero_()
    clips = volume()[..., :1, :1]
    torch.testing.assert_close(conv(clips), mean(clips))


def test_a_convolution_moves_what_a_mean_cannot():
    """Two clips with the same means, one of which moves: Mean + LSTM gives one vector for both, Conv + LSTM two."""
    still = torch.zeros(1, 3, 3, 5, 6, dtype=torch.float64)
    still[..., 2, 2] = 1
    moving = torch.stack([still[:, :, t].roll(t, -1) for t in range(3)], 2)
    mean, conv = recurrent("mean-lstm"), recurrent("conv-lstm")
    torch.testing.assert_close(mean(still), mean(moving))
    assert (conv(still) - conv(moving)).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "readout"), [*((name, "last") for name in RECURRENT), ("mean-lstm", "mean"), ("pool", "mean")]
)
def test_stream_equals_clip(name, readout):
    if name == "pool":
        block = VolumePool(3)
    else:
        block = recurrent(name, readout=readout, input_norm="batch_norm")
        block(volume())
    block.eval()
    clips, state = volume(), None
    for t in range(4):
        out, state = block.step(clips[:, :, t], state)
        torch.testing.assert_close(out, block(clips[:, :, : t + 1]))


@pytest.mark.parametrize("name", RECURRENT)
def test_pieces_sizes_and_scales(name):
    block, clips = recurrent(name), volume()
    expected, last = block.run(clips)
    first, state = block.run(clips[:, :, :3])
    second, state = block.run(clips[:, :, 3:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), expected)
    torch.testing.assert_close(state, last)
    assert expected.shape == (2, 4, 4)
    # The channels are those of the volume by default, and an input norm takes the scale of the features away.
    assert RECURRENT[name](3)(clips.float()).shape == (2, 3)
    block = recurrent(name, input_norm="batch_norm")
    torch.testing.assert_close(block(100 * clips + 7), block(clips), atol=1e-3, rtol=1e-3)


def test_volume_pool_is_the_mean():
    clips = volume()
    torch.testing.assert_close(VolumePool(3)(clips), clips.mean((2, 3, 4)))


@pytest.mark.parametrize("max_pool", [True, False])
def test_non_local_is_an_explicit_softmax(max_pool):
    block, clips = awake(NonLocalBlock(3, 2, max_pool).double()), volume()
    # 5 x 6 places become 3 x 3: the last row of an odd map is kept.
    seen = torch.nn.functional.pad(clips, (0, 0, 0, 1), value=float("-inf")) if max_pool else clips
    if max_pool:
        seen = max_pool2d(seen.transpose(1, 2).flatten(0, 1), 2).unflatten(0, (2, 4)).transpose(1, 2)
    x, y = (v.permute(0, 2, 3, 4, 1).flatten(1, 3) for v in (clips, seen))
    key, value = block.key_value(y).chunk(2, -1)
    alpha = (block.query(x) @ key.transpose(1, 2) / 2**0.5).softmax(-1)
    change = block.lin_out(alpha @ value)
    norm = block.norm
    change = (change - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(block(clips), clips + change.view(2, 4, 5, 6, 3).permute(0, 4, 1, 2, 3))


def test_non_local_sees_every_place_of_every_frame():
    block, clips = awake(NonLocalBlock(3, max_pool=False).double()), volume(3).requires_grad_()
    (block(clips)[0, 0, 0, 0, 0]).backward()
    assert (clips.grad[0].abs().sum(0) > 0).all()
    assert (clips.grad[1] == 0).all()


def test_a_fresh_non_local_block_changes_nothing_and_learns():
    block, clips = NonLocalBlock(3), volume().float()
    out = block(clips)
    assert torch.equal(out, clips)
    (out**3).sum().backward()
    assert block.norm.weight.grad.abs().sum() > 0
    block = awake(block)
    assert not torch.equal(block(clips), clips)
    block.reset_parameters()
    assert torch.equal(block(clips), clips)


@pytest.mark.parametrize(
    ("backbone", "block"),
    [
        (FrameCNN(1, (3,)), MeanLSTM(3, 4)),
        (FrameCNN(1, (3,)), ConvLSTM(3, 4)),
        (ClipCNN(1, (3,), non_local=(0,)), VolumePool(3)),
    ],
    ids=["mean-lstm", "conv-lstm", "non-local"],
)
@torch._dynamo.config.patch(allow_rnn=True)
def test_compiled_equals_eager(backbone, block):
    torch._dynamo.reset()
    net = VideoClassifier(backbone, block, 5).eval()
    video = torch.rand(2, 1, 3, 8, 8)
    torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="aot_eager")(video), net(video))


@pytest.mark.parametrize(
    "block", [MeanLSTM(3), ConvLSTM(3), awake(NonLocalBlock(3))], ids=["mean-lstm", "conv-lstm", "non-local"]
)
def test_autocast_is_near_float32(block):
    block, clips = copy.deepcopy(block), volume().float()
    with torch.autocast("cpu", torch.bfloat16):
        out = block(clips)
        out.sum().backward()
    torch.testing.assert_close(out.float(), block(clips), atol=0.1, rtol=0.1)


def test_repr():
    assert repr(MeanLSTM(3, 4)) == "MeanLSTM(3, 4, readout='last')"
    assert repr(ConvLSTM(3, readout="mean")) == "ConvLSTM(3, 3, readout='mean')"
    assert repr(VolumePool(3)) == "VolumePool(3)"
    assert repr(NonLocalBlock(3)) == "NonLocalBlock(3, 1, max_pool=True)"


def test_arguments_are_checked():
    for make, message in (
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
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            make()


def test_inputs_are_checked():
    for block in (MeanLSTM(3), ConvLSTM(3), VolumePool(3), NonLocalBlock(3)):
        for shape in ((3, 4, 5, 6), (2, 4, 4, 5, 6), (2, 3, 0, 5, 6), (2, 3, 4, 0, 6)):
            message = f"volume of shape [B, 3, T, H, W] with T, H and W of at least 1, got {list(shape)}"
            with pytest.raises(ValueError, match=re.escape(message)):
                block(torch.randn(shape))
        for shape in ((2, 3, 1, 5, 6), (2, 4, 5, 6), (2, 3, 5, 0)) if hasattr(block, "step") else ():
            message = f"frame of shape [B, 3, H, W] with H and W of at least 1, got {list(shape)}"
            with pytest.raises(ValueError, match=re.escape(message)):
                block.step(torch.randn(shape))


def test_states_are_checked():
    for block, state, message in (
        (MeanLSTM(3, 4), torch.zeros(2, 4), "state to be (h, c), each of shape [2, 4], got [2, 4]"),
        (MeanLSTM(3, 4), (torch.zeros(1, 4),) * 2, "each of shape [2, 4], got ([1, 4], [1, 4])"),
        (MeanLSTM(3, 4, "gru"), (torch.zeros(2, 4),), "state to be h of shape [2, 4], got ([2, 4])"),
        (MeanLSTM(3, 4), (torch.zeros(2, 4), None), "got ([2, 4], None)"),
        (VolumePool(3), (None, 3, 1), "the second entry of the state to be a mean of shape [2, 3], got 3"),
        (VolumePool(3), 3, "a state of 3 entries, got int"),
        (
            RSTGToVec(3, readout="mean"),
            (None, torch.zeros(2, 3), 0.5),
            "third entry of the state to be an int64 of shape [] or [2, 1], got 0.5",
        ),
        (RSTGPool(3), (None,), "a state of 2 entries, got 1"),
        (ConvLSTM(3, 4), (torch.zeros(2, 4, 5, 5),) * 2, "each of shape [2, 4, 5, 6], got ([2, 4, 5, 5]"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            block.step(torch.randn(2, 3, 5, 6), state)


def test_another_type_than_the_weights():
    volume = torch.randn(2, 3, 2, 6, 6)
    for block in (MeanLSTM(3), ConvLSTM(3), NonLocalBlock(3), RSTGToVec(3), RSTGToMap(3)):
        for other in (torch.float64, torch.int64):
            with pytest.raises(ValueError, match=rf"'volume' of type torch.float32, as the weights, got {other}$"):
                block(volume.to(other))
        with torch.autocast("cpu", torch.bfloat16):
            block(volume.bfloat16())
