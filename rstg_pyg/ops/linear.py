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

_ARGUMENTS = struct.Struct("5q")


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
    grad_bias = grad_rows.sum(0) if need_bias else None
    if takes_plain_gradient(grad):
        return (grad @ weight if need_x else None), (grad_rows.t() @ rows if need_weight else None), grad_bias
    grad_weight = _linear(transpose(grad_rows.contiguous()), rows.t(), None) if need_weight else None
    return _linear(grad, weight.t(), None) if need_x else None, grad_weight, grad_bias


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


def transpose(rows: Tensor) -> Tensor:
    """The transpose of a contiguous matrix, contiguous where the native library makes it so, faster than PyTorch."""
    kinds = {torch.float32: "float", torch.float64: "double"}
    native = library(kinds[rows.dtype]) if rows.dtype in kinds and not torch.compiler.is_compiling() else None
    if native is None or type(rows) is not Tensor:
        return rows.t()
    out = rows.new_empty(rows.size(1), rows.size(0))
    packed = _ARGUMENTS.pack(torch.get_num_threads(), *rows.shape, rows.data_ptr(), out.data_ptr())
    if native.rstg_transpose(packed):
        raise MemoryError("the native kernels ran out of memory")
    return out
