"""Runs forms of problems against each other: equality, time, memory, share of the bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import torch
from torch import Tensor

import forms
from bound import bound_names, bounds
from forms import Form
from measure import Work, median_ratio, peak_bytes, quartiles, time_interleaved
from problem import Problem

COMPILED = " compiled"


@dataclass(frozen=True)
class Settings:
    """How to compare.

    Attributes:
        names: Forms that take part, those of them that a problem has; None for all.
        rounds, calls: See :func:`measure.time_interleaved`.
        compile_mode: Mode of ``torch.compile`` for a second row per form; None for eager rows alone.
        compiled_names: Forms that get that row; None for all.
        memory: Whether to measure the peak memory too.
        memory_limit: Bytes above which a form is left out.
    """

    names: Sequence[str] | None = None
    rounds: int = 7
    calls: int = 2
    compile_mode: str | None = None
    compiled_names: Sequence[str] | None = None
    memory: bool = True
    memory_limit: float = 8e9


@dataclass(frozen=True)
class Row:
    """One form on one problem.

    Attributes:
        times: Milliseconds, in the order in which they were taken; empty for a form that did not take part.
        peak: Bytes above parameters, their gradients and the input.
        bound: Times of the lower bound in the same rounds, for the forms that compute the package's function.
        note: Why a form did not take part.
    """

    problem: Problem
    backward: bool
    name: str
    times: list[float] = field(default_factory=list)
    peak: int | None = None
    bound: list[float] | None = None
    note: str = ""

    @property
    def quartiles(self) -> tuple[float, float, float]:
        return quartiles(self.times)

    @property
    def frames_per_second(self) -> float:
        return 1000 * self.problem.num_frames / self.quartiles[1]

    @property
    def messages_per_second(self) -> float:
        return self.frames_per_second * self.problem.graph.num_edges * (self.problem.num_stages or 1)

    @property
    def share_of_bound(self) -> float | None:
        return None if self.bound is None else median_ratio(self.bound, self.times)


def count_turns(problems: Sequence[Problem], settings: Settings) -> int:
    """How often :func:`compare` calls ``tick`` for one pass."""
    total = 0
    for problem in problems:
        taking_part = [name for name in _names(problem, settings) if not _why_not(name, problem, settings)]
        chosen = taking_part if settings.compiled_names is None else settings.compiled_names
        total += len(bound_names(problem)) + len(taking_part)
        total += 0 if settings.compile_mode is None else len(chosen)
    return total * settings.rounds


def compare(
    problems: Sequence[Problem], backward: bool, settings: Settings, tick: Callable[[], object] = lambda: None
) -> list[Row]:
    """Compare all forms on all problems, in turns; before that hold those of one function against each other."""
    if settings.compile_mode is not None:
        torch._dynamo.reset()  # or the guards of what was compiled for other problems are tried at every call
    works: dict[tuple[int, str], Work] = {}
    rows: dict[tuple[int, str], Row] = {}
    for number, problem in enumerate(problems):
        taking_part = _check_and_build(problem, settings)
        x = problem.features()
        gradient = torch.randn_like(x)
        for name in _names(problem, settings):
            note = _why_not(name, problem, settings)
            if note is not None:
                rows[number, name] = Row(problem, backward, name, note=note)
                continue
            for variant in (name, f"{name}{COMPILED}"):
                if variant not in taking_part:
                    continue
                form = taking_part[variant]
                works[number, variant] = work = form.work(x, gradient, backward)
                peak = _peak(form, work, problem.device) if settings.memory else None
                rows[number, variant] = Row(problem, backward, variant, peak=peak)
        for name, run in bounds(problem, backward).items():
            works[number, name] = Work(run)
            rows[number, name] = Row(problem, backward, name)

    times = time_interleaved(works, settings.rounds, settings.calls, problems[0].device, tick)
    done = []
    for (number, name), row in rows.items():
        if row.note:
            done.append(row)
            continue
        bound = None
        if name.removesuffix(COMPILED) not in forms.OTHER_FUNCTIONS:
            bound = min((times[number, one] for one in bound_names(row.problem)), key=median)
        done.append(replace(row, times=times[number, name], bound=bound))
    return done


def ratio(numerator: Row, denominator: Row) -> float:
    """The median ratio of the times of two rows of one comparison."""
    return median_ratio(numerator.times, denominator.times)


def _names(problem: Problem, settings: Settings) -> list[str]:
    return [name for name in forms.names(problem) if settings.names is None or name in settings.names]


def _why_not(name: str, problem: Problem, settings: Settings) -> str | None:
    return forms.why_not(name, problem, settings.memory_limit)


def _check_and_build(problem: Problem, settings: Settings) -> dict[str, Form]:
    """The forms that take part; a problem of low precision is checked in float32 too, where gradients can be."""
    names = [name for name in _names(problem, settings) if not _why_not(name, problem, settings)]
    for twin in dict.fromkeys((replace(problem, dtype=torch.float32), problem)):
        model = twin.model()
        built = {name: forms.build(name, twin, model) for name in names}
        x = twin.features()
        gradient = torch.randn_like(x)
        assert_equal(built, x, gradient)
    if settings.compile_mode is not None:
        torch._dynamo.config.allow_rnn = True
        torch._dynamo.config.recompile_limit = 1000
        chosen = built if settings.compiled_names is None else settings.compiled_names
        compiled = {f"{name}{COMPILED}": built[name].compiled(settings.compile_mode) for name in chosen}
        assert_equal(compiled, x, gradient)
        built |= compiled
    return built


def _peak(form: Form, work: Work, device: str) -> int:
    work.prepare()
    work.run()
    work.prepare()
    parameters = list(form.module.parameters())
    return peak_bytes(work.run, device, lambda: [value.grad for value in parameters if value.grad is not None])


OUTPUT_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Largest norm of a difference, relative to the norm of the tensor."""

GRADIENT_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-2}
"""The same for gradients. A rounding that moves a value over the kink of a ReLU switches a gradient on or off: in
float32 that befalls a few of millions of values, in bfloat16 so many that gradients cannot be compared."""


def results(form: Form, x: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """The output and the gradients of a form for node features ``[N, B, T, C]`` and the gradient of the output."""
    x, gradient = form.pack(x).detach().contiguous().requires_grad_(), form.pack(gradient)
    form.module.zero_grad(set_to_none=True)
    out = form.call(x)
    out.backward(gradient)
    found = {"output": form.unpack(out.detach()), "gradient of the input": form.unpack(x.grad)}
    return found | {f"gradient of {name}": value for name, value in form.gradients().items()}


def assert_equal(built: Mapping[str, Form], x: Tensor, gradient: Tensor) -> None:
    """Raise unless all forms of the package's function give the same output and gradients up to rounding."""
    expected: dict[str, Tensor] = {}
    for name, form in built.items():
        if form.gradients is None:
            continue
        found = results(form, x, gradient)
        form.module.zero_grad(set_to_none=True)
        expected = expected or found
        for what, value in expected.items():
            tolerances = OUTPUT_TOLERANCE if what == "output" else GRADIENT_TOLERANCE
            error, norm = (found[what] - value).float().norm(), value.float().norm()
            if not error <= tolerances.get(x.dtype, math.inf) * norm:
                raise AssertionError(f"form {name!r}: the {what} of norm {norm:.1e} is off by {error:.1e}")
