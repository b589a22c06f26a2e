r"""Weighted messages as an operator of PyTorch, and its kernels. The hidden layer is computed on the way:

.. math::
    \mathbf{g}_{ik} = \sum_{j \in \mathcal{N}(i)} \alpha_{jik} \, \mathrm{ReLU}(\mathbf{s}_j + \mathbf{d}_i)

Shape legend: N nodes, E edges, F frames, K heads, H hidden channels; ``src``, ``dst`` are ``[N, F, H]``, ``alpha`` is
``[E, F, K]``, sums are ``[N, F, K, H]``. In a kernel, e, r and c stand for the edges, rows and channels that a program
holds at a time; a row is a frame of one head. All tiles of channels are ``[e, r, c]``, also those that are the same for
every head or edge: of one layout, they meet in registers and need no shared memory.

The index tensors are those of :class:`~rstg_pyg.ops.GraphIndex`: ``sources`` and ``destinations`` its sorted edges,
``edges`` and ``source_ptr`` its :attr:`by_source`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rstg_pyg.ops.operators import differentiable_gradients, takes_plain_gradient
from rstg_pyg.ops.plain import Ends, plain_messages, relu_message
from rstg_pyg.ops.triton.tiles import Tiling, accumulator, device_of, locate, sum_dtype, tiling, tuned


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
        ends = Ends(sources, destinations)
        grads = differentiable_gradients(
            lambda *own: plain_messages(relu_message, *own, None, ends).to(grad.dtype),
            (src, dst, alpha),
            needed,
            grad,
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
