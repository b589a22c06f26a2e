"""How the Triton kernels cut their work into tiles: one program per node, block of rows and block of channels.

A program walks the edges of its node, some at a time. A row is a frame, or a frame of one head.
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_CHANNELS = 512
# Elements of a tile for each edge: below the first number there are more lanes than work; up to the second a tile takes
# several rows; beyond the third one row alone would spill registers.
MIN_ELEMENTS = 128
ELEMENTS = 1024
MAX_ELEMENTS = 4096


class Tiling(NamedTuple):
    """Block sizes, powers of two, and how many blocks cover the rows and the channels."""

    block_r: int
    block_c: int
    row_blocks: int
    channel_blocks: int

    def grid(self, num_nodes: int) -> tuple[int]:
        return (num_nodes * self.row_blocks * self.channel_blocks,)


def tiling(num_rows: int, channels: int, per_row: int = 1) -> Tiling:
    """Tiles for ``[num_rows, per_row, channels]`` at each node; ``per_row`` is a power of two that is never cut."""
    widest = max(min(MAX_CHANNELS, MAX_ELEMENTS // per_row), 16)
    block_c = triton.next_power_of_2(channels) if channels <= widest else _block(channels, widest, smallest=64)
    row = per_row * block_c
    block_r = _block(num_rows, max(ELEMENTS // row, 1), smallest=max(MIN_ELEMENTS // row, 1))
    return Tiling(block_r, block_c, triton.cdiv(num_rows, block_r), triton.cdiv(channels, block_c))


def _block(size: int, largest: int, smallest: int) -> int:
    """The largest power of two whose blocks cover ``size`` with at most a quarter of it as padding, within limits."""
    block = min(triton.next_power_of_2(size), largest)
    while block > smallest and 4 * triton.cdiv(size, block) * block > 5 * size:
        block //= 2
    return block


def accumulator(*tensors: Tensor) -> tl.dtype:
    """The type that sums run in: float32, or float64 where an input has it."""
    return tl.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else tl.float32


def sum_dtype(*tensors: Tensor) -> torch.dtype:
    """:func:`accumulator` as a type of tensors."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def device_of(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Launch on the tensor's device, whichever is the current one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


@triton.jit
def locate(num_nodes, num_rows, block_r: tl.constexpr, block_c: tl.constexpr):
    """This program's node (or rank of a node), first row and first channel.

    Neighbouring programs take neighbouring nodes and the same rows: what a step of all nodes reads then fits the cache
    together.
    """
    program = tl.program_id(0)
    block = program // num_nodes
    row_blocks = (num_rows + block_r - 1) // block_r
    return program % num_nodes, (block % row_blocks) * block_r, (block // row_blocks) * block_c


def tuned(*key: str) -> Callable:
    """Choose the edges per step ``block_e`` and the number of warps by timing, once for each value of ``key``.

    The timing happens in the first call, which must not be under the capture of a CUDA graph. The interpreter, for
    which ``triton.jit`` makes no ``JITFunction``, times nothing.
    """
    if not isinstance(locate, triton.JITFunction):
        return triton.autotune([triton.Config({"block_e": 4})], key=list(key))
    choices = [triton.Config({"block_e": edges}, num_warps=warps) for warps in (1, 2, 4) for edges in (1, 2, 4, 8)]
    return triton.autotune(choices, key=list(key), prune_configs_by={"early_config_prune": _that_fill_registers})


def _that_fill_registers(choices: list[triton.Config], arguments: dict[str, Any], **sizes: Any) -> list[triton.Config]:
    """The choices that give a thread 8 to 32 elements of a tile; where there is none, the one that is nearest."""
    per_edge = math.prod(sizes.get(name, 1) for name in ("block_f", "block_k", "block_r", "block_c"))
    share = {choice: choice.kwargs["block_e"] * per_edge / (32 * choice.num_warps) for choice in choices}
    fitting = [choice for choice in choices if 8 <= share[choice] <= 32]
    return fitting or [min(choices, key=lambda choice: abs(math.log(share[choice] / 16)))]
