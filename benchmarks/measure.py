"""Times several forms in turns, so that drift of the machine hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Work:
    """What is timed.

    Attributes:
        run: The timed call. What it allocates, it also frees, unless another call is to use it.
        prepare: An untimed call before each timed one.
    """

    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


def time_interleaved(
    works: Mapping[str, Work], rounds: int, calls: int, device: str, tick: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Return ``rounds * calls`` times of each work in milliseconds.

    In every round each work has one turn: an untimed call, so that it does not pay for the state in which the one
    before it left caches and allocator, then the timed ones. Times at the same place of two lists were taken in the
    same round. On CUDA, events take the time. ``tick`` is called after every turn.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    timed = _cuda_milliseconds if torch.device(device).type == "cuda" else _cpu_milliseconds
    for _ in range(rounds):
        for name, work in works.items():
            work.prepare()
            work.run()
            for _ in range(calls):
                work.prepare()
                times[name].append(timed(work.run))
            tick()
    return times


def _cpu_milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def _cuda_milliseconds(run: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def quartiles(times: list[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile."""
    if len(times) == 1:
        return times[0], times[0], times[0]
    lower, middle, upper = statistics.quantiles(times, n=4, method="inclusive")
    return lower, middle, upper


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """The median of the ratios of times that were taken in the same round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))
