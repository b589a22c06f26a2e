"""The weighted sum of any message function, block by block.

Shape legend: N nodes, E edges, F frames, H channels before the message function and M after it, K heads; blocks as in
:mod:`rstg_pyg.ops.blocks`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rstg_pyg.ops.blocks import Block, Blocks, add_rows_, frames_of
from rstg_pyg.ops.neighborhoods import Neighborhoods
from rstg_pyg.ops.second_gradient import differentiable_gradients, takes_plain_gradient

Message = Callable[[Tensor], Tensor]
"""From the first send layer at an edge ``[*, H]`` to its message: ``[*, K, M]``, or ``[*, 1, M]`` for all heads."""


def plain_block_messages(
    message: Message,
    src: Tensor,
    dst: Tensor,
    alpha: Tensor,
    edge: Tensor | None,
    neighborhoods: Neighborhoods,
) -> Tensor:
    """What :func:`block_messages` computes, with edge tensors in memory: its reference and its second derivative."""
    h = src.index_select(0, neighborhoods.src) + dst.index_select(0, neighborhoods.dst)
    weighted = message(h if edge is None else h + edge) * alpha.unsqueeze(-1)
    return weighted.new_zeros(src.size(0), *weighted.shape[1:]).index_add_(0, neighborhoods.dst, weighted)


def block_messages(
    message: Message,
    parameters: Sequence[Tensor],
    src: Tensor,
    dst: Tensor,
    alpha: Tensor,
    edge: Tensor | None,
    neighborhoods: Neighborhoods,
) -> Tensor:
    r"""Sum over the neighbours of each destination i and each head k

    .. math::
        \sum_j \alpha_{ji}^k \, f^k(\mathbf{s}_j + \mathbf{d}_i + \mathbf{e}_{ji})

    The backward pass evaluates ``message`` a second time, one block of edges after the other, and differentiates it by
    autograd, so nothing of the size of the edges is kept between the two passes but the weights.

    Args:
        message: The function f.
        parameters: The tensors other than its argument that ``message`` depends on and that receive gradients.

    Shapes:
        - **src, dst:** ``[N, F, H]``. **alpha:** ``[E, F, K]`` and **edge:** ``[E, F or 1, H]``, both in the order of
          ``neighborhoods``.
        - **output:** ``[N, F, K, M]``.
    """
    return _BlockMessages.apply(message, neighborhoods, src, dst, alpha, edge, *parameters)


def _inputs(
    block: Block, frames: slice, src: Tensor, dst: Tensor, alpha: Tensor, edge: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The block's rows of a source ``[n, D, f, H]``, of a destination ``[n, 1, f, H]``, weights and edge features."""
    alpha = alpha[block.edges, frames].view(*block.shape, -1, alpha.size(-1))
    if edge is not None:
        edge = (edge[block.edges] if edge.size(1) == 1 else edge[block.edges, frames]).unflatten(0, block.shape)
    return src.index_select(0, block.src).view(*block.shape, *src.shape[1:]), block.rows(dst), alpha, edge


def _block_sum(message: Message, src_j: Tensor, dst_i: Tensor, alpha: Tensor, edge: Tensor | None) -> Tensor:
    h = src_j + dst_i
    return (message(h if edge is None else h + edge) * alpha.unsqueeze(-1)).sum(1)


class _BlockMessages(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        message: Message,
        neighborhoods: Neighborhoods,
        src: Tensor,
        dst: Tensor,
        alpha: Tensor,
        edge: Tensor | None,
        *parameters: Tensor,
    ) -> Tensor:
        blocks = Blocks(neighborhoods, src.size(1), src.size(2))
        ctx.message, ctx.neighborhoods, ctx.blocks = message, neighborhoods, blocks
        device = src.device.type
        ctx.autocast = {
            "device_type": device,
            "enabled": torch.is_autocast_enabled(device),
            "dtype": torch.get_autocast_dtype(device),
        }
        ctx.save_for_backward(src, dst, alpha, edge, *parameters)
        out = None
        for frames in blocks.frames():
            src_f, dst_f = frames_of((src, dst), frames)
            for block in blocks:
                part = _block_sum(message, *_inputs(block, frames, src_f, dst_f, alpha, edge))
                if out is None:
                    out = blocks.empty_sums(part, src.size(1), *part.shape[2:])
                out[block.nodes, frames] = part
        if out is None:
            out = src.new_zeros(*src.shape[:2], alpha.size(-1), message(src[:0]).size(-1))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        src, dst, alpha, edge, *parameters = ctx.saved_tensors
        message, blocks = ctx.message, ctx.blocks
        if takes_plain_gradient(grad):
            with torch.autocast(**ctx.autocast):
                return (
                    None,
                    None,
                    *differentiable_gradients(
                        lambda: plain_block_messages(message, src, dst, alpha, edge, ctx.neighborhoods),
                        (src, dst, alpha, edge, *parameters),
                        ctx.needs_input_grad[2:],
                        grad,
                    ),
                )

        grad_src, grad_alpha = torch.zeros_like(src), torch.empty_like(alpha)
        grad_dst = blocks.empty_sums(dst, *dst.shape[1:])
        grad_edge = None if edge is None else torch.zeros_like(edge)
        grad_parameters = [torch.zeros_like(value) for value in parameters]
        for frames in blocks.frames():
            src_f, dst_f = frames_of((src, dst), frames)
            grad_src_f = torch.zeros_like(src_f)
            for block in blocks:
                inputs = [
                    None if value is None else value.detach().requires_grad_()
                    for value in _inputs(block, frames, src_f, dst_f, alpha, edge)
                ]
                with torch.enable_grad(), torch.autocast(**ctx.autocast):
                    out = _block_sum(message, *inputs)
                leaves = [value for value in (*inputs, *parameters) if value is not None]
                found = iter(
                    torch.autograd.grad(
                        out, leaves, grad[block.nodes, frames], allow_unused=True, materialize_grads=True
                    )
                )
                add_rows_(grad_src_f, block.src, next(found).flatten(0, 1))
                grad_dst[block.nodes, frames] = next(found).squeeze(1)
                grad_alpha[block.edges, frames] = next(found).flatten(0, 1)
                if edge is not None:
                    grad_edge[block.edges, frames if edge.size(1) > 1 else slice(None)] += next(found).flatten(0, 1)
                for total, part in zip(grad_parameters, found, strict=True):
                    total += part
            grad_src[:, frames] = grad_src_f
        return None, None, grad_src, grad_dst, grad_alpha, grad_edge, *grad_parameters
