"""The weighted sum of rectified edge sums, walked through the cache once.

Shape legend: N nodes, E edges, F frames, H channels, K heads; blocks as in :mod:`rstg_pyg.ops.blocks`.
"""

from typing import Any

import torch
from torch import Tensor

from rstg_pyg.ops.blocks import Block, Blocks, add_rows_, frames_of, gather_rows
from rstg_pyg.ops.neighborhoods import Neighborhoods
from rstg_pyg.ops.second_gradient import differentiable_gradients, takes_plain_gradient


def plain_weighted_relu(
    src: Tensor, dst: Tensor, alpha: Tensor, edge: Tensor | None, neighborhoods: Neighborhoods
) -> Tensor:
    """What :func:`weighted_relu` computes, with edge tensors in memory: its reference and its second derivative."""
    h = src.index_select(0, neighborhoods.src) + dst.index_select(0, neighborhoods.dst)
    h = (h if edge is None else h + edge).relu()
    weighted = h.unsqueeze(-2) * alpha.unsqueeze(-1)
    return weighted.new_zeros(src.size(0), *weighted.shape[1:]).index_add_(0, neighborhoods.dst, weighted)


def weighted_relu(src: Tensor, dst: Tensor, alpha: Tensor, edge: Tensor | None, neighborhoods: Neighborhoods) -> Tensor:
    r"""Sum over the neighbours of each destination i and each head k

    .. math::
        \sum_j \alpha_{ji}^k \, \mathrm{ReLU}(\mathbf{s}_j + \mathbf{d}_i + \mathbf{e}_{ji})

    The edges are walked in blocks of cache size, forward and backward; the backward pass makes them anew, so nothing
    of the size of the edges is kept between the two but the weights.

    Shapes:
        - **src, dst:** ``[N, F, H]``. **alpha:** ``[E, F, K]`` and **edge:** ``[E, F or 1, H]``, both in the order of
          ``neighborhoods``.
        - **output:** ``[N, F, K, H]``.
    """
    return _WeightedReLU.apply(src, dst, alpha, edge, neighborhoods)


def _hidden(src: Tensor, dst: Tensor, edge: Tensor | None, block: Block, buffer: Tensor) -> Tensor:
    h = gather_rows(src, block, buffer).add_(block.rows(dst))
    return h if edge is None else h.add_(edge[block.edges].view(*block.shape, -1, h.size(-1)))


def _weights(alpha: Tensor, block: Block, head: int) -> Tensor:
    return alpha[block.edges, :, head].view(*block.shape, -1, 1)


class _WeightedReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, src: Tensor, dst: Tensor, alpha: Tensor, edge: Tensor | None, neighborhoods: Neighborhoods
    ) -> Tensor:
        ctx.save_for_backward(src, dst, alpha, edge)
        heads = alpha.size(-1)
        blocks = Blocks(neighborhoods, src.size(1), src.size(2))
        ctx.neighborhoods, ctx.blocks = neighborhoods, blocks
        out = [blocks.empty_sums(src, *src.shape[1:]) for _ in range(heads)]
        for frames in blocks.frames():
            src_f, dst_f = frames_of((src, dst), frames)
            alpha_f, edge_f = alpha[:, frames], _edge_frames(edge, frames)
            buffer = blocks.buffer(src, frames, src.size(2))
            scratch = buffer if heads == 1 else torch.empty_like(buffer)
            for block in blocks:
                h = _hidden(src_f, dst_f, edge_f, block, buffer).relu_()
                weighted = scratch[: block.src.numel()].view_as(h)
                for head in range(heads):
                    torch.mul(h, _weights(alpha_f, block, head), out=weighted)
                    block.write_sum(weighted, out[head][:, frames])
        return torch.stack(out, dim=2) if heads > 1 else out[0].unsqueeze(2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        src, dst, alpha, edge = ctx.saved_tensors
        if takes_plain_gradient(grad):
            inputs = (src, dst, alpha, edge)
            return *differentiable_gradients(
                lambda: plain_weighted_relu(*inputs, ctx.neighborhoods), inputs, ctx.needs_input_grad[:4], grad
            ), None

        heads, blocks = alpha.size(-1), ctx.blocks
        grad_src = torch.zeros_like(src)
        grad_alpha = torch.empty_like(alpha) if ctx.needs_input_grad[2] else None
        grad_dst = blocks.empty_sums(dst, *dst.shape[1:])
        grad_edge = None if edge is None else torch.zeros_like(edge)
        for frames in blocks.frames():
            src_f, dst_f, *grad_f = frames_of((src, dst, *grad.unbind(2)), frames)
            alpha_f, edge_f = alpha[:, frames], _edge_frames(edge, frames)
            whole = src_f.size(1) == src.size(1)
            grad_src_f = grad_src if whole else torch.zeros_like(src_f)
            buffers = [blocks.buffer(src, frames, src.size(2)) for _ in range(2 if heads == 1 else 4)]
            for block in blocks:
                h = _hidden(src_f, dst_f, edge_f, block, buffers[0])
                views = [buffer[: block.src.numel()].view_as(h) for buffer in buffers]
                grad_h, scratch, product = views[1], views[0 if heads == 1 else 2], views[-1]
                for head in range(heads):
                    rows = block.rows(grad_f[head]).expand_as(h)
                    part = grad_h if head == 0 else product
                    torch.ops.aten.threshold_backward.grad_input(rows, h, 0, grad_input=part)
                    if grad_alpha is not None:
                        torch.mul(h, part, out=scratch)
                        grad_alpha[block.edges, frames, head] = scratch.sum(-1).flatten(0, 1)
                    part.mul_(_weights(alpha_f, block, head))
                    if head > 0:
                        grad_h.add_(part)
                block.write_sum(grad_h, grad_dst[:, frames])
                add_rows_(grad_src_f, block.src, grad_h.flatten(0, 1))
                if edge is not None:
                    per_edge = grad_h.flatten(0, 1)
                    if edge.size(1) == 1:
                        grad_edge[block.edges] += per_edge.sum(1, keepdim=True)
                    else:
                        grad_edge[block.edges, frames] = per_edge
            if not whole:
                grad_src[:, frames] = grad_src_f
        return grad_src, grad_dst, grad_alpha, grad_edge, None


def _edge_frames(edge: Tensor | None, frames: slice) -> Tensor | None:
    return edge if edge is None or edge.size(1) == 1 else edge[:, frames]
