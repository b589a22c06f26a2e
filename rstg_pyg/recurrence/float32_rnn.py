"""Recurrent networks of cuDNN under bfloat16 autocast.

Shape legend: R sequences, T frames, C channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from rstg_pyg.watched import everything_is_watched


def autocast_takes_float16(rows: Tensor) -> bool:
    """Whether PyTorch would run a recurrent network in float16 there, though bfloat16 was asked for: so it does on CUDA
    wherever autocast is on. The small gradients of a mean over many clips and frames become 0 then, for nothing scales
    a loss that is to be trained in bfloat16."""
    return rows.is_cuda and torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.bfloat16


def run_rnn(rnn: Module, rows: Tensor, memory: Any | None = None) -> tuple[Tensor, Any]:
    """Return what ``rnn`` gives; where autocast would take float16, without autocast, in the type of its weights. Where
    somebody follows the operations, it is made of several, not of oneDNN's one.

    Shapes:
        - **rows:** ``[R, T, C]``. **memory:** what ``rnn`` takes, of any type. **output:** as of ``rnn``.

    Raises:
        ValueError: If it has more layers than one or two directions: nothing carries the state of the others.

    Source: this package's.

    Example:
        >>> import torch
        >>> from rstg_pyg.recurrence.float32_rnn import run_rnn
        >>> run_rnn(torch.nn.GRU(4, 4, batch_first=True), torch.randn(3, 5, 4))[0].shape
        torch.Size([3, 5, 4])
    """
    if autocast_takes_float16(rows):
        dtype = next(rnn.parameters()).dtype
        if memory is not None:
            memory = tuple(part.to(dtype) for part in memory) if isinstance(memory, tuple) else memory.to(dtype)
        with torch.autocast(rows.device.type, enabled=False):
            out, last = rnn(rows.to(dtype), memory)
    else:
        with _without_onednn() if everything_is_watched() else nullcontext():
            out, last = rnn(rows, memory)
    layers = (last[0] if isinstance(last, tuple) else last).size(0)
    if layers != 1:
        raise ValueError(f"expected a recurrent network of one layer and one direction, got {layers} in {rnn}")
    return out, last


def is_lstm(rnn: Module, kind: str) -> bool:
    """Whether the state of ``rnn`` is a pair; ``kind`` tells of modules that stand around such a network."""
    return getattr(rnn, "mode", kind.upper()) == "LSTM"


@contextmanager
def _without_onednn() -> Iterator[None]:
    enabled = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = enabled
