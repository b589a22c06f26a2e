"""The rows of a comparison as a table, CSV and JSON, and as pictures: throughput over width, cost over an axis."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bound import BOUND, FASTEST
from command import aligned, write_csv, write_json
from compare import Row, ratio
from problem import Axis

COLORS = [matplotlib.colormaps["tab20"](number) for number in (*range(0, 14, 2), *range(16, 20, 2), *range(1, 14, 2))]
"""Strong colours first, without the grays of the bounds."""

COLUMNS = (
    *("what", "form", "pass", "graph", "nodes", "edges", "batch", "frames", "width", "dtype", "device", "name"),
    *("median_ms", "lower_quartile_ms", "upper_quartile_ms", "frames_per_s", "messages_per_s", "peak_mib"),
    *("share_of_bound", "note"),
)


def table(rows: Sequence[Row]) -> str:
    """The rows of one problem, aligned."""
    lines = [("form", "median ms", "quartiles", "frames/s", "messages/s", "peak MiB", "of bound")]
    for row in rows:
        if row.note:
            lines.append((row.name, row.note, "", "", "", "", ""))
            continue
        lower, median, upper = row.quartiles
        speeds = f"{row.frames_per_second:,.0f}", f"{row.messages_per_second:,.0f}"
        peak = "" if row.peak is None else f"{row.peak / 2**20:.2f}"
        share = "" if row.share_of_bound is None else f"{row.share_of_bound:.0%}"
        lines.append((row.name, f"{median:.2f}", f"{lower:.2f} - {upper:.2f}", *speeds, peak, share))
    return aligned(lines)


def record(row: Row) -> dict[str, Any]:
    """A row under the names of ``COLUMNS``."""
    problem = row.problem
    values: dict[str, Any] = {
        **_title(row),
        "pass": "forward+backward" if row.backward else "forward",
        "graph": problem.graph.name,
        "nodes": problem.graph.num_nodes,
        "edges": problem.graph.num_edges,
        "batch": problem.batch,
        "frames": problem.frames,
        "width": problem.width,
        "device": problem.device,
        "name": row.name,
        "note": row.note,
    }
    if not row.note:
        lower, median, upper = row.quartiles
        values |= {"median_ms": median, "lower_quartile_ms": lower, "upper_quartile_ms": upper}
        values |= {"frames_per_s": row.frames_per_second, "messages_per_s": row.messages_per_second}
        values |= {"peak_mib": None if row.peak is None else row.peak / 2**20, "share_of_bound": row.share_of_bound}
    return {name: values.get(name) for name in COLUMNS}


@dataclass(frozen=True)
class Step:
    """From one point of an axis to the next: how much the size grows, and how much the time."""

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


def write_all(
    folder: Path, description: dict[str, Any], rows: Sequence[Row], sweeps: Sequence[tuple[Axis, Sequence[Row]]]
) -> None:
    """Write ``throughput.csv``, ``throughput.json`` and a picture per sweep or, without sweeps, per setting."""
    records = [record(row) for row in rows]
    write_csv(records, folder / "throughput.csv")
    doublings = [
        {"axis": axis.name, **_title(found[0]), **dataclasses.asdict(step), "doubling": step.cost_of_doubling}
        for axis, found in sweeps
        for step in steps(found, axis)
    ]
    write_json({"machine": description, "rows": records, "steps": doublings}, folder / "throughput.json")
    for axis, found in sweeps:
        draw_cost(found, axis, folder / f"cost-over-{axis.name}-{'-'.join(_title(found[0]).values())}.png")
    if not sweeps:
        for title, found in itertools.groupby(sorted(rows, key=_setting), key=_setting):
            draw_throughput(list(found), folder / f"throughput-over-width-{'-'.join(title)}.png")


def _title(row: Row) -> dict[str, str]:
    problem = row.problem
    return {
        "what": problem.what,
        "form": problem.form,
        "pass": "both" if row.backward else "forward",
        "dtype": problem.dtype_name,
    }


def _setting(row: Row) -> tuple[str, ...]:
    """What the points of one picture of throughput over width have in common."""
    problem = row.problem
    return (*_title(row).values(), f"scales-{problem.graph.name}", f"B{problem.batch}-T{problem.frames}")


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
