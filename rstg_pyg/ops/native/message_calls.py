"""Calls of the native library on a block of frames and destinations: what messages with a product per edge need but for
the product.

Shape legend: N nodes, E edges in the order of ``neighborhoods``, F frames, H hidden channels, K heads of D message
channels; a block has f frames and e edges, and its rows are ``[f * e, channels]``.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from rstg_pyg.ops.native.calls import KINDS, address, check, check_inputs, expect, library_for, rows_of, strided
from rstg_pyg.ops.neighborhoods import Neighborhoods

BLOCK_ELEMENTS = 1 << 18
"""Elements of a block's hidden rows (1 MiB in float32): enough to hide what the calls cost, little enough to stay in a
core's second-level cache."""

_ARGUMENTS = struct.Struct("37q")


class MessageBlock(NamedTuple):
    """Ranges of destinations, in the order of ``neighborhoods.nodes``, of their edges and of frames."""

    ranks: tuple[int, int]
    edges: tuple[int, int]
    frames: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """Frames and edges."""
        return self.frames[1] - self.frames[0], self.edges[1] - self.edges[0]

    @property
    def num_rows(self) -> int:
        frames, edges = self.shape
        return frames * edges


def message_blocks(neighborhoods: Neighborhoods, num_frames: int, num_channels: int) -> list[MessageBlock]:
    """Blocks that cover all frames and destinations: some frames of a small graph, parts of a frame of a large one."""
    max_rows = max(1, BLOCK_ELEMENTS // max(1, num_channels))
    num_edges, num_nodes = neighborhoods.num_edges, neighborhoods.num_nodes
    if num_edges <= max_rows:
        pieces = -(-num_frames * num_edges // max_rows)
        bounds = [num_frames * piece // pieces for piece in range(pieces + 1)]
        return [
            MessageBlock((0, num_nodes), (0, num_edges), frames) for frames in pairwise(bounds) if frames[0] < frames[1]
        ]
    parts = list(_cut_ranks(neighborhoods.ptr.tolist(), max_rows))
    return [MessageBlock(*part, (frame, frame + 1)) for frame in range(num_frames) for part in parts]


def _cut_ranks(ptr: list[int], max_rows: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    first = 0
    while first < len(ptr) - 1:
        end = max(first + 1, bisect_right(ptr, ptr[first] + max_rows) - 1)
        yield (first, end), (ptr[first], ptr[end])
        first = end


class MessageCall:
    """The arguments that all blocks have in common."""

    def __init__(
        self, src: Tensor, dst: Tensor, alpha: Tensor, edge: Tensor | None, neighborhoods: Neighborhoods
    ) -> None:
        check_inputs(src, dst, edge, neighborhoods)
        expect(alpha, "alpha", alpha.dtype, (neighborhoods.num_edges, src.size(1), alpha.size(-1)), 3)
        self.neighborhoods = neighborhoods
        self.library = library_for(src.dtype)
        self.sum_dtype = torch.float64 if src.dtype == torch.float64 else torch.float32
        self.src, self.dst = strided(src), strided(dst)
        self.edge = None if edge is None else edge.contiguous()
        self.alpha_dtype = alpha.dtype
        self.alpha = alpha.to(self.sum_dtype).contiguous()

    def hidden_rows(self, block: MessageBlock, rows: Tensor) -> None:
        """Fill ``rows`` with the hidden layer, rectified."""
        check(self.library.rstg_hidden_rows(self._pack(block, rows=rows)))

    def message_sums(self, block: MessageBlock, messages: Tensor, total: Tensor) -> None:
        """Rectify ``messages``, weigh them and write their sums to ``total [N, F, K, D]``."""
        check(self.library.rstg_message_sums(self._pack(block, messages=messages, total=total)))

    def message_gradients(
        self, block: MessageBlock, messages: Tensor, grad: Tensor, grad_messages: Tensor, grad_alpha: Tensor | None
    ) -> None:
        """Fill ``grad_messages`` and the block's part of ``grad_alpha`` from the gradient of the sums."""
        packed = self._pack(block, messages=messages, total=grad, grad_messages=grad_messages, grad_alpha=grad_alpha)
        check(self.library.rstg_message_gradients(packed))

    def hidden_gradients(
        self, block: MessageBlock, rows: Tensor, grad_rows: Tensor, grad_src: Tensor, grad_dst: Tensor
    ) -> None:
        """Add to ``grad_src``, which has the type of the sums, and write ``grad_dst`` at the block's destinations.

        Where there are edge features, ``grad_rows`` become their gradient.
        """
        packed = self._pack(block, rows=rows, grad_rows=grad_rows, grad_src=grad_src, grad_dst=grad_dst)
        check(self.library.rstg_hidden_gradients(packed))

    def _pack(
        self,
        block: MessageBlock,
        rows: Tensor | None = None,
        grad_rows: Tensor | None = None,
        messages: Tensor | None = None,
        grad_messages: Tensor | None = None,
        total: Tensor | None = None,
        grad_alpha: Tensor | None = None,
        grad_src: Tensor | None = None,
        grad_dst: Tensor | None = None,
    ) -> bytes:
        """The fields of ``BlockArguments`` in ``messages.h``."""
        index, src, edge = self.neighborhoods, self.src, self.edge
        return _ARGUMENTS.pack(
            KINDS[src.dtype],
            torch.get_num_threads(),
            src.size(0),
            src.size(1),
            src.size(2),
            self.alpha.size(2),
            0 if total is None else total.size(3),
            index.nodes.data_ptr(),
            index.ptr.data_ptr(),
            index.src.data_ptr(),
            *block.ranks,
            *block.frames,
            *rows_of(src),
            *rows_of(self.dst),
            address(edge),
            0 if edge is None else edge.size(1),
            self.alpha.data_ptr(),
            *rows_of(total),
            address(rows),
            address(grad_rows),
            address(messages),
            address(grad_messages),
            address(grad_alpha),
            *rows_of(grad_src),
            *rows_of(grad_dst),
        )
