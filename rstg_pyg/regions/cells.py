"""Cells of regular grids over a frame, in exact integer arithmetic.

Every border of a cell is a fraction ``i / h`` of the frame, so overlaps and contacts are decided on integers and no
rounding can join or part two regions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

MAX_REGIONS = 2**14
"""As many as a map of 128 x 128 has pixels."""

MAX_PAIRS = 2**24
"""Of regions that touch: the tensors that find their edges take 1 to 2 GB."""

Scale = int | tuple[int, int]
"""A grid of regions: ``s`` for s x s cells, or ``(rows, columns)``."""


def parse_scales(scales: Sequence[Scale]) -> tuple[tuple[int, int], ...]:
    """Return every scale as a ``(rows, columns)`` pair.

    Raises:
        ValueError: If ``scales`` is empty, a scale is neither a positive int nor a pair of them, or there are more than
            2^14 cells.
    """
    if isinstance(scales, (int, str)) or not isinstance(scales, Sequence):
        raise ValueError(
            f"expected 'scales' to be a sequence of grid sizes such as (3, 2, 1) or ((2, 4), 1), got {scales!r}"
        )
    if len(scales) == 0:
        raise ValueError("expected at least one scale such as (3, 2, 1), got an empty sequence")
    pairs = []
    for scale in scales:
        pair = (scale, scale) if _is_int(scale) else scale
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(_is_int(n) and n > 0 for n in pair):
            raise ValueError(
                "expected each scale to be a positive int or a (rows, columns) pair of positive "
                f"ints, got {scale!r} in scales={scales!r}"
            )
        pairs.append((int(pair[0]), int(pair[1])))
    num_cells = sum(rows * columns for rows, columns in pairs)
    if num_cells > MAX_REGIONS:
        raise ValueError(f"expected 'scales' of at most {MAX_REGIONS} cells in all, got {num_cells}")
    return tuple(pairs)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def grid_cells(scales: Sequence[Scale]) -> Tensor:
    """List the cells of all grids: scales in their given order, each row by row.

    Shapes:
        - **output:** ``[N, 4]`` int64, per cell (row, rows of its grid, column, columns of its grid).
    """
    return torch.tensor(
        [
            (row, rows, column, columns)
            for rows, columns in parse_scales(scales)
            for row in range(rows)
            for column in range(columns)
        ]
    )


def cell_boxes(cells: Tensor) -> Tensor:
    """Return normalised boxes (y0, x0, y1, x1), ``[N, 4]`` of the default type, of :func:`grid_cells`."""
    row, rows, column, columns = cells.double().unbind(1)
    box = torch.stack([row / rows, column / columns, (row + 1) / rows, (column + 1) / columns], 1)
    return box.to(torch.get_default_dtype())


def cell_edges(scales: Sequence[Scale]) -> Tensor:
    """Pair the cells that overlap or share a border of positive length, in both directions.

    Two intervals ``[i/h, (i+1)/h]`` and ``[i'/h', (i'+1)/h']`` meet in
    ``min((i+1)h', (i'+1)h) - max(ih', i'h)`` units of ``1/(hh')``: positive for an overlap, 0 for a contact, negative
    for a gap. Cells are joined when neither axis has a gap and one has an overlap; a common corner alone is a contact
    on both axes and joins nothing. Only cells without a gap are looked at: for every cell a block of each grid.

    Shapes:
        - **output:** ``[2, E]``, sorted by destination, then source.

    Raises:
        ValueError: If more than 2^24 pairs have no gap.
    """
    cells = grid_cells(scales)
    rows, columns = torch.tensor(parse_scales(scales)).unbind(1)
    num_pairs = len(cells) * len(rows)
    if num_pairs <= MAX_PAIRS:
        top, height = _without_gap(cells[:, 0, None], cells[:, 1, None], rows)
        left, width = _without_gap(cells[:, 2, None], cells[:, 3, None], columns)
        left, width = left.flatten(), width.flatten()
        in_block = height.flatten() * width
        num_pairs = int(in_block.sum())
    if num_pairs > MAX_PAIRS:
        raise ValueError(f"expected regions of which at most {MAX_PAIRS} pairs touch, got at least {num_pairs}")
    block = torch.arange(len(in_block)).repeat_interleave(in_block)
    place = torch.arange(num_pairs) - (in_block.cumsum(0) - in_block)[block]
    row, column = top.flatten()[block] + place // width[block], left[block] + place % width[block]
    destination, scale = block // len(rows), block % len(rows)
    source = (rows * columns).cumsum(0)[scale] - (rows * columns)[scale] + row * columns[scale] + column
    own = cells[destination]
    meeting = _meeting(own[:, 0], own[:, 1], row, rows[scale]) + _meeting(own[:, 2], own[:, 3], column, columns[scale])
    return torch.stack([source, destination])[:, (meeting > 0) & (source != destination)]


def _without_gap(index: Tensor, count: Tensor, other_count: Tensor) -> tuple[Tensor, Tensor]:
    """First and number of the intervals ``[i'/h', (i'+1)/h']`` without a gap to ``[i/h, (i+1)/h]``."""
    first = (-(-index * other_count // count) - 1).clamp(min=0)
    last = torch.minimum((index + 1) * other_count // count, other_count - 1)
    return first, last - first + 1


def _meeting(index: Tensor, count: Tensor, other: Tensor, other_count: Tensor) -> Tensor:
    end = torch.minimum((index + 1) * other_count, (other + 1) * count)
    return end - torch.maximum(index * other_count, other * count)
