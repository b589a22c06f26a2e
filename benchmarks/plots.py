"""Pictures of the rows: throughput over width, cost over an axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bound import BOUND, FASTEST
from compare import Row
from sweep import Axis

COLORS = [matplotlib.colormaps["tab20"](number) for number in (*range(0, 14, 2), *range(16, 20, 2), *range(1, 14, 2))]
"""Strong colours first, without the grays of the bounds."""


def draw_throughput(rows: Sequence[Row], path: Path) -> None:
    """Frames per second of every form over the width of the features."""
    problem = rows[0].problem
    figure, axes = _canvas(
        f"{problem.what}, {problem.form} form, {_pass(rows)}: {problem.graph.name}, {problem.batch} clips x "
        f"{problem.frames} frames, {problem.dtype_name}, {problem.device}"
    )
    _lines(axes, rows, lambda row: row.problem.width, lambda row: row.frames_per_second)
    widths = sorted({row.problem.width for row in rows})
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.minorticks_off()
    axes.set(xlabel="channels", ylabel="frames per second")
    _save(figure, axes, path)


def draw_cost(rows: Sequence[Row], axis: Axis, path: Path) -> None:
    """Milliseconds of every form over one axis, with a line of the slope that is expected at best."""
    problem = rows[0].problem
    figure, axes = _canvas(f"{problem.what}, {problem.form} form, {_pass(rows)}: {axis.held(problem)}")
    _lines(axes, rows, lambda row: axis.size(row.problem), lambda row: row.quartiles[1])
    timed = [row for row in rows if row.times]
    ends = [function(axis.size(row.problem) for row in timed) for function in (min, max)]
    start = min(row.quartiles[1] for row in timed if axis.size(row.problem) == ends[1])
    start *= (ends[0] / ends[1]) ** axis.slope
    guide = [start, start * (ends[1] / ends[0]) ** axis.slope]
    axes.plot(ends, guide, color="black", linestyle=":", label=f"slope {axis.slope}")
    axes.set(xlabel=axis.label, ylabel="ms")
    _save(figure, axes, path)


def _canvas(title: str) -> tuple[Figure, object]:
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title, fontsize="small")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(which="both", alpha=0.3)
    return figure, axes


def _lines(axes: object, rows: Sequence[Row], x: Callable[[Row], float], y: Callable[[Row], float]) -> None:
    for number, name in enumerate(dict.fromkeys(row.name for row in rows if row.times)):
        points = sorted((x(row), y(row)) for row in rows if row.name == name and row.times)
        style = (
            {"linestyle": "--", "color": "black" if name == BOUND else "gray"}
            if name in (BOUND, FASTEST)
            else {"linestyle": "-", "color": COLORS[number % len(COLORS)]}
        )
        marker = "o" if number < len(COLORS) else "s"
        axes.plot(*zip(*points, strict=True), marker=marker, markersize=4, label=name, **style)


def _save(figure: Figure, axes: object, path: Path) -> None:
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)


def _pass(rows: Sequence[Row]) -> str:
    return "forward + backward" if rows[0].backward else "forward"
