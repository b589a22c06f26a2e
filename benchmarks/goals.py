"""The goals: what the package has to reach, each a number that ``throughput.py --goals`` measures in one run."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import forms
from bound import BOUND, FASTEST
from command import markdown
from compare import COMPILED, Row, Settings, compare, ratio
from measure import peak_bytes, saved_bytes
from problem import AXES, Axis, Problem, grid_graph, points
from results import steps
from rstg_pyg import RSTGToVec

STAGE_SIZES = {64: (16, 10), 256: (16, 10), 512: (4, 10)}
"""Clips and frames of one space stage, forward and backward, on scales 3-2-1, by the width."""

BLOCK_STAGES = 3
BLOCK_WIDTH = 512

NODE_TENSORS = {"default": 8, "relu-last": 7}
"""Tensors ``[N, B, T, C]`` that autograd must keep of a space stage, if everything per edge is computed again: the
input, the source and the destination half, query and key, the gathered messages, the hidden layer of the update, and in
the default form the weighted sum that enters the last send layer."""


@dataclass(frozen=True)
class Goal:
    """A number, named by ``key``, and its limit: an upper one, or a lower one; without a unit for a ratio."""

    key: str
    text: str
    required: float
    at_least: bool = False
    unit: str = ""

    def met(self, measured: float) -> bool:
        return measured >= self.required if self.at_least else measured <= self.required

    def requirement(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.required:.3g}{self.unit}"


def _by_width(
    form: str, quantity: str, text: str, required: tuple[float, float, float], at_least: bool = False
) -> list[Goal]:
    return [
        Goal(f"{form}-{width}-{quantity}", f"{form} form, C = {width}: {text}", limit, at_least)
        for width, limit in zip(STAGE_SIZES, required, strict=True)
    ]


CUDA_GOALS = [
    Goal("cuda-launches", "CUDA, whole block: kernel launches outside cuDNN at T = 16, of those at T = 8", 1),
    Goal("cuda-graph", "CUDA, whole block: captured in a CUDA graph with equal results (1: yes)", 1, at_least=True),
    Goal("cuda-bfloat16", "CUDA, bfloat16, C = 512, B T = 2560: share of the bound", 0.4, at_least=True),
    Goal("cuda-dense-split", "CUDA, the same: times as fast as `dense-split` under max-autotune", 2, at_least=True),
]

GOALS = [
    *_by_width("default", "plain", "times as fast as `plain`", (5, 2.8, 3.5), at_least=True),
    *_by_width("default", "memory", "peak memory, of that of `plain`", (0.2, 0.2, 0.2)),
    *_by_width("default", "bound", "time, in times of `bound-fastest`", (4, 2, 1.6)),
    *_by_width("default", "gatv2", "time, in times of `gatv2`", (1, 1.3, 1.3)),
    *_by_width("relu-last", "plain", "times as fast as `plain`", (3, 2.2, 2.4), at_least=True),
    *_by_width("relu-last", "authors", "times as fast as `dense-concat`", (4, 4, 4), at_least=True),
    *_by_width("relu-last", "bound", "time, in times of `bound-fastest`", (3.5, 1.7, 1.4)),
    *_by_width("relu-last", "memory", "peak memory, of that of `plain`", (1 / 3, 1 / 3, 1 / 3)),
    Goal("block-authors", f"whole block, C = {BLOCK_WIDTH}: times as fast as `authors`", 3, at_least=True),
    Goal("stream-memory", "stream: peak memory of 100 frames, of that of 10", 1),
    *(
        Goal(f"{form}-saved", f"{form} form, C = 256: what autograd keeps, of the node tensors that it must keep", 1.5)
        for form in NODE_TENSORS
    ),
    *(
        Goal(f"doubling-{what}-{axis}", f"{name}: the most that a doubling of {size} costs", 2.1)
        for what, name in (("stage", "space stage"), ("block", "whole block"))
        for axis, size in (
            ("frames", "T (1 to 256)"),
            ("batch", "B (1 to 256)"),
            ("nodes", "N and E (16 to 4,096 nodes)"),
        )
    ),
    Goal("import", "import of rstg_pyg after that of torch_geometric", 50, unit=" ms"),
    *CUDA_GOALS,
]
"""Of the two bounds the faster one counts: `bound` itself where torch has one library to multiply with."""


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
        """The goals with their measurements, in Markdown, and under it how many are met."""
        lines = [["goal", "required", "measured", "met", *(["compiled"] if self.compiled else [])]]
        for goal in GOALS:
            value, other = self.values.get(goal.key), self.compiled.get(goal.key)
            cells = ["not measured", "-"]
            if value is not None:
                cells = [f"{value:.2f}{goal.unit}", "yes" if goal.met(value) else "**no**"]
            column = ["" if other is None else f"{other:.2f}{goal.unit}"] if self.compiled else []
            lines.append([goal.text, goal.requirement(), *cells, *column])
        measured = [goal for goal in GOALS if goal.key in self.values]
        missed = [goal.text for goal in measured if not goal.met(self.values[goal.key])]
        verb = "is" if len(measured) - len(missed) == 1 else "are"
        summary = f"{len(measured) - len(missed)} of {len(measured)} measured goals {verb} met"
        return "\n".join([markdown(lines), "", "; missed: ".join([summary, *filter(None, ["; ".join(missed)])]) + "."])


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
            found.values |= stage_values(rows, OURS)
            if settings.compile_mode is not None:
                found.compiled |= stage_values(rows, f"{OURS}{COMPILED}")
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
        found.values |= measure_cuda(replace(problem, width=512, batch=256, frames=10), settings)
    return found


def stage_values(rows: Sequence[Row], ours: str) -> dict[str, float]:
    row = {row.name: row for row in rows}
    mine = row[ours]
    key = f"{mine.problem.form}-{mine.problem.width}"
    values = {f"{key}-plain": ratio(row["plain"], mine), f"{key}-bound": ratio(mine, row.get(FASTEST) or row[BOUND])}
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
    given = {"capture_output": True, "text": True, "check": True, "env": os.environ | {"PYTHONDONTWRITEBYTECODE": ""}}
    outputs = [subprocess.run(command, **given).stdout for _ in range(runs + 1)]
    return statistics.median(float(output) for output in outputs[1:])


def measure_cuda(problem: Problem, settings: Settings) -> dict[str, float]:
    """Measure the goals that only a CUDA device can show; ``problem`` is the space stage of the bfloat16 goals."""
    low = replace(problem, dtype=torch.bfloat16)
    names = [OURS, "dense-split"]
    settings = replace(settings, names=names, compile_mode="max-autotune", compiled_names=names)
    rows = compare([low], True, settings)
    row = {row.name: row for row in rows}
    block = replace(problem, num_stages=BLOCK_STAGES, width=64, batch=4, frames=8)
    return {
        "cuda-bfloat16": row[OURS].share_of_bound,
        "cuda-dense-split": ratio(row[f"dense-split{COMPILED}"], row[OURS]),
        "cuda-launches": count_launches(replace(block, frames=16)) / count_launches(block),
        "cuda-graph": float(replays_equal(block)),
    }


def count_launches(problem: Problem) -> int:
    """Kernels that a forward and a backward pass launch, but for those that cuDNN's recurrent networks launch."""
    form = forms.build(OURS, problem, problem.model())
    x = problem.features()
    work = form.work(x, torch.randn_like(x), backward=True)
    work.run()
    work.prepare()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        work.run()
        torch.cuda.synchronize()
    events = trace.events()
    launched = sum(event.device_type == DeviceType.CUDA for event in events)
    return launched - sum(len(event.kernels) for event in events if "cudnn" in event.name)


def replays_equal(problem: Problem) -> bool:
    """Whether the whole block, forward and backward, gives the same from a CUDA graph as without one."""
    form = forms.build(OURS, problem, problem.model())
    x = problem.features().requires_grad_()
    gradient = torch.randn_like(x)

    class Call(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = form.module

        def forward(self, x: Tensor) -> Tensor:
            return form.call(x)

    def results(call: torch.nn.Module) -> list[Tensor]:
        inputs = [x, *form.module.parameters()]
        out = call(x)
        return [out.detach().clone(), *(part.clone() for part in torch.autograd.grad(out, inputs, gradient))]

    expected = results(Call())
    captured = torch.cuda.make_graphed_callables(Call(), (torch.randn_like(x).requires_grad_(),))
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(results(captured), expected, strict=True))
