r"""Kernels for the weighted sum of a node's messages, whose hidden layer is computed on the way:

.. math::
    \mathbf{g}_{ik} = \sum_{j \in \mathcal{N}(i)} \alpha_{jik} \, \mathrm{ReLU}(\mathbf{s}_j + \mathbf{d}_i)

Shape legend: N nodes, E edges, F frames, K heads, H hidden channels; ``src``, ``dst`` are ``[N, F, H]``, ``alpha`` is
``[E, F, K]``, sums are ``[N, F, K, H]``. In a kernel, e, r and c stand for the edges, rows and channels that a program
holds at a time; a row is a frame of one head. All tiles of channels are ``[e, r, c]``, also those that are the same for
every head or edge: of one layout, they meet in registers and need no shared memory.
"""

import triton
import triton.language as tl

from rstg_pyg.ops.triton.tiles import locate, tuned


@triton.jit
def _tiles(
    f0,
    c0,
    num_frames,
    hidden: tl.constexpr,
    heads: tl.constexpr,
    block_f: tl.constexpr,
    block_k: tl.constexpr,
    block_c: tl.constexpr,
):
    """Offsets from frame f0 in ``src`` or ``dst`` and in the sums, ``[1, r, c]``, and which of them exist; the same for
    the weights, ``[1, r]``."""
    row = tl.arange(0, block_f * block_k)
    f = row // block_k
    k = row % block_k
    in_r = (f0 + f < num_frames) & (k < heads)
    weight = f * heads + k
    c = c0 + tl.arange(0, block_c)[None, None, :]
    in_rc = in_r[None, :, None] & (c < hidden)
    node = f[None, :, None] * hidden + c
    return node, weight[None, :, None] * hidden + c, in_rc, weight[None, :], in_r[None, :]


@triton.jit
def _store_over_heads(
    out,
    total,
    f0,
    c0,
    num_frames,
    hidden: tl.constexpr,
    block_f: tl.constexpr,
    block_k: tl.constexpr,
    block_c: tl.constexpr,
):
    """Store ``total [e, r, c]``, summed over the edges and the heads, at frame f0 of a node."""
    summed = tl.sum(tl.reshape(tl.sum(total, axis=0), [block_f, block_k, block_c]), axis=1)
    f = tl.arange(0, block_f)[:, None]
    c = c0 + tl.arange(0, block_c)[None, :]
    tl.store(out + f * hidden + c, summed.to(out.dtype.element_ty), mask=(f0 + f < num_frames) & (c < hidden))


@tuned("hidden", "heads", "block_f")
@triton.jit(do_not_specialize=["num_nodes", "num_frames"])
def sum_kernel(
    src,
    dst,
    alpha,
    out,
    nodes,
    ptr,
    sources,
    num_nodes,
    num_frames,
    hidden: tl.constexpr,
    heads: tl.constexpr,
    block_f: tl.constexpr,
    block_k: tl.constexpr,
    block_c: tl.constexpr,
    number: tl.constexpr,
    block_e: tl.constexpr,
):
    """``out = g``, a program per destination; those of highest degree start first."""
    slot, f0, c0 = locate(num_nodes, num_frames, block_f, block_c)
    rank = num_nodes - 1 - slot
    begin = tl.load(ptr + rank)
    end = tl.load(ptr + rank + 1)
    rc, kc, in_rc, r, in_r = _tiles(f0, c0, num_frames, hidden, heads, block_f, block_k, block_c)
    frame = tl.load(nodes + rank) * num_frames + f0
    d = tl.load(dst + frame * hidden + rc, mask=in_rc, other=0.0).to(number)
    total = tl.zeros([block_e, block_f * block_k, block_c], dtype=number)
    for first in range(begin, end, block_e):
        e = first + tl.arange(0, block_e)
        real = e < end
        j = tl.load(sources + e, mask=real, other=0)
        in_erc = real[:, None, None] & in_rc
        s = tl.load(src + ((j * num_frames + f0) * hidden)[:, None, None] + rc, mask=in_erc, other=0.0).to(number)
        a_row = ((e * num_frames + f0) * heads)[:, None]
        a = tl.load(alpha + a_row + r, mask=real[:, None] & in_r, other=0.0).to(number)
        z = s + d
        total += a[:, :, None] * tl.where((z <= 0.0) | ~in_erc, 0.0, z)
    g = tl.sum(total, axis=0)[None, :, :]
    tl.store(out + frame * heads * hidden + kc, g.to(out.dtype.element_ty), mask=in_rc)


@tuned("hidden", "heads", "block_f")
@triton.jit(do_not_specialize=["num_nodes", "num_frames", "num_edges"])
def destination_grad_kernel(
    grad,
    src,
    dst,
    alpha,
    dst_grad,
    alpha_grad,
    nodes,
    ptr,
    sources,
    num_nodes,
    num_frames,
    num_edges,
    hidden: tl.constexpr,
    heads: tl.constexpr,
    block_f: tl.constexpr,
    block_k: tl.constexpr,
    block_c: tl.constexpr,
    number: tl.constexpr,
    block_e: tl.constexpr,
):
    """Gradients of ``dst`` and ``alpha`` from that of g, a program per destination.

    ``alpha_grad`` is ``[blocks of channels, E, F, K]``: what each block of channels adds.
    """
    slot, f0, c0 = locate(num_nodes, num_frames, block_f, block_c)
    rank = num_nodes - 1 - slot
    begin = tl.load(ptr + rank)
    end = tl.load(ptr + rank + 1)
    rc, kc, in_rc, r, in_r = _tiles(f0, c0, num_frames, hidden, heads, block_f, block_k, block_c)
    frame = tl.load(nodes + rank) * num_frames + f0
    d = tl.load(dst + frame * hidden + rc, mask=in_rc, other=0.0).to(number)
    g = tl.load(grad + frame * heads * hidden + kc, mask=in_rc, other=0.0).to(number)
    partial = alpha_grad + (c0 // block_c).to(tl.int64) * num_edges * num_frames * heads
    total = tl.zeros([block_e, block_f * block_k, block_c], dtype=number)
    for first in range(begin, end, block_e):
        e = first + tl.arange(0, block_e)
        real = e < end
        j = tl.load(sources + e, mask=real, other=0)
        in_erc = real[:, None, None] & in_rc
        in_er = real[:, None] & in_r
        s = tl.load(src + ((j * num_frames + f0) * hidden)[:, None, None] + rc, mask=in_erc, other=0.0).to(number)
        a_row = ((e * num_frames + f0) * heads)[:, None]
        a = tl.load(alpha + a_row + r, mask=in_er, other=0.0).to(number)
        z = s + d
        off = (z <= 0.0) | ~in_erc
        tl.store(partial + a_row + r, tl.sum(tl.where(off, 0.0, z) * g, axis=2), mask=in_er)
        total += tl.where(off, 0.0, a[:, :, None] * g)
    _store_over_heads(dst_grad + frame * hidden, total, f0, c0, num_frames, hidden, block_f, block_k, block_c)


@tuned("hidden", "heads", "block_f")
@triton.jit(do_not_specialize=["num_nodes", "num_frames"])
def source_grad_kernel(
    grad,
    src,
    dst,
    alpha,
    src_grad,
    edges,
    ptr,
    destinations,
    num_nodes,
    num_frames,
    hidden: tl.constexpr,
    heads: tl.constexpr,
    block_f: tl.constexpr,
    block_k: tl.constexpr,
    block_c: tl.constexpr,
    number: tl.constexpr,
    block_e: tl.constexpr,
):
    """Gradient of ``src`` from that of g, a program per source, over its outgoing ``edges``."""
    node, f0, c0 = locate(num_nodes, num_frames, block_f, block_c)
    begin = tl.load(ptr + node)
    end = tl.load(ptr + node + 1)
    rc, kc, in_rc, r, in_r = _tiles(f0, c0, num_frames, hidden, heads, block_f, block_k, block_c)
    frame = node.to(tl.int64) * num_frames + f0
    s = tl.load(src + frame * hidden + rc, mask=in_rc, other=0.0).to(number)
    total = tl.zeros([block_e, block_f * block_k, block_c], dtype=number)
    for first in range(begin, end, block_e):
        place = first + tl.arange(0, block_e)
        real = place < end
        e = tl.load(edges + place, mask=real, other=0)
        i = tl.load(destinations + e, mask=real, other=0)
        in_erc = real[:, None, None] & in_rc
        d_row = ((i * num_frames + f0) * hidden)[:, None, None]
        d = tl.load(dst + d_row + rc, mask=in_erc, other=0.0).to(number)
        g = tl.load(grad + d_row * heads + kc, mask=in_erc, other=0.0).to(number)
        a_row = ((e * num_frames + f0) * heads)[:, None]
        a = tl.load(alpha + a_row + r, mask=real[:, None] & in_r, other=0.0).to(number)
        total += tl.where((s + d <= 0.0) | ~in_erc, 0.0, a[:, :, None] * g)
    _store_over_heads(src_grad + frame * hidden, total, f0, c0, num_frames, hidden, block_f, block_k, block_c)
