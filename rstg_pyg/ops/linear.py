"""Products with a weight matrix, by the faster of the two libraries that PyTorch has on a CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from rstg_pyg.ops.second_gradient import takes_plain_gradient
from rstg_pyg.watched import everything_is_watched

MIN_PRODUCT = 1 << 23
"""Multiplications from which on oneDNN makes up for the call's own cost."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Return :math:`\mathbf{x} \mathbf{W}^\top + \mathbf{b}`, as :func:`torch.nn.functional.linear` does.

    In float32 on a CPU, PyTorch takes products of matrices from MKL, whose fastest code runs on Intel's processors
    only. Its oneDNN, which serves convolutions and recurrent layers, has no such preference, so large products go
    there.

    Shapes:
        - **x:** ``[*, C]``. **weight:** ``[O, C]``. **bias:** ``[O]``. **output:** ``[*, O]``.
    """
    if not _goes_to_onednn(x, weight, bias):
        return F.linear(x, weight, bias)
    return _OneDNNLinear.apply(x, weight, bias)


def _goes_to_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return (
        not torch.compiler.is_compiling()
        and type(x) is Tensor
        and type(weight) in (Tensor, Parameter)
        and x.is_cpu
        and x.dtype == weight.dtype == torch.float32
        and (bias is None or bias.dtype == torch.float32)
        and x.numel() * weight.size(0) >= MIN_PRODUCT
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not everything_is_watched()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    # Of a matrix with gaps between its rows, oneDNN takes a product without vector instructions.
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()
    x = x.contiguous()
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        rows, grad_rows = x.reshape(-1, x.size(-1)), grad.reshape(-1, grad.size(-1))
        grad_bias = grad_rows.sum(0) if need_bias else None
        if takes_plain_gradient(grad):
            return (
                (grad @ weight if need_x else None),
                (grad_rows.t() @ rows if need_weight else None),
                grad_bias,
            )
        grad_weight = _product(_transpose(grad_rows), rows.t()) if need_weight else None
        return _product(grad, weight.t()) if need_x else None, grad_weight, grad_bias


def _transpose(rows: Tensor) -> Tensor:
    from rstg_pyg.ops.native import transpose  # whose package takes products from here

    return transpose(rows.contiguous())
