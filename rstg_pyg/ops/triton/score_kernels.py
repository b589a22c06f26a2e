r"""Kernels for scores of pairs of nodes, and for their gradients.

Shape legend: N nodes, E edges, R rows (frames times heads), D channels per head; ``query``, ``key`` are ``[N, R, D]``,
``score`` is ``[E, R]``. In a kernel, e, r and c stand for the edges, rows and channels that a program holds at a time,
and ``rc`` for offsets in a tile ``[1, r, c]``.
"""

import triton
import triton.language as tl

from rstg_pyg.ops.triton.tiles import locate, tuned


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
