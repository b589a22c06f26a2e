"""Products with a weight matrix, by the faster of the two libraries that PyTorch has on a CPU."""

import struct
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from rstg_pyg.ops.native.build import library
from rstg_pyg.ops.operators import operator, takes_plain_gradient
from rstg_pyg.watched import everything_is_watched

MIN_PRODUCT = 1 << 23
"""Multiplications from which on oneDNN makes up for the call's own cost."""

_ARGUMENTS = struct.Struct("10q")
_NUMBERS = {torch.float32: "float", torch.float64: "double"}


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Return :math:`\mathbf{x} \mathbf{W}^\top + \mathbf{b}`, as :func:`torch.nn.functional.linear` does.

    In float32 on a CPU, PyTorch takes products of matrices from MKL, whose fastest code runs on Intel's processors
    only. Its oneDNN, which serves convolutions and recurrent layers, has no such preference, so large products go
    there.

    Shapes:
        - **x:** ``[*, C]``. **weight:** ``[O, C]``. **bias:** ``[O]``. **output:** ``[*, O]``.
    """
    if (
        torch.compiler.is_exporting()
        or x.numel() * weight.size(0) < MIN_PRODUCT
        or not _goes_to_onednn(x, weight, bias)
    ):
        return F.linear(x, weight, bias)
    return _linear(x, weight, bias)


def _goes_to_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return (
        _IS_THERE
        and x.is_cpu
        and x.dtype == weight.dtype == torch.float32
        and (bias is None or bias.dtype == torch.float32)
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and (torch.compiler.is_compiling() or (type(x) is Tensor and type(weight) in (Tensor, Parameter)))
        and not everything_is_watched()
    )


# PyTorch publishes no product that oneDNN computes on tensors of the usual layout.
_IS_THERE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # Of a matrix with gaps between its rows, oneDNN takes a product without vector instructions.
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")


def _empty(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.size(0))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    need_x, need_weight, need_bias = ctx.needs_input_grad
    rows, grad_rows = x.reshape(-1, x.size(-1)), grad.reshape(-1, grad.size(-1))
    if takes_plain_gradient(grad):
        grad_bias = grad_rows.sum(0) if need_bias else None
        return (grad @ weight if need_x else None), (grad_rows.t() @ rows if need_weight else None), grad_bias
    grad_x = _linear(grad, weight.t(), None) if need_x else None
    if not need_weight:
        return grad_x, None, grad_rows.sum(0) if need_bias else None
    grad_weight, grad_bias = _weight_gradient(grad_rows, rows)
    return grad_x, grad_weight, grad_bias if need_bias else None


def _flops(x: Any, weight: Any, *rest: Any, **kwargs: Any) -> int:
    rows = 2 * weight[0]
    for size in x:
        rows *= size
    return rows


_linear = operator(
    "linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
    _run,
    _empty,
    save=_save,
    backward=_backward,
    flops=_flops,
)


def weight_gradient(grad: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the product of ``grad [M, O]`` and ``rows [M, C]`` over all rows, ``[O, C]``, and the sum of ``grad``."""
    # Of fewer rows than outputs, to clear and add up the threads' sums costs more than one pass over the rows saves.
    many = grad.dtype in _NUMBERS and grad.size(0) >= grad.size(1)
    native = library(_NUMBERS[grad.dtype]) if many else None
    if native is None or grad.dtype != rows.dtype or not grad.is_cpu:
        total = grad.sum(0, dtype=torch.promote_types(grad.dtype, torch.float32))
        return linear(grad.to(rows.dtype).t(), rows.t()), total
    grad, rows = (value if value.stride(1) == 1 else value.contiguous() for value in (grad, rows))
    weight, bias = _empty_gradients(grad, rows)
    sizes = torch.get_num_threads(), *grad.shape, rows.size(1)
    given = grad.data_ptr(), grad.stride(0), rows.data_ptr(), rows.stride(0)
    if native.rstg_weight_gradient(_ARGUMENTS.pack(*sizes, *given, weight.data_ptr(), bias.data_ptr())):
        raise MemoryError("the native kernels ran out of memory")
    return weight, bias


def _empty_gradients(grad: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    return grad.new_empty(grad.size(1), rows.size(1)), grad.new_empty(grad.size(1))


_weight_gradient = operator(
    "weight_gradient(Tensor grad, Tensor rows) -> (Tensor, Tensor)",
    weight_gradient,
    _empty_gradients,
    flops=lambda grad, rows, **kwargs: 2 * grad[0] * grad[1] * rows[1],
)
