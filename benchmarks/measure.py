"""How long calls take, in turns so that drift of the machine hits all alike, and how much memory."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile


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
    works: Mapping[str, Work],
    rounds: int,
    calls: int,
    device: str,
    tick: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return ``rounds * calls`` times of each work in milliseconds.

    In every round each work has one turn: an untimed call, so that it does not pay for the state in which the one
    before it left caches and allocator, then the timed ones. Times at the same place of two lists were taken in the
    same round. On CUDA, events take the time, else ``clock``: that of the process stands still while others run.
    ``tick`` is called after every turn.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    timed = _cuda_milliseconds if torch.device(device).type == "cuda" else partial(_cpu_milliseconds, clock)
    for _ in range(rounds):
        for name, work in works.items():
            work.prepare()
            work.run()
            for _ in range(calls):
                work.prepare()
                times[name].append(timed(work.run))
            tick()
    return times


def _cpu_milliseconds(clock: Callable[[], float], run: Callable[[], object]) -> float:
    start = clock()
    run()
    return 1000 * (clock() - start)


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


def peak_bytes(run: Callable[[], object], device: str, ignored: Callable[[], Iterable[Tensor]] = lambda: ()) -> int:
    """The most bytes of tensors that live at once of those that ``run`` allocates.

    The allocator reports every allocation and release to the profiler; releases of what was there before do not count.
    Tensors that ``ignored()`` names after the call count at no time: the gradients of parameters, say, which stay.
    """
    trace = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with _no_stderr():
        trace.start()
    kept = run()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    with _no_stderr():
        trace.stop()
    # Tensors that `run` returns must be alive up to here, or their memory could pass for that of an ignored one.
    ignored_pointers = {tensor.untyped_storage().data_ptr() for tensor in ignored()}
    del kept
    events = _allocations(trace.profiler.kineto_results.experimental_event_tree(), torch.device(device).type)
    events = sorted(events, key=lambda event: event[0])

    last_of_pointer = {pointer: number for number, (_, pointer, size) in enumerate(events) if size > 0}
    skipped = {last_of_pointer[pointer] for pointer in ignored_pointers if pointer in last_of_pointer}
    alive: dict[int, int] = {}
    current = peak = 0
    for number, (_, pointer, size) in enumerate(events):
        if size > 0 and number not in skipped:
            alive[pointer] = size
            current += size
            peak = max(peak, current)
        elif size < 0:
            current -= alive.pop(pointer, 0)
    return peak


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Drop what is written to stderr, by C++ too: the profiler announces its start and its end there."""
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _allocations(events: Iterable[Any], device_type: str) -> Iterator[tuple[int, int, int]]:
    """(time, address, signed size) of every allocation and release in a tree of profiler events."""
    stack = list(events)
    while stack:
        event = stack.pop()
        stack.extend(event.children)
        if event.name == "[memory]" and event.extra_fields.device.type == device_type:
            yield event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size


def saved_bytes(run: Callable[[], object], ignored: Iterable[Tensor]) -> int:
    """Bytes of the storages that autograd keeps for the backward pass of what ``run`` returns, each counted once.

    The storages of ``ignored``, the parameters say, do not count.
    """
    ignored_pointers = {tensor.untyped_storage().data_ptr() for tensor in ignored}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ignored_pointers:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = run()
    del kept
    return sum(storages.values())
