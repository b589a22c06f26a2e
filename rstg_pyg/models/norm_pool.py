"""What stands between two convolutions, in one go: batch norm, ReLU, max-pooling and a repeated border."""

import struct
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.nn import BatchNorm2d

from rstg_pyg.ops.native.build import library
from rstg_pyg.ops.operators import differentiable_gradients, takes_plain_gradient

_SOURCE = Path(__file__).with_name("norm_pool.cpp")
_LANES = 16
"""Channels come in multiples of so many: the widest vectors have as many floats."""

_ARGUMENTS = struct.Struct("9qd13q")


def takes_norm_pool(frames: Tensor, norm: BatchNorm2d) -> bool:
    """Whether :func:`norm_pool` takes what convolutions make of these frames, and what this batch norm is set to."""
    return (
        norm.num_features % _LANES == 0
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and norm.weight.dtype == norm.running_mean.dtype == frames.dtype
        and frames.dtype in (torch.float32, torch.float64)
        and (not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") == torch.bfloat16)
        # A single pixel has no variance.
        and frames.size(0) > norm.training
        and library(_number(frames.dtype), _SOURCE) is not None
    )


def norm_pool(maps: Tensor, norm: BatchNorm2d, pooled: bool = True, border: bool = False) -> Tensor:
    r"""Return

    .. math::
        \mathrm{border}(\mathrm{pool}_{2 \times 2}(\mathrm{ReLU}(\mathrm{norm}(\mathbf{F}))))

    and move the running statistics of ``norm``. The scale of a channel's norm is positive or not, so that the greatest
    pixel of a cell, or the smallest, becomes the greatest one: cells are pooled first, and only a quarter of the pixels
    is normalised, rectified, written and kept for the gradients. Statistics and sums are in float32, or float64.

    Args:
        maps: What a convolution made, in the type of the norm or bfloat16.
        norm: The batch norm, see :func:`takes_norm_pool`.
        pooled: Whether there is max-pooling.
        border: Whether one more row and column of the same values is put around the maps.

    Shapes:
        - **maps:** ``[N, C, H, W]``. **output:** ``[N, C, H', W']``, with channels last; H' is H, or H // 2 with
          pooling, and 2 more with a border.

    Example:
        >>> import torch
        >>> from rstg_pyg.models.norm_pool import norm_pool
        >>> norm_pool(torch.randn(2, 16, 9, 8), torch.nn.BatchNorm2d(16), border=True).shape
        torch.Size([2, 16, 6, 6])
    """
    running = (None, None) if norm.training else (norm.running_mean, norm.running_var)
    out, found = _NormPool.apply(maps, norm.weight, norm.bias, *running, norm.eps, pooled, border)
    if norm.training:
        count = maps.numel() // maps.size(1)
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)
            norm.running_mean.lerp_(found[0], norm.momentum)
            norm.running_var.lerp_(found[1] * (count / (count - 1)), norm.momentum)
    return out


def plain_norm_pool(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    eps: float,
    pooled: bool,
    border: bool,
) -> Tensor:
    """What :func:`norm_pool` computes, layer by layer; without mean and variance by those of the maps."""
    maps = F.batch_norm(maps, mean, variance, weight, bias, mean is None, 0.0, eps).relu()
    maps = F.max_pool2d(maps, 2) if pooled else maps
    return F.pad(maps, (1, 1, 1, 1), mode="replicate") if border else maps


class _NormPool(Function):
    @staticmethod
    def forward(
        ctx: Any,
        maps: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor | None,
        variance: Tensor | None,
        eps: float,
        pooled: bool,
        border: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.given, ctx.options = (mean, variance), (eps, pooled, border)
        maps = maps.contiguous(memory_format=torch.channels_last)
        height, width = (size // 2 if pooled else size for size in maps.shape[2:])
        best = _maps_like(maps, height, width) if pooled else maps
        out = _maps_like(maps, height + 2 * border, width + 2 * border)
        found = weight.new_empty(3, weight.size(0))
        if mean is not None:
            found[0], found[1] = mean, variance
        _call("rstg_norm_forward", ctx, maps, weight, bias, found, best, out)
        ctx.save_for_backward(maps, weight, bias, found, best)
        ctx.mark_non_differentiable(found)
        return out, found

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *rest: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 8
        maps, weight, bias, found, best = ctx.saved_tensors
        if takes_plain_gradient(grad):

            def run(*own: Tensor) -> Tensor:
                return plain_norm_pool(*own, *ctx.given, *ctx.options)

            inputs = maps, weight, bias
            return *differentiable_gradients(run, inputs, ctx.needs_input_grad[:3], grad), *(None,) * 5
        grad = grad.contiguous(memory_format=torch.channels_last)
        into = torch.empty_like(maps), torch.empty_like(weight), torch.empty_like(weight)
        _call("rstg_norm_backward", ctx, maps, weight, bias, found, best, grad, *into)
        return *into, *(None,) * 5


def _number(dtype: torch.dtype) -> str:
    return "double" if dtype == torch.float64 else "float"


def _maps_like(maps: Tensor, height: int, width: int) -> Tensor:
    shape = maps.size(0), maps.size(1), height, width
    return torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last)


def _call(name: str, ctx: Any, maps: Tensor, weight: Tensor, *tensors: Tensor) -> None:
    """Pack the fields of ``NormArguments`` in ``norm_pool.cpp`` and call a function of the library."""
    frames, channels, height, width = maps.shape
    eps, pooled, border = ctx.options
    threads = torch.get_num_threads()
    bias, found, *others = tensors
    room = weight.new_empty(2 * frames * channels + threads * width * _LANES)
    rows = room.data_ptr() + 2 * frames * channels * room.element_size()
    packed = _ARGUMENTS.pack(
        *(maps.dtype == torch.bfloat16, threads, frames, height, width, channels),
        *(pooled, border, ctx.given[0] is None, eps),
        *(one.data_ptr() for one in (weight, bias, maps, *found)),
        *(room.data_ptr(), rows),
        *(one.data_ptr() for one in others),
        *(0,) * (5 - len(others)),
    )
    getattr(library(_number(weight.dtype), _SOURCE), name)(packed)
