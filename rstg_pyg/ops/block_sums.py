"""Dot products and weighted sums of messages, walked through the cache in blocks of edges.

The backward passes make the edges anew, so nothing of the size of the edges is kept between the two passes but the
weights.

Shape legend: N nodes, E edges in the order of ``index``, F frames, H channels before the message function and M after
it, K heads of d channels; blocks as in :mod:`rstg_pyg.ops.blocks`.
"""

from typing import Any

import torch
from torch import Tensor

from rstg_pyg.ops.blocks import Block, Blocks, add_rows_, frames_of, gather_rows
from rstg_pyg.ops.index import GraphIndex
from rstg_pyg.ops.operators import differentiable_gradients, takes_plain_gradient
from rstg_pyg.ops.plain import Function, Message, plain_messages, plain_pair_dot, relu_message

PAIRS_PER_EDGE = 16
"""All pairs of nodes are multiplied, and the edges' products picked, up to this many pairs for each edge."""

MAX_PAIR_NODES = 512
"""Beyond this many nodes the products of all pairs take more memory than the nodes."""


def pair_dot(query: Tensor, key: Tensor, index: GraphIndex) -> Tensor:
    r"""Return :math:`\mathbf{q}_i^\top \mathbf{k}_j` for every edge from j to i and every head.

    A small, dense graph takes one matrix product over all pairs of nodes for each frame and head, and picks the edges
    from it; other graphs are walked in blocks of edges, and so are values that are not finite, which the gradient of a
    product would carry to nodes that no edge joins them to. Neither keeps more than the nodes for the backward pass.

    Shapes:
        - **query, key:** ``[N, F, K, d]``. **output:** ``[E, F, K]`` in the order of ``index``.
    """
    num_nodes, frames, heads = query.shape[:3]
    few_pairs = num_nodes <= MAX_PAIR_NODES and num_nodes**2 <= PAIRS_PER_EDGE * index.num_edges
    if not few_pairs or not (query.detach().sum() + key.detach().sum()).isfinite():
        return _PairDot.apply(query, key, index)
    products = torch.bmm(query.flatten(1, 2).transpose(0, 1), key.flatten(1, 2).permute(1, 2, 0))
    return products[:, index.dst, index.src].t().contiguous().view(-1, frames, heads)


class _PairDot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, index: GraphIndex) -> Tensor:
        ctx.save_for_backward(query, key)
        _, num_frames, heads, channels = query.shape
        blocks = Blocks(index, num_frames, heads * channels)
        ctx.index, ctx.blocks = index, blocks
        score = query.new_empty(index.num_edges, num_frames, heads)
        for frames in blocks.frames():
            query_f, key_f = frames_of((query.flatten(2), key.flatten(2)), frames)
            buffer = blocks.buffer(query, frames, heads * channels)
            for block in blocks:
                product = gather_rows(key_f, block, buffer).mul_(block.rows(query_f))
                score[block.edges, frames] = product.unflatten(-1, (heads, channels)).sum(-1).flatten(0, 1)
        return score

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key = ctx.saved_tensors
        if takes_plain_gradient(grad):
            return *differentiable_gradients(
                lambda *own: plain_pair_dot(*own, ctx.index), (query, key), ctx.needs_input_grad[:2], grad
            ), None

        blocks = ctx.blocks
        query_2, key_2 = query.flatten(2), key.flatten(2)
        grad_query, grad_key = blocks.empty_sums(query_2, *query_2.shape[1:]), torch.zeros_like(key_2)
        for frames in blocks.frames():
            query_f, key_f = frames_of((query_2, key_2), frames)
            grad_key_f = torch.zeros_like(key_f)
            buffer = blocks.buffer(query, frames, query_2.size(-1))
            for block in blocks:
                weight = grad[block.edges, frames].view(*block.shape, -1, grad.size(-1), 1)
                product = gather_rows(key_f, block, buffer)
                by_head = product.unflatten(-1, query.shape[2:])
                by_head.mul_(weight)
                block.write_sum(product, grad_query[:, frames])
                torch.mul(block.rows(query_f).unflatten(-1, query.shape[2:]), weight, out=by_head)
                add_rows_(grad_key_f, block.src, product.flatten(0, 1))
            grad_key[:, frames] = grad_key_f
        return grad_query.view_as(query), grad_key.view_as(key), None


def weighted_relu(src: Tensor, dst: Tensor, alpha: Tensor, edge: Tensor | None, index: GraphIndex) -> Tensor:
    r"""Sum over the neighbours of each destination i and each head k

    .. math::
        \sum_j \alpha_{ji}^k \, \mathrm{ReLU}(\mathbf{s}_j + \mathbf{d}_i + \mathbf{e}_{ji})

    The edges are walked in blocks of cache size, forward and backward; the backward pass makes them anew, so nothing
    of the size of the edges is kept between the two but the weights.

    Shapes:
        - **src, dst:** ``[N, F, H]``. **alpha:** ``[E, F, K]`` and **edge:** ``[E, F or 1, H]``, both in the order of
          ``index``.
        - **output:** ``[N, F, K, H]``.
    """
    return _WeightedReLU.apply(src, dst, alpha, edge, index)


def _hidden(src: Tensor, dst: Tensor, edge: Tensor | None, block: Block, buffer: Tensor) -> Tensor:
    h = gather_rows(src, block, buffer).add_(block.rows(dst))
    return h if edge is None else h.add_(edge[block.edges].view(*block.shape, -1, h.size(-1)))


def _weights(alpha: Tensor, block: Block, head: int) -> Tensor:
    return alpha[block.edges, :, head].view(*block.shape, -1, 1)


class _WeightedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, src: Tensor, dst: Tensor, alpha: Tensor, edge: Tensor | None, index: GraphIndex) -> Tensor:
        ctx.save_for_backward(src, dst, alpha, edge)
        heads = alpha.size(-1)
        blocks = Blocks(index, src.size(1), src.size(2))
        ctx.index, ctx.blocks = index, blocks
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
                lambda *own: plain_messages(relu_message, *own, ctx.index), inputs, ctx.needs_input_grad[:4], grad
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


def block_messages(
    message: Message,
    src: Tensor,
    dst: Tensor,
    alpha: Tensor,
    edge: Tensor | None,
    index: GraphIndex,
) -> Tensor:
    r"""Sum over the neighbours of each destination i and each head k

    .. math::
        \sum_j \alpha_{ji}^k \, f^k(\mathbf{s}_j + \mathbf{d}_i + \mathbf{e}_{ji})

    The backward pass evaluates ``message`` a second time, one block of edges after the other, and differentiates it by
    autograd, so nothing of the size of the edges is kept between the two passes but the weights.

    Shapes:
        - **src, dst:** ``[N, F, H]``. **alpha:** ``[E, F, K]`` and **edge:** ``[E, F or 1, H]``, both in the order of
          ``index``.
        - **output:** ``[N, F, K, M]``.
    """
    return _BlockMessages.apply(message.function, index, src, dst, alpha, edge, *message.tensors)


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
        function: Function,
        index: GraphIndex,
        src: Tensor,
        dst: Tensor,
        alpha: Tensor,
        edge: Tensor | None,
        *tensors: Tensor | None,
    ) -> Tensor:
        blocks, message = Blocks(index, src.size(1), src.size(2)), Message(function, tensors)
        ctx.function, ctx.index, ctx.blocks = function, index, blocks
        device = src.device.type
        ctx.autocast = {
            "device_type": device,
            "enabled": torch.is_autocast_enabled(device),
            "dtype": torch.get_autocast_dtype(device),
        }
        ctx.save_for_backward(src, dst, alpha, edge, *tensors)
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
        src, dst, alpha, edge, *tensors = ctx.saved_tensors
        blocks, needed = ctx.blocks, ctx.needs_input_grad[6:]
        if takes_plain_gradient(grad):

            def run(src: Tensor, dst: Tensor, alpha: Tensor, edge: Tensor | None, *own: Tensor | None) -> Tensor:
                return plain_messages(Message(ctx.function, own), src, dst, alpha, edge, ctx.index)

            inputs = (src, dst, alpha, edge, *tensors)
            with torch.autocast(**ctx.autocast):
                return None, None, *differentiable_gradients(run, inputs, ctx.needs_input_grad[2:], grad)

        # Leaves of their own, so that a tensor that stands there twice gets the gradient of each place once.
        tensors = [
            value.detach().requires_grad_() if need else value for value, need in zip(tensors, needed, strict=True)
        ]
        parameters = [value for value, need in zip(tensors, needed, strict=True) if need]
        message = Message(ctx.function, tensors)
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
        found = iter(grad_parameters)
        grad_tensors = (next(found) if need else None for need in needed)
        return None, None, grad_src, grad_dst, grad_alpha, grad_edge, *grad_tensors
