"""The accuracy for every pair of digits as a matrix."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rstg_pyg.visualize.pair_counting import PairAccuracy
from rstg_pyg.visualize.palette import FAINT, INK, MUTED
from rstg_pyg.visualize.sheet import Sheet, title_height, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

CELL, LEFT, TOP, BOTTOM = 0.46, 0.6, 0.15, 0.55
"""Inches: a cell, and the borders around the matrix."""


def draw_pair_accuracy(pairs: PairAccuracy, title: str | None = None, lowest: float | None = None) -> Figure:
    """Draw the accuracy for every pair of digits, and where no two move in step, in percent; cells without clips are
    hatched.

    Args:
        pairs: What :func:`pair_accuracy` returns.
        title: A line above it.
        lowest: Where the colours start (default: the least accuracy, rounded down to a tenth).

    Returns:
        A matplotlib figure; save it with ``figure.savefig(path)``.

    Shapes:
        - **pairs.accuracy, pairs.counts:** ``[10, 10]``.

    Raises:
        ValueError: If there is no clip at all, or ``lowest`` is not within 0 to 1.

    Source: SyncMNIST in "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> import torch
        >>> from rstg_pyg.visualize import draw_pair_accuracy, pair_accuracy
        >>> labels, guesses = torch.randint(46, (500,)), torch.randint(46, (500,))
        >>> draw_pair_accuracy(pair_accuracy(labels, guesses), "guesses").savefig("pairs.png")
    """
    from matplotlib import colormaps

    below = pairs.counts.tril(-1)
    total = int(below.sum()) + pairs.none[1]
    if total == 0:
        raise ValueError("expected the accuracy of at least one clip, got none")
    known = [*pairs.accuracy[below > 0].tolist(), *([pairs.none[0]] if pairs.none[1] else [])]
    lowest = min(math.floor(10 * min(known)) / 10, 0.9) if lowest is None else lowest
    if not 0 <= lowest < 1:
        raise ValueError(f"expected 'lowest' to be at least 0 and less than 1, got {lowest}")
    side = 9 * CELL
    title = wrapped(title, side)
    top = TOP + title_height(title)
    sheet = Sheet(LEFT + side + 0.2, top + side + BOTTOM)
    sheet.title(LEFT, title)
    ax = sheet.axes(LEFT, top, side, side)
    ax.set(xlim=(-0.5, 8.5), ylim=(9.5, 0.5), xticks=range(9), yticks=range(1, 10))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, colors=INK, labelsize=10)
    ax.set_xlabel("smaller digit", color=MUTED, fontsize=9)
    ax.set_ylabel("larger digit", color=MUTED, fontsize=9)
    colours = colormaps["YlGnBu"]
    for high in range(1, 10):
        for low in range(high):
            _draw_cell(ax, low, high, float(pairs.accuracy[high, low]), int(below[high, low]), lowest, colours)
    # The upper triangle is free.
    _draw_cell(ax, 8, 3.3, *pairs.none, lowest, colours)
    ax.text(7.35, 3.3, "no two in step", ha="right", va="center", fontsize=9, color=MUTED)
    right = round(sum(value * count for value, count in _cells(pairs) if count))
    share = f"{100 * (right / total):.1f} %"
    ax.text(8.5, 0.85, share, ha="right", va="baseline", fontsize=20, color=INK, weight="bold")
    ax.text(8.5, 1.3, f"right of {total:,} clips", ha="right", va="baseline", fontsize=9, color=MUTED)
    _draw_scale(sheet.axes(LEFT + 5.5 * CELL, top + 1.45 * CELL, 3.5 * CELL, 0.12), lowest, colours)
    return sheet.figure


def _cells(pairs: PairAccuracy) -> list[tuple[float, int]]:
    lower = [(float(pairs.accuracy[i, j]), int(pairs.counts[i, j])) for i in range(10) for j in range(i)]
    return [*lower, pairs.none]


def _draw_cell(ax: Axes, x: float, y: float, value: float, count: int, lowest: float, colours: Colormap) -> None:
    """Draw a cell around (x, y): its accuracy in percent, or hatched where there was no clip."""
    from matplotlib.patches import FancyBboxPatch

    shade = min(max((value - lowest) / (1 - lowest), 0.0), 1.0) if count else 0.0
    look = {"facecolor": colours(0.05 + 0.85 * shade)} if count else {"facecolor": "white", "hatch": "/////"}
    ax.add_patch(
        FancyBboxPatch(
            (x - 0.45, y - 0.45),
            0.9,
            0.9,
            boxstyle="round,pad=0,rounding_size=0.1",
            edgecolor=FAINT if not count else "none",
            linewidth=0.8,
            **look,
        )
    )
    if count:
        colour = "white" if shade > 0.55 else INK
        ax.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=10, color=colour)


def _draw_scale(ax: Axes, lowest: float, colours: Colormap) -> None:
    """Draw what the colours mean."""
    shades = [[0.05 + 0.85 * step / 63 for step in range(64)]]
    ax.imshow(shades, cmap=colours, vmin=0, vmax=1, aspect="auto", extent=(100 * lowest, 100, 0, 1))
    ax.spines[:].set_visible(False)
    ax.set(yticks=[], xticks=[100 * lowest, 50 + 50 * lowest, 100])
    ax.xaxis.set_major_formatter("{x:.0f} %")
    ax.tick_params(length=0, labelsize=7.5, colors=MUTED)
