import ctypes
import mmap
import sys

import pytest
import torch
import torch.nn.functional as F

from rstg_pyg.conv.layers import Linear
from rstg_pyg.ops.linear import MIN_PRODUCT, _goes_to_onednn, linear, weight_gradient

TOLERANCE = {torch.float32: {"rtol": 1e-5, "atol": 1e-4}, torch.bfloat16: {"rtol": 1e-2, "atol": 1e-2}}
SHAPES = {"many rows": ((14, 160, 64), 64), "wide": ((600, 128), 128), "one inner dimension": ((3, 1000, 48), 96)}


def contiguous(size, out):
    return torch.randn(out, size[-1])


def transposed(size, out):
    return torch.randn(size[-1], out).t()


def columns(size, out):
    return torch.randn(out, 2 * size[-1])[:, : size[-1]]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [contiguous, transposed, columns])
@pytest.mark.parametrize("size, out", SHAPES.values(), ids=SHAPES.keys())
def test_products_of_both_libraries_agree(size, out, layout, bias):
    x, weight = torch.randn(size, requires_grad=True), layout(size, out).requires_grad_()
    inputs = (x, weight, torch.randn(out, requires_grad=True)) if bias else (x, weight)
    if x.numel() * out >= MIN_PRODUCT and torch.backends.mkldnn.is_available():
        assert _goes_to_onednn(*inputs, *[None] * (3 - len(inputs)))
    one, other = linear(*inputs), F.linear(*inputs)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    grad = torch.randn_like(one)
    for a, b in zip(torch.autograd.grad(one, inputs, grad), torch.autograd.grad(other, inputs, grad), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_a_gradient_that_is_one_number_everywhere():
    x, weight = torch.randn(2240, 64, requires_grad=True), torch.randn(64, 64, requires_grad=True)
    linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.detach().sum(0).expand_as(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("num_threads", [1, 3])
def test_the_gradient_of_a_weight(dtype, num_threads):
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        for rows, outputs, channels in ((0, 3, 4), (1, 1, 1), (5, 40, 16), (300, 257, 70), (3000, 64, 64)):
            # Also columns of wider matrices, and one row everywhere.
            for x in (torch.randn(rows, channels + 3)[:, :channels], torch.randn(1, channels).expand(rows, -1)):
                x, grad = x.to(dtype), torch.randn(rows, 2 * outputs).to(dtype)[:, outputs:]
                found = [value.double() for value in weight_gradient(grad, x)]
                expected = [grad.t().double() @ x.double(), grad.double().sum(0)]
                torch.testing.assert_close(found, expected, **({} if dtype == torch.float64 else TOLERANCE[dtype]))
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is closed by a call of Linux")
@pytest.mark.parametrize(("stride", "channels"), [(16, 13), (32, 24), (64, 49), (64, 7)])
def test_the_gradient_of_a_weight_reads_nothing_behind_its_rows(stride, channels):
    page, count = mmap.PAGESIZE, mmap.PAGESIZE // 4
    memory = mmap.mmap(-1, 2 * page)
    values = torch.frombuffer(memory, dtype=torch.float32)
    end = ctypes.c_void_p(values.data_ptr() + page)
    assert ctypes.CDLL(None).mprotect(end, ctypes.c_size_t(page), 0) == 0
    x = values[:count].view(-1, stride)[:, stride - channels :].normal_()
    grad = torch.randn(x.size(0), 5)
    torch.testing.assert_close(weight_gradient(grad, x)[0], grad.t() @ x, **TOLERANCE[torch.float32])


def test_second_gradients():
    x, weight = torch.randn(2240, 64, requires_grad=True), torch.randn(64, 64, requires_grad=True)
    results = []
    for function in (linear, F.linear):
        (first,) = torch.autograd.grad(function(x, weight).square().mean(), x, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), (x, weight)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-6)


def test_transforms_of_functions_still_work():
    layer, x = Linear(64, 64), torch.randn(8, 2240, 64)
    torch.testing.assert_close(torch.func.vmap(layer)(x), F.linear(x, layer.weight, layer.bias))


def test_a_frozen_layer_passes_gradients_on():
    layer, x = Linear(64, 64).requires_grad_(False), torch.randn(2240, 64, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and layer.weight.grad is None
