"""How much memory a call takes: the peak of live tensor bytes, and what autograd keeps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile


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
