"""The small backbones: their maps, their borders, and the batch normalisation folded into the first convolution."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from torch.nn import BatchNorm2d, Conv2d, SyncBatchNorm

from rstg_pyg import FrameCNN
from rstg_pyg.models import ClipCNN, NonLocalBlock, cnn
from rstg_pyg.models.cnn import can_fold, folded_norm, repeat_border


def test_sizes():
    for widths, size, side in (((4, 4, 4), 64, 6), ((4, 4), 32, 6), ((4,), 4, 1), ((3, 4), 10, 1)):
        for batch_norm in (False, True):
            for refine in (False, True):
                clips = torch.rand(2, 1, 3, size, size + 1)
                maps = FrameCNN(1, widths, batch_norm, refine)(clips[:, :, 0])
                assert maps.shape == (2, 4, side, side)
                out = ClipCNN(1, widths, batch_norm=batch_norm, refine=refine)(clips)
                assert out.shape == (2, 4, 3, side, side)


def test_it_is_what_the_paper_says():
    net, frames = FrameCNN(1, (3, 5)), torch.randn(2, 1, 20, 20)
    x = frames
    for layer in (net.layers[0], net.layers[3]):
        x = torch.nn.functional.conv2d(x, layer.weight.contiguous(), layer.bias).relu()
        x = torch.nn.functional.max_pool2d(x, 2)
    torch.testing.assert_close(net(frames), x)


def test_what_an_even_frame_tells_of_its_border():
    """Zeros beyond the border tell a place of the map that it lies there; other paddings tell nothing."""
    clips = torch.full((1, 1, 5, 20, 20), 0.7)
    for padding_mode in ("zeros", "replicate", "reflect", "circular"):
        net = FrameCNN(1, (3, 4), refine=True, padding_mode=padding_mode)
        of_frame, of_clip = net(clips[:, :, 2]), ClipCNN.inflate(net)(clips)[:, :, 2]
        for maps in (of_frame, of_clip):
            places = maps.flatten(2)
            assert torch.allclose(places, places[..., :1]) == (padding_mode != "zeros"), padding_mode


@pytest.mark.parametrize(
    ("batch_norm", "refine", "padding_mode"),
    [(False, False, "zeros"), (True, True, "zeros"), (True, True, "replicate")],
)
def test_inflated_weights_give_a_still_clip_what_its_frame_gets(batch_norm, refine, padding_mode):
    frame_cnn = FrameCNN(1, (3, 4), batch_norm, refine, padding_mode).double()
    frame_cnn(torch.rand(8, 1, 20, 20, dtype=torch.float64))
    frame = torch.rand(2, 1, 20, 20, dtype=torch.float64)
    # One frame at either end per layer sees padding.
    reach = 2 + refine
    clip = frame.unsqueeze(2).expand(-1, -1, 2 * reach + 1, -1, -1)
    net = ClipCNN.inflate(frame_cnn.eval())
    torch.testing.assert_close(net(clip)[:, :, reach], frame_cnn(frame))
    assert not torch.allclose(net(clip)[:, :, 0], frame_cnn(frame))
    assert not net.training
    assert torch.equal(ClipCNN.inflate(frame_cnn, non_local=(0, 1))(clip), net(clip))


def test_inflation_to_one_frame_is_the_network_of_frames():
    frame_cnn = FrameCNN(2, (3, 4), batch_norm=True, refine=True)
    clips = torch.rand(2, 2, 3, 16, 16)
    frame_cnn(clips[:, :, 0])
    net = ClipCNN.inflate(frame_cnn.eval(), temporal_kernel=1)
    for t in range(3):
        torch.testing.assert_close(net(clips)[:, :, t], frame_cnn(clips[:, :, t]))


def test_non_local_blocks_stand_where_they_are_wanted():
    net = ClipCNN(1, (4, 6), refine=True, non_local=(0, 2))
    assert [[m.channels for m in layer if isinstance(m, NonLocalBlock)] for layer in net.layers] == [[4], [], [6]]


@pytest.mark.parametrize("compiled", [False, True])
def test_the_border_is_replication_padding(compiled):
    torch._dynamo.reset()
    call = torch.compile(repeat_border, backend="aot_eager", fullgraph=True) if compiled else repeat_border
    for shape in ((2, 3, 4, 5), (2, 3, 2, 1, 4)):
        maps = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        expected = F.pad(maps, (1, 1, 1, 1) + (0, 0) * (maps.dim() - 4), mode="replicate")
        found = call(maps)
        assert torch.equal(found, expected)
        gradient = torch.randn_like(expected)
        for a, b in zip(*(torch.autograd.grad(out, maps, gradient) for out in (found, expected)), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("kind", "backend"), [(FrameCNN, "inductor"), (ClipCNN, "aot_eager")])
def test_a_compiled_backbone_trains(kind, backend):
    """Channels last, as the networks are: there PyTorch's own replication padding of frames stops generated code."""
    torch._dynamo.reset()
    plain = kind(1, (3,), batch_norm=True, refine=True, padding_mode="replicate")
    shape = (2, 1, 8, 8) if kind is FrameCNN else (2, 1, 3, 8, 8)
    x = torch.rand(shape)
    plain(x).sin().sum().backward()
    expected = [parameter.grad.clone() for parameter in plain.parameters()]
    plain.zero_grad()
    torch.compile(plain, backend=backend)(x).sin().sum().backward()
    for parameter, gradient in zip(plain.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-4)


def layers(
    channels: int = 1, width: int = 5, dtype: torch.dtype = torch.float64, **options
) -> tuple[Conv2d, BatchNorm2d]:
    conv, norm = Conv2d(channels, width, 3, bias=False, dtype=dtype, **options), BatchNorm2d(width, dtype=dtype)
    with torch.no_grad():
        # Some gains are negative: then pooling does not commute with the normalisation.
        norm.weight.normal_()
        norm.bias.normal_()
    return conv, norm


def results(run, frames, conv, norm):
    out = run(frames, conv, norm)
    gradients = torch.autograd.grad(out.sin().sum(), [frames, conv.weight, norm.weight, norm.bias])
    return [out, *gradients, norm.running_mean, norm.running_var, norm.num_batches_tracked]


@pytest.mark.parametrize(("channels", "options"), [(1, {}), (3, {}), (1, {"stride": 2}), (1, {"dilation": 2})], ids=str)
def test_folding_equals_the_two_layers(channels, options):
    conv, norm = layers(channels, **options)
    conv_before, norm_before = copy.deepcopy(conv), copy.deepcopy(norm)
    for training in (True, True, False):
        frames = torch.rand(4, channels, 9, 8, dtype=torch.float64, requires_grad=True)
        norm.train(training), norm_before.train(training)
        found = results(folded_norm, frames, conv, norm)
        expected = results(lambda x, conv, norm: norm(conv(x)), frames, conv_before, norm_before)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)


def test_gradients_of_folding():
    conv, norm = layers(width=2)
    frames = torch.rand(2, 1, 5, 4, dtype=torch.float64, requires_grad=True)

    def run(frames, weight, gain, bias):
        parts = {"weight": weight}, {"weight": gain, "bias": bias}
        conv_call = copy.deepcopy(conv)
        norm_call = copy.deepcopy(norm)
        for module, values in zip((conv_call, norm_call), parts, strict=True):
            for name, value in values.items():
                delattr(module, name)
                setattr(module, name, value)
        return folded_norm(frames, conv_call, norm_call)

    inputs = [frames, *(p.detach().clone().requires_grad_() for p in (conv.weight, norm.weight, norm.bias))]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def test_a_detector_of_edges_on_frames_that_are_almost_even():
    conv = Conv2d(1, 1, 3, bias=False)
    norm = BatchNorm2d(1, eps=1e-12)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    # Steps of 1 / 64 beside 1000: in float32 their squares would be lost.
    frames = 1000 + torch.randint(64, (8, 1, 16, 16)) / 64
    folded_norm(frames, conv, norm)
    variance = conv(frames).double().var().item()
    assert norm.running_var.item() == pytest.approx(0.9 + 0.1 * variance, rel=1e-5)


def test_float32_and_channels_last_under_autocast():
    conv, norm = layers(width=8, dtype=torch.float32)
    frames = torch.rand(4, 1, 12, 12).contiguous(memory_format=torch.channels_last)
    expected = copy.deepcopy(norm)(conv(frames))
    with torch.autocast("cpu", torch.bfloat16):
        out = folded_norm(frames, conv, norm)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=0.02, atol=0.02 * expected.abs().max().item())


def test_what_is_not_folded():
    assert can_fold(*layers())
    plain = Conv2d(1, 4, 3, bias=False)
    for conv, norm in (
        (Conv2d(4, 4, 3, bias=False), BatchNorm2d(4)),
        (Conv2d(1, 4, 3), BatchNorm2d(4)),
        (Conv2d(1, 4, 3, padding=1, bias=False), BatchNorm2d(4)),
        (Conv2d(2, 4, 3, groups=2, bias=False), BatchNorm2d(4)),
        (plain, BatchNorm2d(4, affine=False)),
        (plain, BatchNorm2d(4, momentum=None)),
        (plain, BatchNorm2d(4, track_running_stats=False)),
        (plain, SyncBatchNorm(4)),
        (plain, torch.nn.ReLU()),
    ):
        assert not can_fold(conv, norm), (conv, norm)


def test_layers_that_are_looked_at_are_not_folded():
    for kind in ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"):
        for which in (0, 1):
            pair = layers()
            handle = getattr(pair[which], f"register_{kind}")(lambda *_: None)
            assert not can_fold(*pair), (kind, which)
            handle.remove()
            assert can_fold(*pair), (kind, which)


def test_a_hook_on_all_layers_is_called(monkeypatch):
    monkeypatch.setattr(cnn, "folds_on", lambda frames: True)
    net, seen = FrameCNN(1, (4,), batch_norm=True), []
    net.layers.register_forward_hook(lambda module, inputs, maps: seen.append(maps))
    maps = net(torch.rand(2, 1, 8, 8))
    assert seen[0] is maps


def test_the_backbone_folds_its_first_layer(monkeypatch):
    net = FrameCNN(1, (4, 6), batch_norm=True, refine=True, padding_mode="replicate").double()
    folding = copy.deepcopy(net)
    frames = torch.rand(3, 1, 16, 16, dtype=torch.float64)
    calls = []

    def counted(*inputs):
        calls.append(len(inputs))
        return folded_norm(*inputs)

    expected = net(frames)
    monkeypatch.setattr(cnn, "folded_norm", counted)
    monkeypatch.setattr(cnn, "folds_on", lambda frames: True)
    torch.testing.assert_close(folding(frames), expected)
    assert calls == [3]
    torch.testing.assert_close(folding.state_dict(), net.state_dict())


PADDINGS = "'padding_mode' to be one of 'zeros', 'replicate', 'reflect', 'circular', got 'same'"


def test_errors():
    for make, message in (
        (lambda: ClipCNN(1, ()), "'widths' to hold at least one width, got ()"),
        (lambda: FrameCNN(1, ()), "'widths' to hold at least one width, got ()"),
        (lambda: ClipCNN(1, (4, 0)), "'widths[1]' to be a positive int, got 0"),
        (lambda: FrameCNN(1, (4, 0)), "'widths[1]' to be a positive int, got 0"),
        (lambda: ClipCNN(1, (4,), temporal_kernel=2), "'temporal_kernel' to be odd, got 2"),
        (lambda: ClipCNN(1, (4,), padding_mode="same"), PADDINGS),
        (lambda: FrameCNN(1, (4,), padding_mode="same"), PADDINGS),
        (lambda: ClipCNN(1, (4,), non_local=(1,)), "'non_local' to hold layers from 0 to 0, got (1,)"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"expected {message}")):
            make()
    for shape in ((2, 1, 9, 9), (2, 2, 3, 9, 9), (2, 1, 3, 3, 9), (2, 1, 0, 9, 9)):
        message = f"clips of shape [B, 1, T, H, W] with H and W of at least 4 and T of at least 1, got {list(shape)}"
        with pytest.raises(ValueError, match=re.escape(message)):
            ClipCNN(1, (4,))(torch.randn(shape))
    for shape in ((2, 1, 9, 32), (2, 3, 32, 32), (2, 1, 3, 32, 32)):
        message = f"frames of shape [B, 1, H, W] with H and W of at least 10, got {list(shape)}"
        with pytest.raises(ValueError, match=re.escape(message)):
            FrameCNN(1, (4, 4))(torch.randn(shape))
