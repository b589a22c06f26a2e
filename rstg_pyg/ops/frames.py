"""Graphs that change: the frames in which nodes are there, and the edges of every frame, as one graph.

Shape legend: N nodes, E edges as given, ``*`` inner dimensions between nodes and time, T frames; M rows, one for every
frame in which a node is there, by time, then by node, then by inner dimensions; S sequences with at least one row.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.typing import Adj, OptTensor

from rstg_pyg.arguments import describe, is_integer, num_dims
from rstg_pyg.ops.index import GraphIndex, check_ends, once
from rstg_pyg.watched import assert_later


class Edges(NamedTuple):
    """Edges between rows: which of the given edges each is, ``number [E']``, in which place of the inner dimensions and
    time, ``place [E']``, and its ends, ``source, destination [E']``."""

    number: Tensor
    place: Tensor
    source: Tensor
    destination: Tensor


class Steps(NamedTuple):
    """Rows in the order of a recurrent network's packed sequences: ``order [M]`` puts them into it, ``inverse [M]``
    back; ``sequences [S]``, longest first, says which each is; ``sizes [L]``, on the CPU, how many have a frame number
    0, 1, ..."""

    order: Tensor
    inverse: Tensor
    sequences: Tensor
    sizes: Tensor


class FrameIndex:
    r"""Which nodes are there in which frames, and which edges, in the form in which every stage runs on them once.

    A row is a node in a frame in which it is there. All frames are one graph of M rows whose edges lead from row to row
    of the same frame, so a space stage is one propagation whatever T is, over edges that exist alone. A node's rows are
    one sequence, so a time stage is one recurrent call, over frames that exist alone: what a node remembers stays what
    it was while it is absent. The rows of a frame lie together, as their neighbours and the steps of a network do.

    Args:
        shape: Of what has a node, inner and a time dimension, ``(N, *, T)``.
        graph: The given edges; None where no space stage runs.
        edge_time: ``[E]``, the frame of every edge, sorted or not; None where each edge serves every frame.
        mask: ``[N, *, T]`` bool, True where a node is there; None where all are.

    Attributes:
        rows: ``[M]``, where the rows lie in ``[N, *, T]``; None where all are there.

    Raises:
        ValueError: If ``edge_time`` or ``mask`` is of another type or shape.
        IndexError: If an ``edge_time`` is not within 0 to T - 1.

    Example:
        >>> import torch
        >>> from rstg_pyg.ops import FrameIndex, GraphIndex
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> frames = FrameIndex((2, 2), GraphIndex(torch.tensor([[0], [1]]), 2), None, mask)
        >>> frames.rows.tolist(), frames.index.adjacency.tolist()
        ([0, 2, 1], [[0], [1]])
    """

    def __init__(
        self,
        shape: torch.Size,
        graph: GraphIndex | None = None,
        edge_time: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        self.shape = torch.Size(shape)
        self.graph = graph
        self.edge_time = None if edge_time is None else check_edge_time(edge_time, graph, self.shape[-1])
        self.mask = None if mask is None else check_mask(mask, self.shape, None if graph is None else graph.source)
        self.rows = None
        if self.mask is not None and self.mask.all():
            self.mask = None
        if self.mask is not None:
            time, sequence = self.mask.flatten(0, -2).t().nonzero().unbind(1)
            self.rows = sequence * self.shape[-1] + time

    @property
    def num_rows(self) -> int:
        return self.shape.numel() if self.rows is None else self.rows.size(0)

    @property
    def is_static(self) -> bool:
        """Whether all nodes are there and each edge serves every frame: then nothing needs rows."""
        return self.rows is None and self.edge_time is None

    def take(self, x: Tensor) -> Tensor:
        """The rows ``[M, C]`` of ``x [N, *, T, C]``; what stands in other places does not matter."""
        if self.rows is None:
            return x.movedim(-2, 0).flatten(0, -2)
        return x.flatten(0, -2).index_select(0, self.rows)

    def put(self, rows: Tensor) -> Tensor:
        """``[N, *, T, C]`` from rows ``[M, C]``, and 0 where nobody is."""
        if self.rows is None:
            return rows.view(self.shape[-1], *self.shape[:-1], rows.size(-1)).movedim(0, -2)
        everywhere = rows.new_zeros(self.shape.numel(), rows.size(-1))
        return everywhere.index_copy(0, self.rows, rows).view(*self.shape, rows.size(-1))

    def take_pe(self, pe: OptTensor) -> OptTensor:
        """The rows of positional encodings ``[N, P]``, ``[N, T, P]`` or ``[N, *, T, P]``."""
        if pe is None:
            return None
        if pe.dim() == 2:
            pe = pe.view(pe.size(0), *[1] * len(self.shape[1:]), pe.size(1))
        return self.take(with_inner_dims(pe, len(self.shape) + 1).expand(*self.shape, -1))

    def take_edge_attr(self, edge_attr: OptTensor) -> OptTensor:
        """The features of :attr:`edges` from those of the given ones: ``[E, D]``, and of edges that serve every frame
        also ``[E, T, D]`` or ``[E, *, T, D]``."""
        if edge_attr is None:
            return None
        if edge_attr.dim() < 3:
            return edge_attr.index_select(0, self.edges.number)
        inner = self.shape[1:]
        edge_attr = with_inner_dims(edge_attr, len(self.shape) + 1).expand(-1, *inner, -1)
        return edge_attr[(self.edges.number, *torch.unravel_index(self.edges.place, inner))]

    def put_edges(self, value: Tensor) -> Tensor:
        """``[E, *, T, K]`` from a value of every one of :attr:`edges`, ``[E', K]``, and 0 where there is none; ``[E, *,
        K]`` where an edge has one frame."""
        inner, place = self.shape[1:], self.edges.place
        if self.edge_time is not None:
            inner, place = inner[:-1], place // inner[-1]
        everywhere = value.new_zeros(self.graph.num_edges * inner.numel(), value.size(-1))
        where = self.edges.number * inner.numel() + place
        return everywhere.index_copy(0, where, value).view(self.graph.num_edges, *inner, value.size(-1))

    def put_attention(self, attention: tuple[Adj, Tensor]) -> Any:
        """The given edges with their weights, from what the convolution gives for :attr:`edges`."""
        return self.graph.with_attention(self.put_edges(attention[1]))

    @once
    def edges(self) -> Edges:
        """The edges of every frame."""
        return self._edges(0)

    @once
    def index(self) -> GraphIndex:
        """:attr:`edges`, for all stages."""
        return self._index(self.edges.source, self.edges.destination)

    @once
    def spacetime_index(self) -> GraphIndex:
        """:attr:`edges`, and from the frame before the same edges, and one from every node to itself."""
        within, across = self.edges, self._edges(1)
        node, place = (self.there() & self.there(1)).flatten(1).nonzero().unbind(1)
        source = torch.cat([within.source, across.source, self._number(node, place - 1)])
        return self._index(source, torch.cat([within.destination, across.destination, self._number(node, place)]))

    def _index(self, source: Tensor, destination: Tensor) -> GraphIndex:
        forward = self.graph.flow == "source_to_target"
        ends = (source, destination) if forward else (destination, source)
        return GraphIndex(torch.stack(ends), self.num_rows, self.graph.flow)

    def _edges(self, lag: int) -> Edges:
        """Edges whose source is taken ``lag`` frames before their destination."""
        graph = self.graph
        check_ends(graph.source, graph.destination, graph.num_nodes)
        if self.edge_time is None:
            there = self.there(lag).flatten(1)[graph.source] & self.there().flatten(1)[graph.destination]
            number, place = there.nonzero().unbind(1)
        else:
            starts = torch.arange(self.shape[1:-1].numel(), device=graph.source.device) * self.shape[-1]
            place = (self.edge_time[:, None] + starts).flatten()
            number = torch.arange(graph.num_edges, device=place.device).repeat_interleave(starts.size(0))
            if lag or self.mask is not None:
                there = self.there(lag).flatten(1)[graph.source[number], place]
                there &= self.there().flatten(1)[graph.destination[number], place]
                number, place = number[there], place[there]
        first = self._number(graph.source[number], place - lag)
        return Edges(number, place, first, self._number(graph.destination[number], place))

    def there(self, lag: int = 0) -> Tensor:
        """``[N, *, T]``, whether a node was there ``lag`` frames before; within this call."""
        device = self.graph.source.device
        mask = torch.ones(self.shape, dtype=torch.bool, device=device) if self.mask is None else self.mask
        return F.pad(mask[..., : mask.size(-1) - lag], (lag, 0))

    @once
    def lengths(self) -> Tensor:
        """``[N * ...]``, how many rows each sequence has."""
        return self.mask.flatten(0, -2).sum(1)

    @once
    def ptr(self) -> Tensor:
        """``[N * ... + 1]``, where the rows of each sequence begin."""
        return F.pad(self.lengths.cumsum(0), (1, 0))

    @once
    def steps(self) -> Steps:
        """The rows as sequences over time, step by step."""
        mask, lengths = self.mask.flatten(0, -2), self.lengths
        sequences = lengths.argsort(descending=True, stable=True)[: int((lengths > 0).sum())]
        rank = torch.empty_like(lengths)
        rank[sequences] = torch.arange(sequences.size(0), device=rank.device)
        step = mask.cumsum(1).flatten()[self.rows] - 1
        order = (step * lengths.size(0) + rank[self.rows // self.shape[-1]]).argsort()
        return Steps(order, _inverse(order), sequences, step.bincount().cpu())

    @once
    def by_sequence(self) -> tuple[Tensor, Tensor]:
        """``(order [M], inverse [M])``, which put the rows into the order of :attr:`ptr` and back."""
        order = self.rows.argsort()
        return order, _inverse(order)

    @once
    def _numbers(self) -> Tensor:
        return self.mask.flatten(0, -2).t().flatten().cumsum(0) - 1

    def _number(self, node: Tensor, place: Tensor) -> Tensor:
        """The numbers of the rows of nodes in these places of the inner dimensions and time."""
        num_nodes, inner, frames = self.shape[0], self.shape[1:-1].numel(), self.shape[-1]
        if inner == 1:
            number = place * num_nodes + node
        else:
            number = (place % frames * num_nodes + node) * inner + place // frames
        return number if self.mask is None else self._numbers[number]


def _inverse(order: Tensor) -> Tensor:
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.size(0), device=order.device)
    return inverse


def with_inner_dims(value: Tensor, num_dims: int) -> Tensor:
    """View ``[rows, T, width]`` as ``[rows, 1, ..., T, width]`` with ``num_dims`` dimensions."""
    if value.dim() == 3 and num_dims > 3:
        return value.view(value.size(0), *[1] * (num_dims - 3), *value.shape[1:])
    return value


def check_mask(mask: Tensor, shape: torch.Size, like: OptTensor = None) -> Tensor:
    """Raise unless ``mask`` is a bool tensor of the shape, on the device of ``like``."""
    if not isinstance(mask, Tensor) or mask.layout != torch.strided or mask.dtype != torch.bool or mask.shape != shape:
        raise ValueError(f"expected a bool 'mask' of shape {list(shape)}, got {describe(mask, typed=True)}")
    if like is not None and mask.device != like.device:
        raise ValueError(f"expected 'mask' on {like.device}, as the input, got {mask.device}")
    return mask


def check_edge_time(edge_time: Tensor, graph: GraphIndex, num_frames: int) -> Tensor:
    """Raise unless ``edge_time`` has a frame for every edge of ``graph``."""
    if graph.reordered is not None:
        raise ValueError(
            "expected 'edge_time' with a coalesced COO or a CSR matrix, whose order of edges is fixed, got "
            f"{graph.reordered}"
        )
    if num_dims(edge_time) != 1 or edge_time.size(0) != graph.num_edges or not is_integer(edge_time):
        got = describe(edge_time, typed=True)
        raise ValueError(f"expected integer 'edge_time' of shape [{graph.num_edges}], got {got}")
    if edge_time.device != graph.source.device:
        raise ValueError(f"expected 'edge_time' on {graph.source.device}, as the edges, got {edge_time.device}")
    if torch.compiler.is_compiling() or not edge_time.is_cpu:
        assert_later(((edge_time >= 0) & (edge_time < num_frames)).all(), "'edge_time' holds a frame that is not there")
    elif edge_time.numel() > 0:
        low, high = (end.item() for end in edge_time.aminmax())
        if low < 0 or high >= num_frames:
            raise IndexError(
                f"expected 'edge_time' to hold frames from 0 to {num_frames - 1}, got {low if low < 0 else high}"
            )
    return edge_time.long()
