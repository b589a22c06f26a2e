r"""Messages with an activation after their last layer, which therefore need a product per edge.

The product takes blocks of edges that fit the cache, and the backward pass repeats it: of the size of the edges, only
the weights are kept between the two, and messages that are small.

Shape legend: N nodes, E edges in the order of ``index``, F frames, H hidden channels, K heads of D message channels; a
block has f frames and e edges, and its rows are ``[f * e, channels]``.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rstg_pyg.ops.index import GraphIndex
from rstg_pyg.ops.linear import linear, weight_gradient
from rstg_pyg.ops.native.attend import (
    KINDS,
    address,
    check,
    check_inputs,
    gradients_like,
    library_for,
    rows_of,
    strided,
    sum_dtype,
)
from rstg_pyg.ops.operators import differentiable_gradients, operator, takes_plain_gradient, without_autocast
from rstg_pyg.ops.plain import Ends, plain_messages

BLOCK_ELEMENTS = 1 << 18
"""Elements of a block's hidden rows (1 MiB in float32): enough to hide what the calls cost, little enough to stay in a
core's second-level cache."""

KEPT_BYTES = 1 << 23
"""Messages up to this size (8 MiB) are kept for the backward pass: the last-level cache still has them, so that reading
them is cheaper than another product. Larger ones are computed a second time."""

_ARGUMENTS = struct.Struct("37q")


def product_messages(
    weight: Tensor,
    bias: Tensor | None,
    src: Tensor,
    dst: Tensor,
    alpha: Tensor,
    edge: Tensor | None,
    index: GraphIndex,
) -> Tensor:
    r"""Sum over the neighbours of each destination i and each head k

    .. math::
        \sum_j \alpha_{ji}^k \, \mathrm{ReLU} \left(
            \mathbf{W}^k \, \mathrm{ReLU}(\mathbf{s}_j + \mathbf{d}_i + \mathbf{e}_{ji}) + \mathbf{b}^k \right)

    with :math:`\mathbf{W}^k` the head's rows of ``weight``. ``src``, ``dst`` and ``edge`` are of one type: float32,
    float64 or bfloat16; the product runs in it.

    Shapes:
        - **weight:** ``[K * D, H]``. **bias:** ``[K * D]``. **src, dst:** ``[N, F, H]``. **alpha:** ``[E, F, K]``.
          **edge:** ``[E, F or 1, H]``.
        - **output:** ``[N, F, K, D]``.
    """
    weight, bias = weight.to(src.dtype), None if bias is None else bias.to(src.dtype)
    inputs = (weight, bias, src, dst, alpha, edge)
    keeps = torch.is_grad_enabled() and any(value is not None and value.requires_grad for value in inputs)
    return _messages(*inputs, index.nodes, index.ptr, index.src, index.dst, keeps)[0]


def plain_product_messages(
    weight: Tensor, bias: Tensor | None, src: Tensor, dst: Tensor, alpha: Tensor, edge: Tensor | None, edges: Ends
) -> Tensor:
    """What :func:`product_messages` computes, with edge tensors in memory."""

    def message(h: Tensor) -> Tensor:
        return F.linear(h.relu(), weight, bias).relu().unflatten(-1, (alpha.size(-1), -1))

    return plain_messages(message, src, dst, alpha, edge, edges)


class _Block(NamedTuple):
    """Ranges of destinations, in the order of ``nodes``, of their edges and of frames."""

    ranks: tuple[int, int]
    edges: tuple[int, int]
    frames: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """Frames and edges."""
        return self.frames[1] - self.frames[0], self.edges[1] - self.edges[0]

    @property
    def num_rows(self) -> int:
        frames, edges = self.shape
        return frames * edges


def _blocks(ptr: Tensor, num_edges: int, num_frames: int, num_channels: int) -> list[_Block]:
    """Blocks that cover all frames and destinations: some frames of a small graph, parts of a frame of a large one."""
    if num_edges * num_frames == 0:
        return []
    max_rows = max(1, BLOCK_ELEMENTS // max(1, num_channels))
    if num_edges <= max_rows:
        pieces = -(-num_frames * num_edges // max_rows)
        bounds = [num_frames * piece // pieces for piece in range(pieces + 1)]
        ranks, edges = (0, ptr.numel() - 1), (0, num_edges)
        return [_Block(ranks, edges, frames) for frames in pairwise(bounds) if frames[0] < frames[1]]
    parts = list(_cut_ranks(ptr.tolist(), max_rows))
    return [_Block(*part, (frame, frame + 1)) for frame in range(num_frames) for part in parts]


def _cut_ranks(ptr: list[int], max_rows: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    first = 0
    while first < len(ptr) - 1:
        end = max(first + 1, bisect_right(ptr, ptr[first] + max_rows) - 1)
        yield (first, end), (ptr[first], ptr[end])
        first = end


class _Call:
    """The blocks of a graph, and the arguments that all of them have in common."""

    def __init__(
        self,
        weight: Tensor,
        src: Tensor,
        dst: Tensor,
        alpha: Tensor,
        edge: Tensor | None,
        nodes: Tensor,
        ptr: Tensor,
        sources: Tensor,
    ) -> None:
        check_inputs(src, dst, edge, nodes.size(0), sources)
        if alpha.shape != (sources.size(0), src.size(1), alpha.size(-1)):
            raise ValueError(
                f"expected 'alpha' of shape [{sources.size(0)}, {src.size(1)}, K], got {list(alpha.shape)}"
            )
        self.index = nodes, ptr, sources
        self.library = library_for(src.dtype)
        self.src, self.dst = strided(src), strided(dst)
        self.edge = None if edge is None else edge.contiguous()
        self.alpha = alpha.to(sum_dtype(src)).contiguous()
        self.blocks = _blocks(ptr, sources.size(0), src.size(1), max(src.size(2), weight.size(0)))

    def room(self, num_channels: int) -> Tensor:
        """Room for the rows of the largest block."""
        return self.src.new_empty(max((block.num_rows for block in self.blocks), default=0), num_channels)

    def hidden_rows(self, block: _Block, rows: Tensor) -> None:
        """Fill ``rows`` with the hidden layer, rectified."""
        check(self.library.rstg_hidden_rows(self._pack(block, rows=rows)))

    def message_sums(self, block: _Block, messages: Tensor, total: Tensor) -> None:
        """Rectify ``messages``, weigh them and write their sums to ``total [N, F, K, D]``."""
        check(self.library.rstg_message_sums(self._pack(block, messages=messages, total=total)))

    def message_gradients(
        self, block: _Block, messages: Tensor, grad: Tensor, grad_messages: Tensor, grad_alpha: Tensor | None
    ) -> None:
        """Fill ``grad_messages`` and the block's part of ``grad_alpha`` from the gradient of the sums."""
        packed = self._pack(block, messages=messages, total=grad, grad_messages=grad_messages, grad_alpha=grad_alpha)
        check(self.library.rstg_message_gradients(packed))

    def hidden_gradients(
        self, block: _Block, rows: Tensor, grad_rows: Tensor, grad_src: Tensor, grad_dst: Tensor
    ) -> None:
        """Add to ``grad_src``, which has the type of the sums, and write ``grad_dst`` at the block's destinations.

        Where there are edge features, ``grad_rows`` become their gradient.
        """
        packed = self._pack(block, rows=rows, grad_rows=grad_rows, grad_src=grad_src, grad_dst=grad_dst)
        check(self.library.rstg_hidden_gradients(packed))

    def _pack(
        self,
        block: _Block,
        rows: Tensor | None = None,
        grad_rows: Tensor | None = None,
        messages: Tensor | None = None,
        grad_messages: Tensor | None = None,
        total: Tensor | None = None,
        grad_alpha: Tensor | None = None,
        grad_src: Tensor | None = None,
        grad_dst: Tensor | None = None,
    ) -> bytes:
        """The fields of ``BlockArguments`` in ``messages.h``."""
        src, edge = self.src, self.edge
        return _ARGUMENTS.pack(
            KINDS[src.dtype],
            torch.get_num_threads(),
            *src.shape,
            self.alpha.size(2),
            0 if total is None else total.size(3),
            *(value.data_ptr() for value in self.index),
            *block.ranks,
            *block.frames,
            *rows_of(src),
            *rows_of(self.dst),
            address(edge),
            0 if edge is None else edge.size(1),
            self.alpha.data_ptr(),
            *rows_of(total),
            address(rows),
            address(grad_rows),
            address(messages),
            address(grad_messages),
            address(grad_alpha),
            *rows_of(grad_src),
            *rows_of(grad_dst),
        )


def _empty(
    weight: Tensor, bias: Tensor | None, src: Tensor, dst: Tensor, alpha: Tensor, edge: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor]:
    *_, keeps = rest
    (num_edges, num_frames, heads), outputs = alpha.shape, weight.size(0)
    rows = num_edges * num_frames
    small = keeps and rows * outputs * src.dtype.itemsize <= KEPT_BYTES
    out = src.new_empty(src.size(0), num_frames, heads, outputs // heads)
    return out, src.new_empty(rows if small else 0, outputs)


def _run(
    weight: Tensor,
    bias: Tensor | None,
    src: Tensor,
    dst: Tensor,
    alpha: Tensor,
    edge: Tensor | None,
    nodes: Tensor,
    ptr: Tensor,
    sources: Tensor,
    destinations: Tensor,
    keeps: bool,
) -> tuple[Tensor, Tensor]:
    """The sums, and the messages before their activation, block by block, where they are kept."""
    out, kept = _empty(weight, bias, src, dst, alpha, edge, keeps)
    if out.numel() == 0 or alpha.numel() == 0:
        return out.zero_(), kept
    call = _Call(weight, src, dst, alpha, edge, nodes, ptr, sources)
    room, first = call.room(src.size(2)), 0
    with without_autocast():
        for block in call.blocks:
            rows = room[: block.num_rows]
            call.hidden_rows(block, rows)
            messages = linear(rows, weight, bias)
            call.message_sums(block, messages, out)
            if kept.numel():
                kept[first : first + block.num_rows] = messages
                first += block.num_rows
    return out, kept


def _run_backward(
    grad: Tensor,
    kept: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    src: Tensor,
    dst: Tensor,
    alpha: Tensor,
    edge: Tensor | None,
    nodes: Tensor,
    ptr: Tensor,
    sources: Tensor,
    wanted: list[bool],
) -> tuple[Tensor, ...]:
    """Gradients of weight, bias, src, dst, alpha and edge; without elements those that are not wanted."""
    call = _Call(weight, src, dst, alpha, edge, nodes, ptr, sources)
    total, inputs = sum_dtype(src), (weight, bias, src, dst, alpha, edge)
    of_weight, of_bias, of_src, of_dst, of_alpha, of_edge = (
        torch.zeros(value.shape, dtype=value.dtype if number == 3 else total) if want else None
        for number, (value, want) in enumerate(zip(inputs, wanted, strict=True))
    )
    wants_rows = wanted[2] or wanted[3] or wanted[5]
    if wants_rows and of_src is None:
        of_src = torch.zeros(src.shape, dtype=total)
    if wants_rows and of_dst is None:
        of_dst = torch.zeros(dst.shape, dtype=dst.dtype)
    rooms, grad, first = (call.room(src.size(2)), call.room(weight.size(0))), grad.contiguous(), 0
    with without_autocast():
        for block in call.blocks if alpha.numel() and grad.numel() else ():
            rows, grad_messages = (room[: block.num_rows] for room in rooms)
            call.hidden_rows(block, rows)
            messages = kept[first : first + block.num_rows] if kept.numel() else linear(rows, weight, bias)
            first += block.num_rows
            call.message_gradients(block, messages, grad, grad_messages, of_alpha)
            if of_bias is not None or of_weight is not None:
                found = weight_gradient(grad_messages, rows)
                for into, value in zip((of_weight, of_bias), found, strict=True):
                    if into is not None:
                        into += value
            if wants_rows:
                grad_rows = linear(grad_messages, weight.t())
                call.hidden_gradients(block, rows, grad_rows, of_src, of_dst)
                if of_edge is not None:
                    _add_edge(block, grad_rows.view(*block.shape, grad_rows.size(1)), of_edge)
    results = (of_weight, of_bias, of_src, of_dst, of_alpha, of_edge)
    return tuple(
        value.to(given.dtype) if want else src.new_empty(0, dtype=(src if given is None else given).dtype)
        for value, given, want in zip(results, inputs, wanted, strict=True)
    )


def _add_edge(block: _Block, grad_rows: Tensor, grad_edge: Tensor) -> None:
    edges = slice(*block.edges)
    if grad_edge.size(1) == 1:
        grad_edge[edges, 0] += grad_rows.sum(0, dtype=grad_edge.dtype)
    else:
        grad_edge[edges, slice(*block.frames)] = grad_rows.transpose(0, 1).to(grad_edge.dtype)


def _fake_backward(grad: Tensor, kept: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return gradients_like(rest[:6], rest[-1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    # Else zeros would be made for the gradient of the messages that are kept.
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs[:-1], output[1])


def _backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 11
    *saved, nodes, ptr, sources, destinations, kept = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:6])
    if takes_plain_gradient(grad):
        ends = Ends(sources, destinations)
        found = differentiable_gradients(lambda *own: plain_product_messages(*own, ends), saved, wanted, grad)
    else:
        found = _messages_backward(grad, kept, *saved, nodes, ptr, sources, wanted)
        found = [value if want else None for value, want in zip(found, wanted, strict=True)]
    return *found, *(None,) * 5


def _flops(weight: Any, bias: Any, src: Any, dst: Any, alpha: Any, *rest: Any, **kwargs: Any) -> int:
    """One product per edge and frame."""
    return 2 * alpha[0] * alpha[1] * weight[0] * weight[1]


def _backward_flops(
    grad: Any, kept: Any, weight: Any, bias: Any, src: Any, dst: Any, alpha: Any, *rest: Any, **kwargs: Any
) -> int:
    """The gradients of its two factors, and the product again where it was not kept."""
    return (2 if kept[0] else 3) * _flops(weight, bias, src, dst, alpha)


_TENSORS = "Tensor weight, Tensor? bias, Tensor src, Tensor dst, Tensor alpha, Tensor? edge, Tensor nodes, Tensor ptr"
_messages_backward = operator(
    f"product_messages_backward(Tensor grad, Tensor kept, {_TENSORS}, Tensor sources, bool[] wanted) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _run_backward,
    _fake_backward,
    flops=_backward_flops,
)
_messages = operator(
    f"product_messages({_TENSORS}, Tensor sources, Tensor destinations, bool keeps) -> (Tensor, Tensor)",
    _run,
    _empty,
    save=_save,
    backward=_backward,
    flops=_flops,
)
