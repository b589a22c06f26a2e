"""Weighted messages as an operator of PyTorch: differentiable, and opaque to ``torch.compile``.

Shape legend: N nodes, E edges, F frames, K heads, H hidden channels. The index tensors are those of
:class:`~rstg_pyg.ops.neighborhoods.Neighborhoods`: ``sources`` and ``destinations`` its sorted edges, ``edges`` and
``source_ptr`` its :attr:`by_source`.
"""

from types import SimpleNamespace

import torch
import triton
from torch import Tensor

from rstg_pyg.ops.second_gradient import differentiable_gradients, takes_plain_gradient
from rstg_pyg.ops.triton.message_kernels import destination_grad_kernel, source_grad_kernel, sum_kernel
from rstg_pyg.ops.triton.tiles import Tiling, accumulator, device_of, sum_dtype, tiling
from rstg_pyg.ops.weighted_relu import plain_weighted_relu


@torch.library.custom_op("rstg_pyg::triton_messages", mutates_args=())
def messages(
    src: Tensor,
    dst: Tensor,
    alpha: Tensor,
    nodes: Tensor,
    ptr: Tensor,
    sources: Tensor,
    destinations: Tensor,
    edges: Tensor | None,
    source_ptr: Tensor | None,
) -> Tensor:
    """``[N, F, K, H]``, the sum over the neighbours j of ``alpha * relu(src_j + dst_i)``.

    ``edges`` and ``source_ptr`` serve the gradient of ``src``; None where that is not wanted.
    """
    src, dst, alpha = src.contiguous(), dst.contiguous(), alpha.contiguous()
    out = _like_sums(src, dst, alpha)
    if out.numel() == 0 or alpha.numel() == 0:
        return out.zero_()
    cut, sizes = _sizes(src, alpha)
    with device_of(src):
        sum_kernel[cut.grid(src.size(0))](
            src, dst, alpha, out, nodes, ptr, sources, src.size(0), src.size(1), number=accumulator(src, alpha), **sizes
        )
    return out


@messages.register_fake
def _(src, dst, alpha, nodes, ptr, sources, destinations, edges, source_ptr):
    return _like_sums(src, dst, alpha)


@torch.library.custom_op("rstg_pyg::triton_messages_destination_grad", mutates_args=())
def destination_grad(
    grad: Tensor, src: Tensor, dst: Tensor, alpha: Tensor, nodes: Tensor, ptr: Tensor, sources: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of ``dst`` and ``alpha`` from that of :func:`messages`."""
    grad, src, dst, alpha = grad.contiguous(), src.contiguous(), dst.contiguous(), alpha.contiguous()
    dst_grad, alpha_grad = torch.empty_like(dst), torch.empty_like(alpha)
    if grad.numel() == 0 or alpha.numel() == 0:
        return dst_grad.zero_(), alpha_grad.zero_()
    cut, sizes = _sizes(src, alpha)
    partial = alpha.new_empty(cut.channel_blocks, *alpha.shape, dtype=sum_dtype(src, alpha))
    with device_of(src):
        destination_grad_kernel[cut.grid(src.size(0))](
            grad,
            src,
            dst,
            alpha,
            dst_grad,
            partial,
            nodes,
            ptr,
            sources,
            src.size(0),
            src.size(1),
            alpha.size(0),
            number=accumulator(src, alpha),
            **sizes,
        )
    summed = partial.squeeze(0) if cut.channel_blocks == 1 else partial.sum(0)
    return dst_grad, summed.to(alpha.dtype)


@destination_grad.register_fake
def _(grad, src, dst, alpha, nodes, ptr, sources):
    return _empty_like(dst), _empty_like(alpha)


@torch.library.custom_op("rstg_pyg::triton_messages_source_grad", mutates_args=())
def source_grad(
    grad: Tensor, src: Tensor, dst: Tensor, alpha: Tensor, destinations: Tensor, edges: Tensor, source_ptr: Tensor
) -> Tensor:
    """Gradient of ``src`` from that of :func:`messages`."""
    grad, src, dst, alpha = grad.contiguous(), src.contiguous(), dst.contiguous(), alpha.contiguous()
    src_grad = torch.empty_like(src)
    if grad.numel() == 0 or alpha.numel() == 0:
        return src_grad.zero_()
    cut, sizes = _sizes(src, alpha)
    with device_of(src):
        source_grad_kernel[cut.grid(src.size(0))](
            grad,
            src,
            dst,
            alpha,
            src_grad,
            edges,
            source_ptr,
            destinations,
            src.size(0),
            src.size(1),
            number=accumulator(src, alpha),
            **sizes,
        )
    return src_grad


@source_grad.register_fake
def _(grad, src, dst, alpha, destinations, edges, source_ptr):
    return _empty_like(src)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):
    src, dst, alpha, nodes, ptr, sources, destinations, edges, source_ptr = ctx.saved_tensors
    needed = ctx.needs_input_grad[:3]
    if takes_plain_gradient(grad):
        ends = SimpleNamespace(src=sources, dst=destinations)
        grads = differentiable_gradients(
            lambda: plain_weighted_relu(src, dst, alpha, None, ends).to(grad.dtype), (src, dst, alpha), needed, grad
        )
    else:
        src_grad = dst_grad = alpha_grad = None
        if needed[0]:
            src_grad = source_grad(grad, src, dst, alpha, destinations, edges, source_ptr)
        if needed[1] or needed[2]:
            dst_grad, alpha_grad = destination_grad(grad, src, dst, alpha, nodes, ptr, sources)
        grads = (src_grad, dst_grad, alpha_grad)
    return *grads, None, None, None, None, None, None


messages.register_autograd(_backward, setup_context=_save)


def _sizes(src: Tensor, alpha: Tensor) -> tuple[Tiling, dict[str, int]]:
    hidden, heads = src.size(2), alpha.size(2)
    block_k = triton.next_power_of_2(heads)
    cut = tiling(src.size(1), hidden, per_row=block_k)
    return cut, {
        "hidden": hidden,
        "heads": heads,
        "block_f": cut.block_r,
        "block_k": block_k,
        "block_c": cut.block_c,
    }


def _like_sums(src: Tensor, dst: Tensor, alpha: Tensor) -> Tensor:
    dtype = torch.promote_types(src.dtype, dst.dtype)
    return src.new_empty(src.size(0), src.size(1), alpha.size(2), src.size(2), dtype=dtype)


def _empty_like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)
