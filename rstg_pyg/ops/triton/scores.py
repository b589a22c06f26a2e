r"""Scores of pairs of nodes as an operator of PyTorch, and its kernels.

Shape legend: N nodes, E edges, R rows (frames times heads), D channels per head; ``query``, ``key`` are ``[N, R, D]``,
``score`` is ``[E, R]``. In a kernel, e, r and c stand for the edges, rows and channels that a program holds at a time,
and ``rc`` for offsets in a tile ``[1, r, c]``. The index
tensors are those of :class:`~rstg_pyg.ops.GraphIndex`: ``sources`` and ``destinations`` its sorted edges, ``edges`` and
``source_ptr`` its :attr:`by_source`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rstg_pyg.ops.operators import differentiable_gradients, takes_plain_gradient
from rstg_pyg.ops.plain import Ends, plain_pair_dot
from rstg_pyg.ops.triton.tiles import accumulator, device_of, locate, sum_dtype, tiling, tuned


@triton.jit
def _tile(r0, c0, num_rows, channels: tl.constexpr, block_r: tl.constexpr, block_c: tl.constexpr):
    """Offsets ``[1, r, c]`` from row r0 of a node, and which of them exist."""
    r = tl.arange(0, block_r)[None, :, None]
    c = c0 + tl.arange(0, block_c)[None, None, :]
    return r * channels + c, (r0 + r < num_rows) & (c < channels)


@tuned("channels", "block_r")
@triton.jit(do_not_specialize=["num_nodes", "num_rows"])
def pair_dot_kernel(
    query,
    key,
    score,
    nodes,
    ptr,
    sources,
    num_nodes,
    num_rows,
    channels: tl.constexpr,
    block_r: tl.constexpr,
    block_c: tl.constexpr,
    number: tl.constexpr,
    block_e: tl.constexpr,
):
    r"""``score`` :math:`= \mathbf{q}_i^\top \mathbf{k}_j`, a program per destination with all channels."""
    slot, r0, _ = locate(num_nodes, num_rows, block_r, block_c)
    rank = num_nodes - 1 - slot
    begin = tl.load(ptr + rank)
    end = tl.load(ptr + rank + 1)
    r = tl.arange(0, block_r)[None, :]
    rc, in_rc = _tile(r0, 0, num_rows, channels, block_r, block_c)
    q_row = (tl.load(nodes + rank) * num_rows + r0) * channels
    q = tl.load(query + q_row + rc, mask=in_rc, other=0.0).to(number)
    for first in range(begin, end, block_e):
        e = first + tl.arange(0, block_e)
        real = e < end
        in_e = real[:, None, None]
        j = tl.load(sources + e, mask=real, other=0)
        k_row = ((j * num_rows + r0) * channels)[:, None, None]
        k = tl.load(key + k_row + rc, mask=in_e & in_rc, other=0.0).to(number)
        dot = tl.sum(q * k, axis=2)
        for c0 in tl.static_range(block_c, channels, block_c):
            more, in_more = _tile(r0, c0, num_rows, channels, block_r, block_c)
            q_more = tl.load(query + q_row + more, mask=in_more, other=0.0).to(number)
            k_more = tl.load(key + k_row + more, mask=in_e & in_more, other=0.0).to(number)
            dot += tl.sum(q_more * k_more, axis=2)
        s_row = (e * num_rows + r0)[:, None]
        tl.store(score + s_row + r, dot, mask=real[:, None] & (r0 + r < num_rows))


@tuned("channels", "block_r", "incoming")
@triton.jit(do_not_specialize=["num_nodes", "num_rows"])
def row_sum_kernel(
    value,
    weight,
    out,
    nodes,
    ptr,
    edges,
    ends,
    num_nodes,
    num_rows,
    channels: tl.constexpr,
    incoming: tl.constexpr,
    block_r: tl.constexpr,
    block_c: tl.constexpr,
    number: tl.constexpr,
    block_e: tl.constexpr,
):
    """``out[n] = sum of weight[e] * value[other end of e]`` over the edges into n, or over those out of n.

    Args:
        nodes: Read for incoming edges: the node of each program.
        edges: Read for outgoing edges: positions in the sorted edges.
        ends: The other end of every sorted edge.
    """
    slot, r0, c0 = locate(num_nodes, num_rows, block_r, block_c)
    if incoming:
        rank = num_nodes - 1 - slot
        node = tl.load(nodes + rank)
    else:
        rank = slot
        node = slot.to(tl.int64)
    begin = tl.load(ptr + rank)
    end = tl.load(ptr + rank + 1)
    r = tl.arange(0, block_r)[None, :]
    rc, in_rc = _tile(r0, c0, num_rows, channels, block_r, block_c)
    total = tl.zeros([block_e, block_r, block_c], dtype=number)
    for first in range(begin, end, block_e):
        place = first + tl.arange(0, block_e)
        real = place < end
        e = place if incoming else tl.load(edges + place, mask=real, other=0)
        j = tl.load(ends + e, mask=real, other=0)
        v_row = ((j * num_rows + r0) * channels)[:, None, None]
        w_row = (e * num_rows + r0)[:, None]
        v = tl.load(value + v_row + rc, mask=real[:, None, None] & in_rc, other=0.0).to(number)
        w = tl.load(weight + w_row + r, mask=real[:, None] & (r0 + r < num_rows), other=0.0).to(number)
        total += w[:, :, None] * v
    result = tl.sum(total, axis=0)[None, :, :]
    tl.store(out + (node * num_rows + r0) * channels + rc, result.to(out.dtype.element_ty), mask=in_rc)


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
        ends = Ends(sources, destinations)
        grads = differentiable_gradients(
            lambda *own: plain_pair_dot(*own, ends).to(grad.dtype), (query, key), needed, grad
        )
    else:
        query_grad = row_sum(key, grad, nodes, ptr, None, sources).to(query.dtype) if needed[0] else None
        key_grad = row_sum(query, grad, None, source_ptr, edges, destinations).to(key.dtype) if needed[1] else None
        grads = (query_grad, key_grad)
    return *grads, None, None, None, None, None, None


pair_dot.register_autograd(_pair_backward, setup_context=_save_pair)


def _like_scores(query: Tensor, key: Tensor, sources: Tensor) -> Tensor:
    return query.new_empty(sources.size(0), query.size(1), query.size(2), dtype=sum_dtype(query, key))
