"""Scores of pairs of nodes and their softmax as operators of PyTorch: differentiable, opaque to ``torch.compile``.

Shape legend: N nodes, E edges, F frames, K heads, D channels per head. The index tensors are those of
:class:`~rstg_pyg.ops.neighborhoods.Neighborhoods`: ``sources`` and ``destinations`` its sorted edges, ``edges`` and
``source_ptr`` its :attr:`by_source`.
"""

from types import SimpleNamespace

import torch
import triton
from torch import Tensor

from rstg_pyg.ops.pair_dot import plain_pair_dot
from rstg_pyg.ops.second_gradient import differentiable_gradients, takes_plain_gradient
from rstg_pyg.ops.triton.score_kernels import pair_dot_kernel, row_sum_kernel
from rstg_pyg.ops.triton.softmax_kernels import softmax_grad_kernel, softmax_kernel
from rstg_pyg.ops.triton.tiles import accumulator, device_of, sum_dtype, tiling


@torch.library.custom_op("rstg_pyg::triton_pair_dot", mutates_args=())
def pair_dot(
    query: Tensor,
    key: Tensor,
    nodes: Tensor,
    ptr: Tensor,
    sources: Tensor,
    destinations: Tensor,
    edges: Tensor | None,
    source_ptr: Tensor | None,
) -> Tensor:
    """``[E, F, K]``, the product of ``query_i`` and ``key_j`` over the last dimension.

    ``edges`` and ``source_ptr`` serve the gradient of ``key``; None where that is not wanted.
    """
    query, key = query.contiguous(), key.contiguous()
    score = _like_scores(query, key, sources)
    if score.numel() == 0 or query.size(3) == 0:
        return score.zero_()
    num_nodes, num_rows, channels = query.size(0), query.size(1) * query.size(2), query.size(3)
    cut = tiling(num_rows, channels)
    with device_of(query):
        pair_dot_kernel[(num_nodes * cut.row_blocks,)](
            query,
            key,
            score,
            nodes,
            ptr,
            sources,
            num_nodes,
            num_rows,
            channels=channels,
            block_r=cut.block_r,
            block_c=cut.block_c,
            number=accumulator(query, key),
        )
    return score


@pair_dot.register_fake
def _(query, key, nodes, ptr, sources, destinations, edges, source_ptr):
    return _like_scores(query, key, sources)


@torch.library.custom_op("rstg_pyg::triton_row_sum", mutates_args=())
def row_sum(
    value: Tensor, weight: Tensor, nodes: Tensor | None, ptr: Tensor, edges: Tensor | None, ends: Tensor
) -> Tensor:
    """``[N, F, K, D]``, the sum of ``weight[e] * value[ends[e]]`` over the edges into a node, where ``nodes`` is given,
    or over those out of it, where ``edges`` is."""
    value, weight = value.contiguous(), weight.contiguous()
    out = torch.empty_like(value)
    if out.numel() == 0 or weight.numel() == 0:
        return out.zero_()
    num_nodes, num_rows, channels = value.size(0), value.size(1) * value.size(2), value.size(3)
    cut = tiling(num_rows, channels)
    with device_of(value):
        row_sum_kernel[cut.grid(num_nodes)](
            value,
            weight,
            out,
            nodes,
            ptr,
            edges,
            ends,
            num_nodes,
            num_rows,
            channels=channels,
            incoming=nodes is not None,
            block_r=cut.block_r,
            block_c=cut.block_c,
            number=accumulator(value, weight),
        )
    return out


@row_sum.register_fake
def _(value, weight, nodes, ptr, edges, ends):
    return torch.empty_like(value, memory_format=torch.contiguous_format)


def _save_pair(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _pair_backward(ctx, grad):
    query, key, nodes, ptr, sources, destinations, edges, source_ptr = ctx.saved_tensors
    needed = ctx.needs_input_grad[:2]
    if takes_plain_gradient(grad):
        ends = SimpleNamespace(src=sources, dst=destinations)
        grads = differentiable_gradients(
            lambda: plain_pair_dot(query, key, ends).to(grad.dtype), (query, key), needed, grad
        )
    else:
        query_grad = row_sum(key, grad, nodes, ptr, None, sources).to(query.dtype) if needed[0] else None
        key_grad = row_sum(query, grad, None, source_ptr, edges, destinations).to(key.dtype) if needed[1] else None
        grads = (query_grad, key_grad)
    return *grads, None, None, None, None, None, None


pair_dot.register_autograd(_pair_backward, setup_context=_save_pair)


@torch.library.custom_op("rstg_pyg::triton_neighbor_softmax", mutates_args=())
def neighbor_softmax(score: Tensor, ptr: Tensor, destinations: Tensor) -> Tensor:
    """``[E, F, K]``, the softmax over the edges of each destination."""
    score = score.contiguous()
    alpha = torch.empty_like(score)
    _launch_softmax(softmax_kernel, score, alpha, ptr=ptr)
    return alpha


@neighbor_softmax.register_fake
def _(score, ptr, destinations):
    return torch.empty_like(score, memory_format=torch.contiguous_format)


@torch.library.custom_op("rstg_pyg::triton_neighbor_softmax_grad", mutates_args=())
def neighbor_softmax_grad(alpha: Tensor, grad: Tensor, ptr: Tensor) -> Tensor:
    """Gradient of the score from that of :func:`neighbor_softmax`."""
    alpha, grad = alpha.contiguous(), grad.contiguous()
    score_grad = torch.empty_like(alpha)
    _launch_softmax(softmax_grad_kernel, alpha, grad, score_grad, ptr=ptr)
    return score_grad


@neighbor_softmax_grad.register_fake
def _(alpha, grad, ptr):
    return torch.empty_like(alpha, memory_format=torch.contiguous_format)


def _launch_softmax(kernel, *tensors: Tensor, ptr: Tensor) -> None:
    num_nodes, num_rows = ptr.numel() - 1, tensors[0].size(1) * tensors[0].size(2)
    if tensors[0].numel() == 0:
        return
    block_r = min(triton.next_power_of_2(num_rows), 64)
    with device_of(ptr):
        kernel[(num_nodes * triton.cdiv(num_rows, block_r),)](
            *tensors,
            ptr,
            num_nodes,
            num_rows,
            block_r=block_r,
            block_e=max(8, 128 // block_r),
            number=accumulator(tensors[0]),
            num_warps=2,
        )


def _save_softmax(ctx, inputs, output):
    ctx.save_for_backward(output, *inputs[1:])


def _softmax_backward(ctx, grad):
    alpha, ptr, destinations = ctx.saved_tensors
    if takes_plain_gradient(grad):
        weighted = alpha * grad
        total = weighted.new_zeros(ptr.numel() - 1, *alpha.shape[1:]).index_add(0, destinations, weighted)
        return weighted - alpha * total.index_select(0, destinations), None, None
    return neighbor_softmax_grad(alpha, grad, ptr), None, None


neighbor_softmax.register_autograd(_softmax_backward, setup_context=_save_softmax)


def _like_scores(query: Tensor, key: Tensor, sources: Tensor) -> Tensor:
    return query.new_empty(sources.size(0), query.size(1), query.size(2), dtype=sum_dtype(query, key))
