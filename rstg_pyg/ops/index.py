"""The edges of a graph in the order in which kernels walk them.

Shape legend: N nodes, E edges.
"""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import Adj, OptTensor, SparseTensor
from torch_geometric.utils import is_sparse, is_torch_sparse_tensor, to_edge_index

from rstg_pyg.arguments import check_edges
from rstg_pyg.constant_buffers import kept
from rstg_pyg.ops.native.build import library
from rstg_pyg.ops.operators import operator
from rstg_pyg.watched import assert_later


def lasting(make: Callable[..., Any], *args: Any) -> Any:
    """Return ``make(*args)`` so that it may be kept: what inference mode makes cannot be trained with later."""
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        return make(*args)
    with torch.inference_mode(False), torch.no_grad():
        return make(*args)


class once:  # noqa: N801 - a decorator, as property is
    """A property that is computed when it is first asked for, and kept. Compilers can follow it, which they cannot
    ``functools.cached_property``."""

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self.compute, self.name, self.__doc__ = compute, compute.__name__, compute.__doc__

    def __get__(self, owner: Any, cls: type | None = None) -> Any:
        if owner is None:
            return self
        value = lasting(self.compute, owner)
        setattr(owner, self.name, value)
        return value


class Group(NamedTuple):
    """Destinations of one degree, and their edges: consecutive in the order of :class:`GraphIndex`."""

    first_node: int
    num_nodes: int
    degree: int
    first_edge: int


class GraphIndex:
    """A graph's edges as given, and sorted by the degree of their destination, then by destination.

    In the second order the edges of a destination are consecutive, and so are destinations of one degree: a run of them
    is a dense block ``[nodes, degree]``, which needs no scatter. Destinations without edges come first.

    The edges are sorted once, when a kernel first asks: one object serves every frame, every stage and the backward
    pass. :class:`~rstg_pyg.RSTGConv` takes it in the place of ``edge_index``, and :class:`~rstg_pyg.RSTG` makes one for
    all of its stages. ``edge_index`` must not be changed in place afterwards.

    Args:
        edge_index: Edges ``[2, E]``, an :class:`~torch_geometric.EdgeIndex`, which is sorted once in its life, or a
            transposed adjacency matrix.
        num_nodes: Number N of nodes.
        flow: ``"source_to_target"`` or ``"target_to_source"``.
        is_constant: Whether a tensor of edges is used again and again, and sorted once in its life as well.

    Attributes:
        source, destination: ``[E]``, the edges as given.
        adjacency: What message passing in PyG collects from.
        values: ``[E, D]``, a matrix's values, or None.
        order: ``[E]``, the position in ``source`` and ``destination`` of the edges below.
        src, dst: ``[E]``, the sorted edges.
        nodes: ``[N]``, the destinations by their degree.
        ptr: ``[N + 1]``, where in the sorted edges those of ``nodes[n]`` begin.

    Raises:
        ValueError: If it is no edge index or matrix of this number of nodes.
        IndexError: If an edge points outside the nodes; when the edges are sorted.

    Example:
        >>> import torch
        >>> from rstg_pyg import RSTGConv, region_graph
        >>> from rstg_pyg.ops import GraphIndex
        >>> graph = region_graph((2, 1))
        >>> index = GraphIndex(graph.edge_index, graph.num_nodes)
        >>> RSTGConv(4, 4)(torch.randn(5, 4), index).shape
        torch.Size([5, 4])
    """

    def __init__(
        self, edge_index: Adj, num_nodes: int, flow: str = "source_to_target", is_constant: bool = False
    ) -> None:
        is_usual = type(edge_index) is Tensor and edge_index.layout == torch.strided and edge_index.dtype == torch.int64
        if not is_usual or edge_index.dim() != 2 or edge_index.size(0) != 2:
            _check_edges(edge_index, num_nodes)
        self.num_nodes = num_nodes
        self.flow = flow
        self.has_flow = not is_sparse(edge_index)
        self.adjacency, self.reordered = _collectable(edge_index)
        self.values: OptTensor = None
        self._is_constant = is_constant or isinstance(self.adjacency, EdgeIndex)
        self._sorted: tuple[Tensor, ...] | None = None
        self._num_isolated: int | None = None
        if self.has_flow:
            ends = self.adjacency.as_tensor() if isinstance(self.adjacency, EdgeIndex) else self.adjacency
            source, destination = ends[0], ends[1]
            forward = flow == "source_to_target"
            self.source, self.destination = (source, destination) if forward else (destination, source)
        elif isinstance(edge_index, SparseTensor):
            self.destination, self.source, self.values = edge_index.coo()
        else:
            (self.destination, self.source), self.values = to_edge_index(self.adjacency)
        if self.values is not None and self.values.dim() < 2:
            self.values = self.values.unsqueeze(1)

    @property
    def num_edges(self) -> int:
        return self.source.size(0)

    def _sort(self) -> tuple[Tensor, ...]:
        if self._sorted is None:
            edges = self.adjacency.as_tensor() if isinstance(self.adjacency, EdgeIndex) else self.adjacency
            key = "sorted", self.num_nodes, self.flow
            sort = self._sort_edges
            self._sorted = kept(edges, key, sort) if self._is_constant else lasting(sort)
        return self._sorted

    def _sort_edges(self) -> tuple[Tensor, ...]:
        return _sort_edges(self.source, self.destination, self.num_nodes)

    @property
    def order(self) -> Tensor:
        return self._sort()[0]

    @property
    def src(self) -> Tensor:
        return self._sort()[1]

    @property
    def dst(self) -> Tensor:
        return self._sort()[2]

    @property
    def nodes(self) -> Tensor:
        return self._sort()[3]

    @property
    def ptr(self) -> Tensor:
        return self._sort()[4]

    @property
    def inverse(self) -> Tensor:
        """``[E]``, where in the sorted edges an edge as given lies."""
        inverse = torch.empty_like(self.order)
        inverse[self.order] = torch.arange(self.num_edges, device=self.order.device)
        return inverse

    @once
    def by_source(self) -> tuple[Tensor, Tensor]:
        """``(edges [E], ptr [N + 1])``: positions in the sorted edges, grouped by source, and where source n begins."""
        degree = _degree(self.src, self.num_nodes)
        return self.src.argsort(stable=True), torch.cat([degree.new_zeros(1), degree.cumsum(0)])

    @once
    def groups(self) -> list[Group]:
        """The groups of destinations with at least one edge."""
        degrees, counts = self.ptr.diff().unique_consecutive(return_counts=True)
        groups, node, edge = [], 0, 0
        for degree, count in zip(degrees.tolist(), counts.tolist(), strict=True):
            if degree > 0:
                groups.append(Group(node, count, degree, edge))
            node += count
            edge += count * degree
        return groups

    @property
    def num_isolated(self) -> int | None:
        """Number of nodes without edges, the first of ``nodes``; None where only the device or a compiler knows it."""
        if torch.compiler.is_compiling() or not self.source.is_cpu:
            return None
        if self._num_isolated is None:
            self._num_isolated = int((self.ptr == 0).sum()) - 1 if self.num_edges else self.num_nodes
        return self._num_isolated

    def with_attention(self, alpha: Tensor) -> Any:
        """What layers of PyG return of weights ``alpha [E, ...]``: ``(edges, alpha)``, ``(matrix of alpha, alpha)``, or
        a ``SparseTensor`` that holds alpha."""
        matrix = self.adjacency
        if isinstance(matrix, SparseTensor):
            return matrix.set_value(alpha, layout="coo")
        if not is_torch_sparse_tensor(matrix):
            return matrix, alpha
        size = (*matrix.shape[:2], *alpha.shape[1:])
        if matrix.layout == torch.sparse_coo:
            return torch.sparse_coo_tensor(matrix.indices(), alpha, size, is_coalesced=True), alpha
        return torch.sparse_csr_tensor(matrix.crow_indices(), matrix.col_indices(), alpha, size), alpha

    @property
    def hears(self) -> Tensor:
        """``[N]``, 1 for a node that has an incoming edge, 0 for one that has none."""
        heard = torch.zeros_like(self.nodes)
        return heard.index_put((self.nodes,), (self.ptr.diff() > 0).to(heard.dtype))


def _check_edges(edge_index: Adj, num_nodes: int) -> None:
    if is_sparse(edge_index):
        if isinstance(edge_index, Tensor):
            size = list(edge_index.shape[: edge_index.dim() - edge_index.dense_dim()])
        else:
            size = list(edge_index.sizes())[:2]
        if size != [num_nodes, num_nodes]:
            raise ValueError(f"expected a sparse adjacency matrix of size {[num_nodes, num_nodes]}, got {size}")
        return
    check_edges(edge_index, "[2, num_edges] or a sparse matrix")
    if isinstance(edge_index, EdgeIndex) and any(n not in (None, num_nodes) for n in edge_index.sparse_size()):
        raise ValueError(
            f"expected an EdgeIndex of size {(num_nodes, num_nodes)} or of none, got {edge_index.sparse_size()}"
        )


def _collectable(edge_index: Adj) -> tuple[Adj, str | None]:
    """Turn numbers of nodes into int64, a CSC matrix into CSR, and coalesce a COO matrix; and say what lost the order
    of its edges.

    Message passing in PyG collects from CSR and from coalesced COO matrices, and the kernels from int64; on others they
    fail deep inside, and a uint8 index passes for a mask.
    """
    if isinstance(edge_index, SparseTensor):
        return edge_index, None
    if not is_torch_sparse_tensor(edge_index):
        return edge_index if edge_index.dtype == torch.int64 else edge_index.long(), None
    if edge_index.layout == torch.sparse_csc:
        return _with_int64(edge_index.to_sparse_csr()), "a CSC matrix"
    if edge_index.layout == torch.sparse_coo and not edge_index.is_coalesced():
        return edge_index.coalesce(), "a COO matrix that is not coalesced"
    return _with_int64(edge_index), None


def _with_int64(matrix: Tensor) -> Tensor:
    if matrix.layout != torch.sparse_csr or matrix.crow_indices().dtype == torch.int64:
        return matrix
    parts = matrix.crow_indices().long(), matrix.col_indices().long(), matrix.values()
    return torch.sparse_csr_tensor(*parts, matrix.shape)


_ARGUMENTS = struct.Struct("9q")


def _sort(source: Tensor, destination: Tensor, num_nodes: int) -> tuple[Tensor, ...]:
    """``order, src, dst, nodes, ptr`` of :class:`GraphIndex`."""
    native = library("float") if source.is_cpu else None
    if native is None:
        return _sort_in_pytorch(source, destination, num_nodes)
    source, destination = source.contiguous(), destination.contiguous()
    found = _empty(source, destination, num_nodes)
    addresses = [value.data_ptr() for value in (source, destination, *found)]
    if native.rstg_sort_edges(_ARGUMENTS.pack(num_nodes, source.numel(), *addresses)):
        _raise_outside(source, destination, num_nodes)
        raise MemoryError("the native kernels ran out of memory")
    return found


def _sort_in_pytorch(source: Tensor, destination: Tensor, num_nodes: int) -> tuple[Tensor, ...]:
    check_ends(source, destination, num_nodes)
    sorted_degree, nodes = _degree(destination, num_nodes).sort(stable=True)
    rank = torch.empty_like(nodes)
    rank[nodes] = torch.arange(num_nodes, device=nodes.device)
    order = rank[destination].argsort(stable=True)
    ptr = torch.cat([sorted_degree.new_zeros(1), sorted_degree.cumsum(0)])
    return order, source[order], destination[order], nodes, ptr


def _empty(source: Tensor, destination: Tensor, num_nodes: int) -> tuple[Tensor, ...]:
    num_edges = source.size(0)
    return tuple(source.new_empty(size) for size in (*(num_edges,) * 3, num_nodes, num_nodes + 1))


_sort_edges = operator(
    "sort_edges(Tensor source, Tensor destination, SymInt num_nodes) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _sort,
    _empty,
    device=None,
)


def _degree(ends: Tensor, num_nodes: int) -> Tensor:
    return ends.new_zeros(num_nodes).index_add_(0, ends, torch.ones_like(ends))


def check_ends(source: Tensor, destination: Tensor, num_nodes: int) -> None:
    """Raise where an edge points outside the graph; on a GPU and in compiled code an assertion fails, later."""
    if torch.compiler.is_compiling() or not source.is_cpu:
        for ends in (source, destination):
            assert_later(((ends >= 0) & (ends < num_nodes)).all(), "'edge_index' points outside the nodes")
    elif source.numel() > 0:
        _raise_outside(source, destination, num_nodes)


def _raise_outside(source: Tensor, destination: Tensor, num_nodes: int) -> None:
    for ends in (source, destination):
        low, high = (end.item() for end in ends.aminmax())
        if low < 0 or high >= num_nodes:
            raise IndexError(
                f"expected 'edge_index' to hold nodes from 0 to {num_nodes - 1}, got {low if low < 0 else high} (nodes "
                "are the first dimension of 'x')"
            )
