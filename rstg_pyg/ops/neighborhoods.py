"""The order in which the kernels walk the edges of a graph.

Shape legend: N nodes, E edges.
"""

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


class Group(NamedTuple):
    """Destinations of one degree, and their edges: consecutive in the order of :class:`Neighborhoods`."""

    first_node: int
    num_nodes: int
    degree: int
    first_edge: int


class Neighborhoods:
    """Edges sorted by the degree of their destination, then by destination.

    In this order the edges of a destination are consecutive, and so are destinations of one degree: a run of them is a
    dense block ``[nodes, degree]``, which needs no scatter. Destinations without edges come first.

    Building it sorts the edges once; one object serves every frame, every stage and the backward pass. Nothing is read
    back from the device before :attr:`groups` is.

    Args:
        src: Source of every edge, ``[E]``.
        dst: Destination of every edge, ``[E]``.
        num_nodes: Number N of nodes.

    Attributes:
        order: ``[E]``, the position in ``src`` and ``dst`` as given of the edges below.
        src, dst: ``[E]``, the sorted edges.
        nodes: ``[N]``, the destinations by their degree.
        ptr: ``[N + 1]``, where in the sorted edges those of ``nodes[n]`` begin.
    """

    def __init__(self, src: Tensor, dst: Tensor, num_nodes: int) -> None:
        self.num_nodes = num_nodes
        degree = dst.new_zeros(num_nodes).index_add_(0, dst, torch.ones_like(dst))
        sorted_degree, self.nodes = degree.sort(stable=True)
        self._degree = sorted_degree
        rank = torch.empty_like(self.nodes)
        rank[self.nodes] = torch.arange(num_nodes, device=dst.device)
        self.order = rank[dst].argsort(stable=True)
        self.src, self.dst = src[self.order], dst[self.order]
        self.ptr = torch.cat([degree.new_zeros(1), sorted_degree.cumsum(0)])
        self._by_source: tuple[Tensor, Tensor] | None = None

    @property
    def num_edges(self) -> int:
        return self.src.numel()

    @property
    def inverse(self) -> Tensor:
        """``[E]``, where in the sorted edges an edge as given lies."""
        inverse = torch.empty_like(self.order)
        inverse[self.order] = torch.arange(self.num_edges, device=self.order.device)
        return inverse

    @property
    def by_source(self) -> tuple[Tensor, Tensor]:
        """``(edges [E], ptr [N + 1])``: positions in the sorted edges, grouped by source, and where source n begins."""
        if self._by_source is None:
            degree = self.src.new_zeros(self.num_nodes).index_add_(0, self.src, torch.ones_like(self.src))
            ptr = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
            self._by_source = self.src.argsort(stable=True), ptr
        return self._by_source

    @cached_property
    def groups(self) -> list[Group]:
        """The groups of destinations with at least one edge."""
        degrees, counts = self._degree.unique_consecutive(return_counts=True)
        groups, node, edge = [], 0, 0
        for degree, count in zip(degrees.tolist(), counts.tolist(), strict=True):
            if degree > 0:
                groups.append(Group(node, count, degree, edge))
            node += count
            edge += count * degree
        return groups

    @property
    def num_isolated(self) -> int | None:
        """Number of nodes without edges, the first of ``nodes``; None where only the device knows it."""
        if not self.src.is_cpu:
            return None
        return self.groups[0].first_node if self.groups else self.num_nodes
