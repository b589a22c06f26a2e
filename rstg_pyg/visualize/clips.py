"""Clips as rows of frames, with a legend and the most probable classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.visualize.clip_set import ClipSet, Labels, check_clips, draw_frame
from rstg_pyg.visualize.regions import STRONGEST, scales_of
from rstg_pyg.visualize.sheet import COLOURS, FAINT, INK, MARK, MUTED, TRUE, Sheet, title_height, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PANEL, GAP, MARGIN = 1.7, 0.1, 0.15
"""Inches: height of a frame, between frames, around everything."""

SIGN = " (true)"
CHARACTER, NUMBER = 0.068, 0.42
"""Inches that a character of a name and the column of probabilities need."""


def draw_clips(
    videos: Tensor,
    graph: Data | None = None,
    alpha: Tensor | None = None,
    captions: Sequence[str] | None = None,
    marks: Tensor | None = None,
    num_frames: int = 5,
    strongest: int = STRONGEST,
    title: str | None = None,
    probabilities: Tensor | None = None,
    labels: Labels | None = None,
    classes: Sequence[str] | None = None,
    marked: str = "digits in step",
) -> Figure:
    """Draw clips as rows of frames with the regions, the strongest attention edges and the most probable classes.

    Args:
        videos: Clips; uint8, floats within 0..1, or any other range, which is stretched.
        graph: The region graph, or None to draw no regions.
        alpha: Attention weights, or None to draw no arrows. The arrows are those of :func:`draw_attention`.
        captions: A text per clip, to its left.
        marks: Boxes (y0, x0, y1, x1) in pixels, the things to look at, such as :func:`digits_in_step` returns. NaN for
            none.
        num_frames: Number of frames shown, spread over the clip.
        strongest: Number of edges per frame.
        title: A line above everything.
        probabilities: Of the classes; the three greatest are listed beside a clip. With a time axis, those after the
            last frame.
        labels: The true classes, which are listed too and stand out.
        classes: Names of the classes, such as :func:`pair_names` (default: their numbers).
        marked: What the legend calls the marks.

    Returns:
        A matplotlib figure; save it with ``figure.savefig(path)``.

    Shapes:
        - **videos:** ``[n, T, H, W]`` or ``[n, T, H, W, 3]``. **alpha:** ``[E, n, T]``. **marks:** ``[n, T, K, 4]``.
        - **probabilities:** ``[n, M]`` or ``[n, T, M]``. **labels:** ``[n]``.

    Raises:
        ValueError: If the shapes do not fit each other, or a label is none of the classes.

    Source: the attention of "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> import torch
        >>> from rstg_pyg import FrameCNN, RSTGToVec, VideoClassifier
        >>> from rstg_pyg.visualize import draw_clips, explain_clips, pair_names
        >>> net = VideoClassifier(FrameCNN(1, (16, 32)), RSTGToVec(32, 16), num_classes=46)
        >>> seen = explain_clips(net, torch.rand(2, 1, 10, 32, 32))
        >>> figure = draw_clips(
        ...     seen.video, seen.graph, seen.alpha, probabilities=seen.probabilities, classes=pair_names()
        ... )
        >>> figure.savefig("clips.png")
    """
    clips = check_clips(videos, graph, alpha, captions, marks, probabilities, labels, classes)
    if num_frames < 1:
        raise ValueError(f"expected 'num_frames' to be at least 1, got {num_frames}")
    shown = torch.linspace(0, clips.num_frames - 1, min(num_frames, clips.num_frames)).round().long().tolist()
    height, width = clips.size
    panel = PANEL * min(max(width / height, 0.4), 2.5)
    left = MARGIN + (0 if clips.captions is None else _caption_width(clips.captions))
    list_inches = 0 if clips.probabilities is None else list_width(clips.names)
    bars = 2 * GAP + list_inches if list_inches else 0
    legend = legend_of(clips, marked)
    frames_width = len(shown) * (panel + GAP) - GAP
    needed = left + frames_width + bars + MARGIN
    sheet_width = max(needed, legend_width(legend))
    left += (sheet_width - needed) / 2
    title = wrapped(title, sheet_width - 2 * MARGIN)
    top = 0.32 + title_height(title)
    bottom = legend_height(legend, sheet_width)
    sheet = Sheet(sheet_width, top + len(clips) * (PANEL + GAP) - GAP + bottom)
    sheet.title(sheet.width / 2, title, ha="center")
    for clip in range(len(clips)):
        y = top + clip * (PANEL + GAP)
        if clips.captions is not None:
            style = {"fontsize": 9, "color": INK, "ha": "right", "va": "center", "linespacing": 1.4}
            sheet.text(left - 0.12, y + PANEL / 2, clips.captions[clip], **style)
        for column, t in enumerate(shown):
            x = left + column * (panel + GAP)
            draw_frame(sheet.axes(x, y, panel, PANEL), clips, clip, t, strongest)
            if clip == 0:
                sheet.text(x + panel / 2, y - 0.07, f"frame {t + 1}", fontsize=8.5, color=MUTED, ha="center")
        if clips.probabilities is not None:
            last, label = clips.probabilities[clip, -1], clips.labels[clip]
            listed = leading_classes(last, label)
            x = left + frames_width + 2 * GAP
            draw_predictions(sheet.axes(x, y, list_inches, PANEL), last, listed, clips.names, label, rows=4)
            if clip == 0:
                sheet.text(x, y - 0.07, "predicted", fontsize=8.5, color=MUTED)
    draw_legend(sheet, legend, left + frames_width / 2, bottom)
    return sheet.figure


def _caption_width(captions: Sequence[str]) -> float:
    """Return the inches that the longest line needs."""
    return 0.15 + 0.073 * max((len(line) for caption in captions for line in caption.splitlines()), default=0)


def legend_of(clips: ClipSet, marked: str) -> list[Any]:
    """Return legend entries for what :func:`draw_frame` draws."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries = []
    if clips.marks is not None and not clips.marks.isnan().all():
        entries.append(Patch(facecolor="black", edgecolor=MARK, linewidth=1.5, label=marked))
    if clips.graph is not None:
        for number, (rows, columns) in enumerate(scales_of(clips.graph)):
            style = {"color": COLOURS[number % len(COLOURS)], "marker": "o", "markersize": 4, "linewidth": 1.8}
            entries.append(Line2D([], [], label=f"{rows} x {columns} regions", **style))
    if clips.alpha is not None:
        style = {"color": MUTED, "marker": ">", "markersize": 5, "linewidth": 1.8}
        entries.append(Line2D([], [], label="attention, sender to receiver", **style))
    return entries


def legend_width(entries: list[Any], columns: int = 1) -> float:
    """Return the inches that the legend needs with its entries in so many columns."""
    if not entries:
        return 0.0
    widths = [0.42 + 0.062 * len(entry.get_label()) for entry in entries]
    return sum(max(column) for column in np.array_split(widths, columns))


def _num_columns(entries: list[Any], width: float) -> int:
    return max((n for n in range(1, len(entries) + 1) if legend_width(entries, n) <= width), default=1)


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
    style = {"fontsize": 8, "frameon": False, "labelcolor": MUTED, "handlelength": 1.6, "columnspacing": 1.6}
    place = (middle / sheet.width, height / 2 / sheet.height)
    sheet.figure.legend(handles=entries, loc="center", bbox_to_anchor=place, ncols=columns, **style)


def leading_classes(probabilities: Tensor, label: int | None, count: int = 3) -> list[int]:
    """Return the ``count`` most probable classes of ``[M]``, and the true one where it is not among them."""
    leading = probabilities.topk(min(count, probabilities.numel())).indices.tolist()
    return leading if label is None or label in leading else [*leading, label]


def list_width(names: Sequence[str]) -> float:
    """Return the inches that a list of classes needs, or gets where names are very long."""
    longest = max(map(len, names), default=0)
    return min(max(CHARACTER * (longest + len(SIGN)) + NUMBER, 1.2), 2.3)


def draw_predictions(
    ax: Axes, probabilities: Tensor, classes: Sequence[int], names: Sequence[str], label: int | None, rows: int
) -> None:
    """Draw a row per class: its name, its probability and a bar; the true class in a colour of its own.

    Shapes:
        - **probabilities:** ``[M]``. **rows:** number of rows that there is room for.
    """
    room = int((ax.get_position().width * ax.figure.get_figwidth() - NUMBER) / CHARACTER)
    ax.set(xlim=(0, 1), ylim=(rows, 0), xticks=[], yticks=[])
    ax.axis("off")
    for row, index in enumerate(classes):
        value, is_true = float(probabilities[index]), index == label
        colour = TRUE if is_true else MUTED
        look = {"color": TRUE, "weight": "bold"} if is_true else {"color": INK, "weight": "normal"}
        style = {"fontsize": 7.5, "va": "baseline", **look}
        name, longest = names[index], room - len(SIGN) * is_true
        name = name if len(name) <= longest else name[: longest - 1].rstrip() + "…"
        ax.text(0, row + 0.56, name + SIGN * is_true, **style)
        ax.text(1, row + 0.56, f"{value:.0%}", ha="right", **style)
        ax.barh(row + 0.76, 1, height=0.14, color=FAINT)
        ax.barh(row + 0.76, value, height=0.14, color=colour, alpha=1 if is_true else 0.75)
