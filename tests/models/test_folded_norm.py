"""Batch normalisation folded into the convolution before it against the two layers."""

import copy

import pytest
import torch
from torch.nn import BatchNorm2d, Conv2d, SyncBatchNorm

from rstg_pyg import FrameCNN
from rstg_pyg.models import cnn as frame_cnn
from rstg_pyg.models.cnn import can_fold, folded_norm


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


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"dilation": 2}], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_two_layers(channels, options, training):
    conv, norm = layers(channels, **options)
    conv_before, norm_before = copy.deepcopy(conv), copy.deepcopy(norm)
    for _ in range(2):
        frames = torch.rand(4, channels, 9, 8, dtype=torch.float64, requires_grad=True)
        norm.train(training), norm_before.train(training)
        found = results(folded_norm, frames, conv, norm)
        expected = results(lambda x, conv, norm: norm(conv(x)), frames, conv_before, norm_before)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)


def test_gradients():
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
    assert torch.autograd.gradcheck(run, inputs)


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


@pytest.mark.parametrize(
    ("conv", "norm"),
    [
        (Conv2d(4, 4, 3, bias=False), BatchNorm2d(4)),
        (Conv2d(1, 4, 3), BatchNorm2d(4)),
        (Conv2d(1, 4, 3, padding=1, bias=False), BatchNorm2d(4)),
        (Conv2d(2, 4, 3, groups=2, bias=False), BatchNorm2d(4)),
        (Conv2d(1, 4, 3, bias=False), BatchNorm2d(4, affine=False)),
        (Conv2d(1, 4, 3, bias=False), BatchNorm2d(4, momentum=None)),
        (Conv2d(1, 4, 3, bias=False), BatchNorm2d(4, track_running_stats=False)),
        (Conv2d(1, 4, 3, bias=False), SyncBatchNorm(4)),
        (Conv2d(1, 4, 3, bias=False), torch.nn.ReLU()),
    ],
    ids=str,
)
def test_what_is_not_folded(conv, norm):
    assert can_fold(*layers())
    assert not can_fold(conv, norm)


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"])
@pytest.mark.parametrize("which", [0, 1])
def test_layers_that_are_looked_at_are_not_folded(which, kind):
    pair = layers()
    handle = getattr(pair[which], f"register_{kind}")(lambda *_: None)
    assert not can_fold(*pair)
    handle.remove()
    assert can_fold(*pair)


def test_a_hook_on_all_layers_is_called(monkeypatch):
    monkeypatch.setattr(frame_cnn, "folds_on", lambda frames: True)
    cnn, seen = FrameCNN(1, (4,), batch_norm=True), []
    cnn.layers.register_forward_hook(lambda module, inputs, maps: seen.append(maps))
    maps = cnn(torch.rand(2, 1, 8, 8))
    assert seen[0] is maps


def test_the_backbone_folds_its_first_layer(monkeypatch):
    cnn = FrameCNN(1, (4, 6), batch_norm=True, refine=True, padding_mode="replicate").double()
    folding = copy.deepcopy(cnn)
    frames = torch.rand(3, 1, 16, 16, dtype=torch.float64)
    calls = []

    def counted(*inputs):
        calls.append(len(inputs))
        return folded_norm(*inputs)

    expected = cnn(frames)
    monkeypatch.setattr(frame_cnn, "folded_norm", counted)
    monkeypatch.setattr(frame_cnn, "folds_on", lambda frames: True)
    torch.testing.assert_close(folding(frames), expected)
    assert calls == [3]
    torch.testing.assert_close(folding.state_dict(), cnn.state_dict())
