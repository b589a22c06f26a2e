"""Clips as rows of frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.visualize.attention import STRONGEST
from rstg_pyg.visualize.clip_set import Labels, check_clips
from rstg_pyg.visualize.frame import draw_frame
from rstg_pyg.visualize.legend import draw_legend, legend_height, legend_of, legend_width
from rstg_pyg.visualize.palette import INK, MUTED
from rstg_pyg.visualize.predictions import draw_predictions, leading_classes, list_width
from rstg_pyg.visualize.sheet import Sheet, title_height, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL, GAP, MARGIN = 1.7, 0.1, 0.15
"""Inches: height of a frame, between frames, around everything."""


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
    left = MARGIN + (0 if clips.captions is None else caption_width(clips.captions))
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


def caption_width(captions: Sequence[str]) -> float:
    """Return the inches that the longest line needs."""
    return 0.15 + 0.073 * max((len(line) for caption in captions for line in caption.splitlines()), default=0)
