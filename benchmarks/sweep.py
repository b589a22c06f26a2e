"""One axis at a time: how cost grows with graph, frames, clips and channels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from compare import Row, ratio
from problem import Graph, Problem, grid_graph, random_graph
from report import aligned

SCALES = tuple(tuple(range(largest, 0, -1)) for largest in range(2, 7))
DEGREE = 6


@dataclass(frozen=True)
class Axis:
    """What is swept.

    Attributes:
        label: What :attr:`size` counts.
        size: The place of a problem on the axis.
        slope: The exponent of the cost to expect: 1 where cost is linear.
        held: What stays the same, in words.
    """

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
        graphs = irregular_graphs() if irregular else [grid_graph(s, problem.graph.pe is not None) for s in SCALES]
        found = [replace(problem, graph=graph) for graph in graphs]
    elif axis == "width":
        found = [replace(problem, width=width) for width in (64, 128, 256, 512)]
    else:
        found = [replace(problem, **{axis: 2**power}) for power in range(9)]
    return found[:3] if short else found


def irregular_graphs() -> list[Graph]:
    return [random_graph(2**power, DEGREE) for power in range(4, 13)]


@dataclass(frozen=True)
class Step:
    """From one point of an axis to the next.

    Attributes:
        growth: How much the size grows.
        cost: How much the time grows.
    """

    name: str
    start: int
    end: int
    growth: float
    cost: float

    @property
    def cost_of_doubling(self) -> float:
        """What a doubling of the size costs, if it costs the same all along the step."""
        return self.cost ** (1 / math.log2(self.growth))


def steps(rows: Sequence[Row], axis: Axis) -> list[Step]:
    """The successive steps of every form along an axis."""
    found = []
    for name in dict.fromkeys(row.name for row in rows):
        timed = [row for row in rows if row.name == name and row.times]
        for before, after in itertools.pairwise(timed):
            start, end = axis.size(before.problem), axis.size(after.problem)
            found.append(Step(name, start, end, end / start, ratio(after, before)))
    return found


def table_of_sweep(rows: Sequence[Row], axis: Axis) -> str:
    """Median milliseconds: a line per point, a column per form; then what doublings cost, at most and at the end."""
    names = list(dict.fromkeys(row.name for row in rows))
    medians = {(axis.size(row.problem), row.name): f"{row.quartiles[1]:.2f}" for row in rows if row.times}
    lines = [[axis.label, *names]]
    for size in dict.fromkeys(axis.size(row.problem) for row in rows):
        lines.append([str(size), *(medians.get((size, name), "-") for name in names)])
    costs = {name: [step.cost_of_doubling for step in steps(rows, axis) if step.name == name] for name in names}
    lines.append(["doubling: most", *(f"x {max(costs[name]):.2f}" if costs[name] else "-" for name in names)])
    lines.append(["doubling: last", *(f"x {costs[name][-1]:.2f}" if costs[name] else "-" for name in names)])
    return aligned(lines)
