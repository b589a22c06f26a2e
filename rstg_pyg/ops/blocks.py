"""Cutting edges and frames into blocks that stay in a processor's cache.

Shape legend: N nodes, E edges, F frames (all inner dimensions in one), H channels; a block has n destinations of degree
D, f frames and its edges ``[n * D, f, H]``.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rstg_pyg.ops.index import GraphIndex

JOIN_ELEMENTS = 1 << 17
"""Destinations are joined to one block up to this many elements of their edges (512 KiB in float32): enough to hide
what a call costs."""

CUT_ELEMENTS = 1 << 18
"""Frames are cut where the edges of a destination of mean degree have more elements than this (1 MiB in float32, a
core's second-level cache)."""

_MANY_CHANNELS = 2048
"""From this row size on, ``index_add_`` adds row by row faster than ``scatter_add_`` element by element."""


class Block(NamedTuple):
    """Destinations ``nodes [n]`` of degree D; their edges are ``edges`` of the sorted ones, their sources ``src``."""

    nodes: Tensor
    only_node: int | None
    degree: int
    edges: slice
    src: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.nodes.numel(), self.degree

    def rows(self, value: Tensor) -> Tensor:
        """``value [N, f, H]`` at the block's destinations, ``[n, 1, f, H]``."""
        if self.only_node is not None:
            return value[self.only_node : self.only_node + 1].unsqueeze(1)
        return value.index_select(0, self.nodes).unsqueeze(1)

    def write_sum(self, value: Tensor, out: Tensor) -> None:
        """Sum ``value [n, D, f, H]`` over the neighbours into ``out [N, f, H]`` at the block's destinations."""
        if self.only_node is not None:
            torch.sum(value[0], 0, out=out[self.only_node])
        else:
            out[self.nodes] = value.sum(1)


class Blocks:
    """The blocks of a graph for rows of ``num_channels`` channels over ``num_frames`` frames.

    Frames are cut too where the neighbours of one destination would leave the cache.
    """

    def __init__(
        self,
        index: GraphIndex,
        num_frames: int,
        num_channels: int,
        join_elements: int = JOIN_ELEMENTS,
        cut_elements: int = CUT_ELEMENTS,
    ) -> None:
        self.index = index
        mean_degree = max(1, index.num_edges // max(1, index.num_nodes))
        fitting = max(1, cut_elements // (mean_degree * max(1, num_channels)))
        pieces = max(1, -(-num_frames // fitting))
        self.num_frames = num_frames
        self.frames_per_block = -(-num_frames // pieces)
        self._blocks = list(self._cut(join_elements // max(1, self.frames_per_block * num_channels)))
        self.max_edges = max((block.src.numel() for block in self._blocks), default=0)

    def _cut(self, max_rows: int) -> Iterator[Block]:
        nodes, src = self.index.nodes, self.index.src
        for group in self.index.groups:
            step = min(group.num_nodes, max(1, max_rows // group.degree))
            for start in range(0, group.num_nodes, step):
                n = min(step, group.num_nodes - start)
                members = nodes[group.first_node + start : group.first_node + start + n]
                first = group.first_edge + start * group.degree
                edges = slice(first, first + n * group.degree)
                yield Block(members, int(members[0]) if n == 1 else None, group.degree, edges, src[edges])

    def __iter__(self) -> Iterator[Block]:
        return iter(self._blocks)

    def frames(self) -> Iterator[slice]:
        """Ranges of frames to walk one after the other."""
        for start in range(0, self.num_frames, self.frames_per_block):
            yield slice(start, min(start + self.frames_per_block, self.num_frames))

    def empty_sums(self, like: Tensor, *shape: int) -> Tensor:
        """Room for one sum per destination, ``[N, *shape]``, zero where a node has no neighbours."""
        sums = like.new_empty(self.index.num_nodes, *shape)
        isolated = self.index.num_isolated
        if isolated is None:
            return sums.zero_()
        if isolated > 0:
            sums[self.index.nodes[:isolated]] = 0
        return sums

    def buffer(self, like: Tensor, frames: slice, num_channels: int) -> Tensor:
        """Room for the edges of the largest block."""
        return like.new_empty(self.max_edges, frames.stop - frames.start, num_channels)


def gather_rows(value: Tensor, block: Block, out: Tensor) -> Tensor:
    """Copy ``value [N, f, H]`` at the sources of a block into the buffer ``out``; returns it as ``[n, D, f, H]``."""
    rows = out[: block.src.numel()]
    torch.index_select(value, 0, block.src, out=rows)
    return rows.view(*block.shape, *value.shape[1:])


def add_rows_(out: Tensor, index: Tensor, rows: Tensor) -> None:
    """Add ``rows [M, f, H]`` to ``out [N, f, H]`` at ``index [M]``."""
    width = out[0].numel()
    if width >= _MANY_CHANNELS:
        out.index_add_(0, index, rows)
    else:
        out.view(-1, width).scatter_add_(0, index.unsqueeze(-1).expand(-1, width), rows.reshape(-1, width))


def frames_of(values: Sequence[Tensor], frames: slice) -> list[Tensor]:
    """Node tensors ``[N, F, H]`` cut to some frames, contiguous."""
    return [value[:, frames].contiguous() for value in values]
