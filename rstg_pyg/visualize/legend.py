"""The legend of pictures of clips."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rstg_pyg.visualize.clip_set import ClipSet
from rstg_pyg.visualize.palette import COLOURS, MARK, MUTED
from rstg_pyg.visualize.regions import scales_of
from rstg_pyg.visualize.sheet import Sheet


def legend_of(clips: ClipSet, marked: str) -> list[Any]:
    """Return legend entries for what :func:`draw_frame` draws."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries = []
    if clips.marks is not None and not clips.marks.isnan().all():
        entries.append(Patch(facecolor="black", edgecolor=MARK, linewidth=1.5, label=marked))
    if clips.graph is not None:
        for number, (rows, columns) in enumerate(scales_of(clips.graph)):
            colour = COLOURS[number % len(COLOURS)]
            entries.append(
                Line2D(
                    [], [], color=colour, marker="o", linewidth=1.8, markersize=4, label=f"{rows} x {columns} regions"
                )
            )
    if clips.alpha is not None:
        entries.append(
            Line2D([], [], color=MUTED, marker=">", markersize=5, linewidth=1.8, label="attention, sender to receiver")
        )
    return entries


def legend_width(entries: list[Any], columns: int = 1) -> float:
    """Return the inches that the legend needs with its entries in so many columns."""
    if not entries:
        return 0.0
    widths = [0.42 + 0.062 * len(entry.get_label()) for entry in entries]
    return sum(max(column) for column in np.array_split(widths, columns))


def _num_columns(entries: list[Any], width: float) -> int:
    fitting = [columns for columns in range(1, len(entries) + 1) if legend_width(entries, columns) <= width]
    return max(fitting, default=1)


def legend_height(entries: list[Any], width: float) -> float:
    """Return the inches below the frames that the legend needs on a sheet of some width."""
    return 0.22 + 0.2 * math.ceil(len(entries) / _num_columns(entries, width)) if entries else 0.15


def draw_legend(sheet: Sheet, entries: list[Any], middle: float, height: float) -> None:
    """Draw it in the lowest ``height`` inches, about ``middle`` inches from the left."""
    if not entries:
        return
    columns = _num_columns(entries, sheet.width)
    half = legend_width(entries, columns) / 2
    middle = max(min(middle, sheet.width - half), half)
    sheet.figure.legend(
        handles=entries,
        loc="center",
        bbox_to_anchor=(middle / sheet.width, height / 2 / sheet.height),
        ncols=columns,
        fontsize=8,
        frameon=False,
        labelcolor=MUTED,
        handlelength=1.6,
        columnspacing=1.6,
    )
