r"""Messages with an activation after their last layer, which therefore need a product per edge.

Shape legend: N nodes, E edges in the order of ``neighborhoods``, F frames, H hidden channels, K heads of D message
channels.
"""

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rstg_pyg.ops.block_messages import plain_block_messages
from rstg_pyg.ops.linear import linear
from rstg_pyg.ops.native.matrix import transpose
from rstg_pyg.ops.native.message_calls import MessageBlock, MessageCall, message_blocks
from rstg_pyg.ops.neighborhoods import Neighborhoods
from rstg_pyg.ops.second_gradient import differentiable_gradients, takes_plain_gradient


def product_messages(
    weight: Tensor,
    bias: Tensor | None,
    src: Tensor,
    dst: Tensor,
    alpha: Tensor,
    edge: Tensor | None,
    neighborhoods: Neighborhoods,
) -> Tensor:
    r"""Sum over the neighbours of each destination i and each head k

    .. math::
        \sum_j \alpha_{ji}^k \, \mathrm{ReLU} \left(
            \mathbf{W}^k \, \mathrm{ReLU}(\mathbf{s}_j + \mathbf{d}_i + \mathbf{e}_{ji}) + \mathbf{b}^k \right)

    with :math:`\mathbf{W}^k` the head's rows of ``weight``. The product takes blocks of edges that fit the cache,
    and the backward pass repeats it: of the size of the edges, only the weights are kept between the two, and messages
    that are small.

    ``src``, ``dst`` and ``edge`` are of one type: float32, float64 or bfloat16; the product runs in it.

    Shapes:
        - **weight:** ``[K * D, H]``. **bias:** ``[K * D]``. **src, dst:** ``[N, F, H]``. **alpha:** ``[E, F, K]``.
          **edge:** ``[E, F or 1, H]``.
        - **output:** ``[N, F, K, D]``.
    """
    weight, bias = weight.to(src.dtype), None if bias is None else bias.to(src.dtype)
    return _ProductMessages.apply(weight, bias, src, dst, alpha, edge, neighborhoods)


def plain_product_messages(
    weight: Tensor,
    bias: Tensor | None,
    src: Tensor,
    dst: Tensor,
    alpha: Tensor,
    edge: Tensor | None,
    neighborhoods: Neighborhoods,
) -> Tensor:
    """What :func:`product_messages` computes, with edge tensors in memory: its reference and its second derivative."""

    def message(h: Tensor) -> Tensor:
        return F.linear(h.relu(), weight, bias).relu().unflatten(-1, (alpha.size(-1), -1))

    return plain_block_messages(message, src, dst, alpha, edge, neighborhoods)


def _room(blocks: list[MessageBlock], like: Tensor, num_channels: int) -> Tensor:
    """Room for the rows of the largest block."""
    return like.new_empty(max((block.num_rows for block in blocks), default=0), num_channels)


def _without_autocast() -> contextlib.AbstractContextManager:
    if torch.is_autocast_enabled("cpu"):
        return torch.autocast("cpu", enabled=False)
    return contextlib.nullcontext()


KEPT_BYTES = 1 << 23
"""Messages up to this size (8 MiB) are kept for the backward pass: the last-level cache still has them, so that reading
them is cheaper than another product. Larger ones are computed a second time."""


class _ProductMessages(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        bias: Tensor | None,
        src: Tensor,
        dst: Tensor,
        alpha: Tensor,
        edge: Tensor | None,
        neighborhoods: Neighborhoods,
    ) -> Tensor:
        num_nodes, num_frames, hidden = src.shape
        heads, outputs = alpha.size(2), weight.size(0)
        out = src.new_empty(num_nodes, num_frames, heads, outputs // heads)
        ctx.neighborhoods, ctx.blocks = neighborhoods, []
        if out.numel() == 0 or alpha.numel() == 0:
            ctx.save_for_backward(weight, bias, src, dst, alpha, edge)
            return out.zero_()
        call = MessageCall(src, dst, alpha, edge, neighborhoods)
        blocks = message_blocks(neighborhoods, num_frames, max(hidden, outputs))
        room = _room(blocks, src, hidden)
        small = neighborhoods.num_edges * num_frames * outputs * src.element_size() <= KEPT_BYTES
        kept = [] if small and any(ctx.needs_input_grad) else None
        with _without_autocast():
            for block in blocks:
                rows = room[: block.num_rows]
                call.hidden_rows(block, rows)
                messages = linear(rows, weight, bias)
                call.message_sums(block, messages, out)
                if kept is not None:
                    kept.append(messages)
        ctx.blocks = blocks
        ctx.save_for_backward(weight, bias, src, dst, alpha, edge, *(kept or ()))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, bias, src, dst, alpha, edge, *kept = ctx.saved_tensors
        inputs, wanted = (weight, bias, src, dst, alpha, edge), ctx.needs_input_grad
        if takes_plain_gradient(grad):
            found = differentiable_gradients(
                lambda: plain_product_messages(*inputs, ctx.neighborhoods), inputs, wanted[:6], grad
            )
            return *found, None

        call = MessageCall(src, dst, alpha, edge, ctx.neighborhoods)
        gradients = _Gradients(call, weight, bias, wanted)
        rooms = _room(ctx.blocks, src, src.size(2)), _room(ctx.blocks, src, weight.size(0))
        grad = grad.contiguous()
        with _without_autocast():
            for block, messages in zip(ctx.blocks, kept or [None] * len(ctx.blocks), strict=True):
                gradients.add(block, messages, grad, *(room[: block.num_rows] for room in rooms))
        return *gradients.result(), None


class _Gradients:
    """The gradients of all inputs, added up block by block."""

    def __init__(self, call: MessageCall, weight: Tensor, bias: Tensor | None, wanted: tuple[bool, ...]) -> None:
        self.call, self.layer, self.weight_t = call, (weight, bias), weight.t()
        self.weight = torch.zeros_like(weight, dtype=call.sum_dtype) if wanted[0] else None
        self.bias = torch.zeros_like(bias, dtype=call.sum_dtype) if wanted[1] else None
        self.wants_rows = any(wanted[2:4]) or wanted[5]
        self.src = torch.zeros(call.src.shape, dtype=call.sum_dtype)
        # Blocks write it at all destinations, but a graph without edges has none.
        self.dst = torch.zeros(call.dst.shape, dtype=call.dst.dtype)
        self.alpha = torch.zeros_like(call.alpha) if wanted[4] else None
        self.edge = torch.zeros_like(call.edge, dtype=call.sum_dtype) if wanted[5] else None

    def add(
        self, block: MessageBlock, messages: Tensor | None, grad: Tensor, rows: Tensor, grad_messages: Tensor
    ) -> None:
        """Add a block's part, from its messages if they were kept; ``rows``, ``grad_messages`` are room to work in."""
        self.call.hidden_rows(block, rows)
        messages = linear(rows, *self.layer) if messages is None else messages
        self.call.message_gradients(block, messages, grad, grad_messages, self.alpha)
        if self.bias is not None:
            self.bias += grad_messages.sum(0, dtype=self.bias.dtype)
        if self.weight is None and not self.wants_rows:
            return
        if self.weight is not None:
            self.weight += linear(transpose(grad_messages), rows.t())
        if self.wants_rows:
            grad_rows = linear(grad_messages, self.weight_t)
            self.call.hidden_gradients(block, rows, grad_rows, self.src, self.dst)
            if self.edge is not None:
                self._add_edge(block, grad_rows.view(*block.shape, -1))

    def _add_edge(self, block: MessageBlock, grad_rows: Tensor) -> None:
        edges = slice(*block.edges)
        if self.edge.size(1) == 1:
            self.edge[edges, 0] += grad_rows.sum(0, dtype=self.edge.dtype)
        else:
            self.edge[edges, slice(*block.frames)] = grad_rows.transpose(0, 1).to(self.edge.dtype)

    def result(self) -> list[Tensor | None]:
        call = self.call
        dtype = call.src.dtype
        src, dst = (self.src, self.dst) if self.wants_rows else (None, None)
        found = [self.weight, self.bias, src, dst, self.alpha, self.edge]
        dtypes = [dtype, dtype, dtype, dtype, call.alpha_dtype, dtype]
        return [None if value is None else value.to(kind) for value, kind in zip(found, dtypes, strict=True)]
