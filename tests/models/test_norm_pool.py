"""Batch norm, ReLU, pooling and border in one go, against the layers."""

import copy
import itertools

import pytest
import torch
from cases import case
from torch.nn import BatchNorm2d

from rstg_pyg import FrameCNN
from rstg_pyg.models import cnn
from rstg_pyg.models.norm_pool import norm_pool, plain_norm_pool, takes_norm_pool
from rstg_pyg.ops.native.attend import is_available

pytestmark = pytest.mark.skipif(not is_available(), reason="no compiler for the native kernels")

FORMS = list(itertools.product((True, False), (True, False), (True, False)))
"""Pooling, border, training."""


def norm_of(channels, dtype, training=True):
    norm = BatchNorm2d(channels, dtype=dtype).train(training)
    with torch.no_grad():
        for value in (norm.weight, norm.bias, norm.running_mean):
            value.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight[0] = 0
    assert norm.weight.min() < 0 < norm.weight.max()
    return norm


def plain(maps, norm, pooled, border):
    running = (None, None) if norm.training else (norm.running_mean, norm.running_var)
    return plain_norm_pool(maps, norm.weight, norm.bias, *running, norm.eps, pooled, border)


def gradients(out, maps, norm, **options):
    towards = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(out.dtype)
    return torch.autograd.grad(out, [maps, norm.weight, norm.bias], towards, **options)


def draw(shape, dtype=torch.float64):
    """Few different values, so that pixels of a cell are equal."""
    maps = torch.randint(-4, 5, shape).to(dtype).contiguous(memory_format=torch.channels_last)
    return maps.requires_grad_()


@pytest.mark.parametrize("threads", [1, 2])
def test_it_is_what_the_layers_are(threads):
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for shape in ((3, 32, 9, 8), (2, 16, 2, 2), (40, 16, 13, 40)):
        for pooled, border, training in FORMS:
            with case(shape, pooled, border, training):
                maps, norm = draw(shape), norm_of(shape[1], torch.float64, training)
                layers = copy.deepcopy(norm)
                expected = layers(maps).relu()
                expected = torch.nn.functional.max_pool2d(expected, 2) if pooled else expected
                expected = cnn.repeat_border(expected) if border else expected
                out = norm_pool(maps, norm, pooled, border)
                torch.testing.assert_close(out, expected)
                torch.testing.assert_close(norm.state_dict(), layers.state_dict())
                for found, wanted in zip(gradients(out, maps, norm), gradients(expected, maps, layers), strict=True):
                    torch.testing.assert_close(found, wanted)
    torch.set_num_threads(before)


def test_float32_and_bfloat16_lie_by_float64():
    torch.manual_seed(0)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2**-8)):
        for pooled, border, training in FORMS:
            with case(dtype, pooled, border, training):
                # A mean far from 0: squares would cancel.
                maps = (torch.randn(4, 16, 13, 12) + 100).to(dtype).requires_grad_()
                norm = norm_of(16, torch.float32, training)
                exact, exact_norm = maps.detach().double().requires_grad_(), copy.deepcopy(norm).double()
                out, expected = norm_pool(maps, norm, pooled, border), plain(exact, exact_norm, pooled, border)
                assert out.dtype == dtype
                found = out, *gradients(out, maps, norm)
                wanted = expected, *gradients(expected, exact, exact_norm)
                for a, b in zip(found, wanted, strict=True):
                    torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance * b.abs().max().item())


def test_gradients_of_gradients():
    torch.manual_seed(0)
    maps, norm = draw((2, 16, 5, 4)), norm_of(16, torch.float64)
    found = []
    for run in (norm_pool, plain):
        first = gradients(run(maps, norm, True, True), maps, norm, create_graph=True)
        found.append(torch.autograd.grad(sum(one.square().sum() for one in first), [maps, norm.weight]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_nan_stays():
    norm = norm_of(16, torch.float32, training=False)
    for place in itertools.product((0, 1), (0, 1)):
        maps = torch.zeros(1, 16, 2, 2)
        maps[(0, 1, *place)] = torch.nan
        assert norm_pool(maps, norm)[0, 1].isnan()


def test_the_backbone_takes_it_where_nobody_looks(monkeypatch):
    torch.manual_seed(0)
    net = FrameCNN(1, (16, 32), batch_norm=True, refine=True, padding_mode="replicate").double()
    frames, fusing, calls = torch.rand(3, 1, 16, 16, dtype=torch.float64), copy.deepcopy(net), []
    monkeypatch.setattr(cnn, "norm_pool", lambda *inputs: calls.append(inputs[2:]) or norm_pool(*inputs))
    for training in (True, False):
        out, expected = fusing.train(training)(frames), net.train(training).layers(frames)
        torch.testing.assert_close(out, expected)
        for a, b in zip(
            torch.autograd.grad(out.sin().sum(), list(fusing.parameters())),
            torch.autograd.grad(expected.sin().sum(), list(net.parameters())),
            strict=True,
        ):
            torch.testing.assert_close(a, b)
    torch.testing.assert_close(fusing.state_dict(), net.state_dict())
    assert calls == 2 * [(True, False), (True, True), (False, False)]
    for layer in (fusing.layers, fusing.layers[2], fusing.layers[3]):
        handle = layer.register_forward_hook(lambda *_: None)
        fusing(frames)
        handle.remove()
    # Layers in another order, or of other sizes, are not what it computes.
    fusing.layers[3].kernel_size = 3
    torch.testing.assert_close(fusing(frames), fusing.layers(frames))
    fusing.layers[3].kernel_size = 2
    fusing.layers[2], fusing.layers[3] = fusing.layers[3], fusing.layers[2]
    torch.testing.assert_close(fusing(frames), fusing.layers(frames))
    assert len(calls) == 6


def test_what_it_does_not_take():
    frames = torch.rand(2, 1, 8, 8)
    assert takes_norm_pool(frames, BatchNorm2d(16))
    for norm in (
        BatchNorm2d(12),
        BatchNorm2d(16, affine=False),
        BatchNorm2d(16, momentum=None),
        BatchNorm2d(16, track_running_stats=False),
        BatchNorm2d(16, dtype=torch.float64),
    ):
        assert not takes_norm_pool(frames, norm), norm
    assert not takes_norm_pool(frames[:1], BatchNorm2d(16))
    assert takes_norm_pool(frames[:1], BatchNorm2d(16).eval())
    with torch.autocast("cpu", torch.float16):
        assert not takes_norm_pool(frames, BatchNorm2d(16))
