"""What is computed: a graph, the sizes, one space stage or the whole block; and the axes along which that is swept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch_geometric.utils import coalesce, remove_self_loops

from rstg_pyg import RSTG, RSTGConv, region_graph


@dataclass(frozen=True)
class Graph:
    """The graph of one frame; all frames of all clips share it."""

    name: str
    num_nodes: int
    edge_index: Tensor = field(repr=False)
    pe: Tensor | None = field(default=None, repr=False)

    @property
    def num_edges(self) -> int:
        return self.edge_index.size(1)


def grid_graph(scales: tuple[int, ...], positions: bool = False) -> Graph:
    """The regions of a frame, with their heatmaps as positions if asked."""
    data = region_graph(scales)
    name = "-".join(map(str, scales))
    return Graph(name, data.num_nodes, data.edge_index, data.heatmap if positions else None)


def random_graph(num_nodes: int, mean_degree: int) -> Graph:
    """An irregular graph without loops and double edges: a ring, so that every node has a neighbour, and edges between
    random pairs; ``num_nodes * mean_degree`` edges in all, the same ones for the same arguments."""
    if not 1 <= mean_degree < num_nodes / 2:
        raise ValueError(f"expected a mean degree of 1 or more and under half of {num_nodes} nodes, got {mean_degree}")
    generator = torch.Generator().manual_seed(0)
    nodes = torch.arange(num_nodes)
    drawn = torch.randint(num_nodes, (2, 16 * num_nodes * mean_degree), generator=generator)
    drawn = remove_self_loops(coalesce(drawn))[0]
    drawn = drawn[:, (drawn[1] - drawn[0]) % num_nodes != 1]
    chosen = drawn[:, torch.randperm(drawn.size(1), generator=generator)[: num_nodes * (mean_degree - 1)]]
    ring = torch.stack([nodes, (nodes + 1) % num_nodes])
    return Graph(f"random-{num_nodes}", num_nodes, coalesce(torch.cat([ring, chosen], dim=1), sort_by_row=False))


@dataclass(frozen=True)
class Problem:
    """One space stage on a batch of clips, or with ``num_stages`` the whole block.

    Attributes:
        relu_last: Whether an activation follows the last send layer.
        num_stages: Number K of space stages between K + 1 time stages; None for one space stage alone.
    """

    graph: Graph
    width: int
    batch: int
    frames: int
    relu_last: bool = False
    num_stages: int | None = None
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

    @property
    def num_frames(self) -> int:
        """Frames of all clips."""
        return self.batch * self.frames

    @property
    def form(self) -> str:
        return "relu-last" if self.relu_last else "default"

    @property
    def what(self) -> str:
        return "stage" if self.num_stages is None else "block"

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        what = "space stage" if self.num_stages is None else f"whole block, K = {self.num_stages}"
        graph = f"{self.graph.name} ({self.graph.num_nodes} nodes, {self.graph.num_edges} edges)"
        size = f"{self.batch} clips x {self.frames} frames, C = {self.width}"
        return f"{what}, {self.form} form, {graph}, {size}, {self.dtype_name}, {self.device}"

    def edge_index(self) -> Tensor:
        return self.graph.edge_index.to(self.device)

    def pe(self) -> Tensor | None:
        return None if self.graph.pe is None else self.graph.pe.to(self.device, self.dtype)

    def model(self) -> RSTGConv | RSTG:
        """The package's module."""
        pe_channels = 0 if self.graph.pe is None else self.graph.pe.size(1)
        arguments = {"pe_channels": pe_channels, "send_act_last": self.relu_last}
        if self.num_stages is None:
            module = RSTGConv(self.width, self.width, **arguments)
        else:
            module = RSTG(self.width, num_stages=self.num_stages, **arguments)
        return module.to(self.device, self.dtype)

    def features(self) -> Tensor:
        """Random node features ``[N, B, T, C]``."""
        shape = self.graph.num_nodes, self.batch, self.frames, self.width
        return torch.randn(shape, device=self.device, dtype=self.dtype)


@dataclass(frozen=True)
class Axis:
    """What is swept: what ``size`` counts, the place of a problem on the axis, what stays the same in words, and the
    exponent of the cost to expect."""

    name: str
    label: str
    size: Callable[[Problem], int]
    held: Callable[[Problem], str]
    slope: int = 1


AXES = {
    "width": Axis(
        "width", "channels", lambda p: p.width, lambda p: f"{p.graph.name}, B = {p.batch}, T = {p.frames}", 2
    ),
    "nodes": Axis(
        "nodes",
        "nodes + edges",
        lambda p: p.graph.num_nodes + p.graph.num_edges,
        lambda p: f"C = {p.width}, B = {p.batch}, T = {p.frames}",
    ),
    "frames": Axis("frames", "frames", lambda p: p.frames, lambda p: f"{p.graph.name}, C = {p.width}, B = {p.batch}"),
    "batch": Axis("batch", "clips", lambda p: p.batch, lambda p: f"{p.graph.name}, C = {p.width}, T = {p.frames}"),
}


def points(axis: str, problem: Problem, irregular: bool, short: bool) -> list[Problem]:
    """The problems along an axis; all else as in ``problem``.

    Nodes: region grids from 2-1 to 6-5-4-3-2-1, or irregular graphs of 16 to 4096 nodes with 6 edges each.
    """
    if axis == "nodes":
        if irregular:
            graphs = [random_graph(2**power, 6) for power in range(4, 13)]
        else:
            scales = (tuple(range(largest, 0, -1)) for largest in range(2, 7))
            graphs = [grid_graph(one, problem.graph.pe is not None) for one in scales]
        found = [replace(problem, graph=graph) for graph in graphs]
    elif axis == "width":
        found = [replace(problem, width=width) for width in (64, 128, 256, 512)]
    else:
        found = [replace(problem, **{axis: 2**power}) for power in range(9)]
    return found[:3] if short else found
