"""Dot products of the two ends of every edge.

Shape legend: N nodes, E edges, F frames, K heads of d channels.
"""

from typing import Any

import torch
from torch import Tensor

from rstg_pyg.ops.blocks import Blocks, add_rows_, frames_of, gather_rows
from rstg_pyg.ops.neighborhoods import Neighborhoods
from rstg_pyg.ops.second_gradient import differentiable_gradients, takes_plain_gradient

PAIRS_PER_EDGE = 16
"""All pairs of nodes are multiplied, and the edges' products picked, up to this many pairs for each edge."""

MAX_PAIR_NODES = 512
"""Beyond this many nodes the products of all pairs take more memory than the nodes."""


def plain_pair_dot(query: Tensor, key: Tensor, neighborhoods: Neighborhoods) -> Tensor:
    """What :func:`pair_dot` computes, with edge tensors in memory: its reference and its second derivative."""
    return (query.index_select(0, neighborhoods.dst) * key.index_select(0, neighborhoods.src)).sum(-1)


def pair_dot(query: Tensor, key: Tensor, neighborhoods: Neighborhoods) -> Tensor:
    r"""Return :math:`\mathbf{q}_i^\top \mathbf{k}_j` for every edge from j to i and every head.

    A small, dense graph takes one matrix product over all pairs of nodes for each frame and head, and picks the edges
    from it; other graphs are walked in blocks of edges, and so are values that are not finite, which the gradient of a
    product would carry to nodes that no edge joins them to. Neither keeps more than the nodes for the backward pass.

    Shapes:
        - **query, key:** ``[N, F, K, d]``. **output:** ``[E, F, K]`` in the order of ``neighborhoods``.
    """
    num_nodes, frames, heads = query.shape[:3]
    few_pairs = num_nodes <= MAX_PAIR_NODES and num_nodes**2 <= PAIRS_PER_EDGE * neighborhoods.num_edges
    if not few_pairs or not (query.detach().sum() + key.detach().sum()).isfinite():
        return _PairDot.apply(query, key, neighborhoods)
    products = torch.bmm(query.flatten(1, 2).transpose(0, 1), key.flatten(1, 2).permute(1, 2, 0))
    return products[:, neighborhoods.dst, neighborhoods.src].t().contiguous().view(-1, frames, heads)


class _PairDot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, neighborhoods: Neighborhoods) -> Tensor:
        ctx.save_for_backward(query, key)
        _, num_frames, heads, channels = query.shape
        blocks = Blocks(neighborhoods, num_frames, heads * channels)
        ctx.neighborhoods, ctx.blocks = neighborhoods, blocks
        score = query.new_empty(neighborhoods.num_edges, num_frames, heads)
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
            inputs = (query, key)
            return *differentiable_gradients(
                lambda: plain_pair_dot(*inputs, ctx.neighborhoods), inputs, ctx.needs_input_grad[:2], grad
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
