"""Measures the goals, all in one run."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

import forms
import goal_cuda
from bound import BOUND, FASTEST
from compare import COMPILED, Row, Settings, compare, ratio
from goals import BLOCK_STAGES, BLOCK_WIDTH, GOALS, NODE_TENSORS, STAGE_SIZES
from memory import peak_bytes, saved_bytes
from problem import Problem, grid_graph
from report import markdown
from rstg_pyg import RSTGToVec
from sweep import AXES, Axis, points, steps

OURS = "rstg-auto"
IMPORT_TIME = """
import time, torch_geometric
start = time.perf_counter()
import rstg_pyg
print(1000 * (time.perf_counter() - start))
"""


@dataclass
class Measured:
    """What a run found.

    Attributes:
        rows, sweeps: What the measurements come from.
        values: Measurements by the keys of the goals.
        compiled: The same of the package under ``torch.compile``, where it was measured.
    """

    rows: list[Row] = field(default_factory=list)
    sweeps: list[tuple[Axis, list[Row]]] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    compiled: dict[str, float] = field(default_factory=dict)

    def table(self) -> str:
        """The goals with their measurements, in Markdown."""
        head = ["goal", "required", "measured", "met"]
        lines = [head + (["compiled"] if self.compiled else [])]
        for goal in GOALS:
            value = self.values.get(goal.key)
            cells = ["not measured", "-"] if value is None else [f"{value:.2f}{goal.unit}", _yes_or_no(goal.met(value))]
            other = self.compiled.get(goal.key)
            column = ["" if other is None else f"{other:.2f}{goal.unit}"] if self.compiled else []
            lines.append([goal.text, goal.requirement(), *cells, *column])
        return markdown(lines)


def measure_goals(
    settings: Settings,
    device: str,
    positions: bool,
    show: Callable[[list[Row]], object],
    show_sweep: Callable[[Axis, list[Row]], object],
    tick: Callable[[], object],
) -> Measured:
    """Measure every goal that the device can show; ``show`` and ``show_sweep`` get what was compared when it is
    done, ``tick`` is called after every turn."""
    found = Measured()
    settings = replace(settings, names=None, compiled_names=[OURS])
    graph = grid_graph((3, 2, 1), positions)
    problem = Problem(graph, 64, 2, 4, device=device)
    for width, (batch, frames) in STAGE_SIZES.items():
        for form in NODE_TENSORS:
            stage = replace(problem, width=width, batch=batch, frames=frames, relu_last=form == "relu-last")
            rows = compare([stage], True, settings, tick)
            found.rows += rows
            show(rows)
            found.values |= _stage_values(rows, OURS)
            if settings.compile_mode is not None:
                found.compiled |= _stage_values(rows, f"{OURS}{COMPILED}")
    block = replace(problem, num_stages=BLOCK_STAGES, width=BLOCK_WIDTH, batch=4, frames=10)
    rows = compare([block], True, settings, tick)
    found.rows += rows
    show(rows)
    row = {row.name: row for row in rows}
    found.values["block-authors"] = ratio(row["authors"], row[OURS])
    if settings.compile_mode is not None:
        found.compiled["block-authors"] = ratio(row["authors"], row[f"{OURS}{COMPILED}"])
    found.values |= _memory_values(replace(problem, width=256, batch=16, frames=10))
    for num_stages, axis in itertools.product((None, BLOCK_STAGES), ("frames", "batch", "nodes")):
        along = points(axis, replace(problem, num_stages=num_stages), irregular=True, short=False)
        rows = compare(along, True, replace(settings, names=[OURS], memory=False, compile_mode=None), tick)
        found.sweeps.append((AXES[axis], rows))
        show_sweep(AXES[axis], rows)
        costs = [step.cost_of_doubling for step in steps(rows, AXES[axis]) if step.name == OURS]
        found.values[f"doubling-{along[0].what}-{axis}"] = max(costs)
    found.values["import"] = import_milliseconds()
    if torch.device(device).type == "cuda":
        found.values |= goal_cuda.measure(replace(problem, width=512, batch=256, frames=10), settings)
    return found


def _stage_values(rows: Sequence[Row], ours: str) -> dict[str, float]:
    row = {row.name: row for row in rows}
    mine = row[ours]
    key = f"{mine.problem.form}-{mine.problem.width}"
    values = {f"{key}-plain": ratio(row["plain"], mine), f"{key}-bound": ratio(mine, row[BOUND])}
    values[f"{key}-bound-fastest"] = ratio(mine, row.get(FASTEST, row[BOUND]))
    if mine.peak is not None:
        values[f"{key}-memory"] = mine.peak / row["plain"].peak
    if mine.problem.relu_last:
        values[f"{key}-authors"] = ratio(row["dense-concat"], mine)
    else:
        values[f"{key}-gatv2"] = ratio(mine, row["gatv2"])
    return values


def _memory_values(problem: Problem) -> dict[str, float]:
    values = {"stream-memory": stream_peak(64, 100, problem.device) / stream_peak(64, 10, problem.device)}
    for form, count in NODE_TENSORS.items():
        stage = replace(problem, relu_last=form == "relu-last")
        built = forms.build(OURS, stage, stage.model())
        x = stage.features().requires_grad_()
        kept = saved_bytes(lambda built=built, x=x: built.call(x), built.module.parameters())
        values[f"{form}-saved"] = kept / (count * x.untyped_storage().nbytes())
    return values


def stream_peak(width: int, frames: int, device: str) -> int:
    """Peak memory of ``RSTGToVec.step`` over so many frames of 14 x 14 positions, one after the other."""
    model = RSTGToVec(width).to(device).eval()
    frame = torch.randn(1, width, 14, 14, device=device)

    @torch.no_grad()
    def run() -> None:
        state = None
        for _ in range(frames):
            _, state = model.step(frame, state)

    run()
    return peak_bytes(run, device)


def import_milliseconds(runs: int = 7) -> float:
    """Median time that ``import rstg_pyg`` takes once torch_geometric is imported, each time in a new process."""
    command = [sys.executable, "-c", IMPORT_TIME]
    outputs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(runs + 1)]
    return statistics.median(float(output) for output in outputs[1:])


def _yes_or_no(met: bool) -> str:
    return "yes" if met else "**no**"
