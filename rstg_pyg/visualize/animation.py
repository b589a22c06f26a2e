"""Clips in motion."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.arguments import check_positive, whole_number
from rstg_pyg.datasets.video.video_files import gif_frames
from rstg_pyg.files import replacing
from rstg_pyg.visualize.clip_set import ClipSet, Labels, check_clips, draw_frame
from rstg_pyg.visualize.clips import (
    draw_legend,
    draw_predictions,
    leading_classes,
    legend_height,
    legend_of,
    legend_width,
)
from rstg_pyg.visualize.regions import STRONGEST
from rstg_pyg.visualize.sheet import FAINT, INK, MUTED, TRUE, WRONG, Sheet, title_height, wrapped

if TYPE_CHECKING:
    from matplotlib.animation import AbstractMovieWriter
    from matplotlib.figure import Figure

PANEL, GAP, MARGIN, ROW, LINE = 1.8, 0.18, 0.15, 0.29, 0.18
"""Inches: height of a frame, between clips, around everything, height of a listed class, of the line of time."""


def animate_clips(
    videos: Tensor,
    graph: Data | None,
    alpha: Tensor | None,
    path: str | os.PathLike,
    fps: float = 3,
    captions: Sequence[str] | None = None,
    marks: Tensor | None = None,
    strongest: int = STRONGEST,
    title: str | None = None,
    probabilities: Tensor | None = None,
    labels: Labels | None = None,
    classes: Sequence[str] | None = None,
    marked: str = "digits in step",
    columns: int = 4,
    hold: int = 3,
    dpi: float = 90,
) -> None:
    """Write clips side by side as a moving picture: regions, attention edges, marks, and what the model says so far.

    Above a clip stands the predicted class with its probability, below it the three classes that lead in the end, and
    the true one where it is not among them.

    Args:
        videos: Clips, see :func:`draw_clips`, as are the arguments that are not listed here.
        graph: The region graph, or None to draw no regions.
        alpha: Attention weights, or None to draw no arrows.
        path: Where to write: a GIF, or an MP4 where its name ends in ``.mp4``; that needs the program ffmpeg. After an
            error, what was there before still is.
        fps: Frames per second; above 50, some are left out of a GIF, which plays as long.
        captions: A text of one line per clip, in the place of the predicted class.
        probabilities: Of the classes, with a time axis those after each frame (``frame_probabilities`` of
            :func:`explain_clips`).
        columns: Number of clips in a row.
        hold: How many frames long the last frame stays.
        dpi: Pixels per inch; a clip is about 2 inches wide.

    Shapes:
        - **videos:** ``[n, T, H, W]`` or ``[n, T, H, W, 3]``. **alpha:** ``[E, n, T]``. **marks:** ``[n, T, K, 4]``.
        - **probabilities:** ``[n, M]`` or ``[n, T, M]``. **labels:** ``[n]``.

    Raises:
        ValueError: If the shapes do not fit each other, a number is out of its range, or ``path`` ends in something
            else.
        RuntimeError: If an MP4 is asked for and ffmpeg is not there.
        FileNotFoundError: If there is no such folder.

    Source: the attention of "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> import torch
        >>> from rstg_pyg import FrameCNN, RSTGToVec, VideoClassifier
        >>> from rstg_pyg.visualize import animate_clips, explain_clips
        >>> net = VideoClassifier(FrameCNN(1, (16, 32)), RSTGToVec(32, 16, scales=(2, 1)), num_classes=46)
        >>> seen = explain_clips(net, torch.rand(1, 1, 2, 32, 32), every_frame=True)
        >>> animate_clips(seen.video, seen.graph, seen.alpha, "clip.gif", probabilities=seen.frame_probabilities)
    """
    clips = check_clips(videos, graph, alpha, captions, marks, probabilities, labels, classes)
    check_positive(columns=columns, hold=hold)
    strongest = whole_number("strongest", strongest, 0)
    path = Path(path)
    writer, shown = movie_writer(path, fps, dpi, clips.num_frames + hold - 1)
    page = _Page(clips, title, marked, columns, strongest)
    with saving(writer, page.sheet.figure, path, dpi):
        for place in shown:
            page.show(min(place, clips.num_frames - 1))
            writer.grab_frame()


def movie_writer(path: Path, fps: float, dpi: float, number: int) -> tuple[AbstractMovieWriter, Sequence[int]]:
    """What writes a GIF or an MP4 of ``number`` frames, and which of them it is to be given: of a GIF those that it can
    show, and the last one, however short."""
    from matplotlib.animation import FFMpegWriter, PillowWriter

    class GifWriter(PillowWriter):
        """Every frame has a delay of its own, and is kept in a byte per pixel."""

        def grab_frame(self, **kwargs: Any) -> None:
            super().grab_frame(**kwargs)
            self._frames[-1] = self._frames[-1].quantize(256)

        def finish(self) -> None:
            delays = [10 * (after - before) for before, after in pairwise([*times, end])]
            self._frames[0].save(self.outfile, save_all=True, append_images=self._frames[1:], duration=delays, loop=0)

    if not (fps > 0 and dpi > 0):
        raise ValueError(f"expected 'fps' and 'dpi' to be positive, got {fps} and {dpi}")
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise ValueError(f"expected 'path' to end in .gif or .mp4, got {str(path)!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"expected a folder to write {str(path)!r} to, got {str(path.parent)!r}, which is none")
    if path.suffix.lower() == ".gif":
        times, shown = zip(*gif_frames(range(number), fps), strict=True)
        end = max(round(100 * number / fps), times[-1] + 2)
        return GifWriter(fps=fps), [*shown[:-1], number - 1]
    if not FFMpegWriter.isAvailable():
        message = f"expected the program 'ffmpeg' to write {str(path)!r} with, found none: install it or take a .gif"
        raise RuntimeError(message)
    return FFMpegWriter(fps=fps, codec="h264"), range(number)


@contextmanager
def saving(writer: AbstractMovieWriter, figure: Figure, path: Path, dpi: float) -> Iterator[None]:
    """Write a movie of the frames that are grabbed within, whole or not at all. The writer's own ``saving`` keeps what
    an error leaves, and raises what comes of that in the place of the error."""
    from matplotlib import rc_context

    with replacing(path, path.suffix) as part, rc_context({"savefig.bbox": None}):
        writer.setup(figure, part, dpi)
        try:
            yield
        except BaseException:
            with suppress(Exception):
                writer.finish()  # ffmpeg waits for more
            raise
        writer.finish()


class _Page:
    """The figure of an animation, whose clips all show the same frame."""

    def __init__(self, clips: ClipSet, title: str | None, marked: str, columns: int, strongest: int) -> None:
        self.clips, self.strongest = clips, strongest
        height, width = clips.size
        panel = PANEL * min(max(width / height, 0.5), 2.5)
        last = [] if clips.probabilities is None else clips.probabilities[:, -1]
        self.listed = [leading_classes(of_clip, label) for of_clip, label in zip(last, clips.labels, strict=False)]
        rows_listed = max(map(len, self.listed), default=0)
        above = 0.22 if self.listed or clips.captions is not None else 0
        cell = above + PANEL + (0.04 + rows_listed * ROW if rows_listed else 0)
        columns = min(columns, len(clips))
        rows = math.ceil(len(clips) / columns)
        legend = legend_of(clips, marked)
        frames_width = columns * (panel + GAP) - GAP
        width = max(frames_width, legend_width(legend), 3.0) + 2 * MARGIN
        title = wrapped(title, width - 2 * MARGIN)
        top, bottom = 0.1 + title_height(title), legend_height(legend, width) + LINE
        self.sheet = Sheet(width, top + rows * (cell + GAP) - GAP + bottom)
        self.sheet.title(width / 2, title, ha="center")
        draw_legend(self.sheet, legend, width / 2, bottom - LINE)
        self.places = []
        for clip in range(len(clips)):
            row, column = divmod(clip, columns)
            x = (width - frames_width) / 2 + column * (panel + GAP)
            y = top + row * (cell + GAP) + above
            ax = self.sheet.axes(x, y, panel, PANEL)
            below = self.sheet.axes(x, y + PANEL + 0.04, panel, rows_listed * ROW) if rows_listed else None
            said = self.sheet.text(x, y - 0.06, "", fontsize=9, color=INK, weight="bold")
            self.places.append((ax, below, said, rows_listed))
        line = self.sheet.axes(MARGIN, self.sheet.height - bottom + LINE - 0.06, width - 2 * MARGIN - 0.55, 0.04)
        line.axis("off")
        line.set(xlim=(0, clips.num_frames), ylim=(0, 1))
        line.barh(0.5, clips.num_frames, height=1, color=FAINT)
        (self.elapsed,) = line.barh(0.5, 0, height=1, color=MUTED)
        y = self.sheet.height - bottom + LINE - 0.01
        self.counter = self.sheet.text(width - MARGIN, y, "", fontsize=7.5, color=MUTED, ha="right")

    def show(self, t: int) -> None:
        clips = self.clips
        self.elapsed.set_width(t + 1)
        self.counter.set_text(f"{t + 1} / {clips.num_frames}")
        for clip, (ax, below, said, rows) in enumerate(self.places):
            ax.clear()
            draw_frame(ax, clips, clip, t, self.strongest)
            if clips.captions is not None:
                said.set_text(clips.captions[clip])
            if below is None:
                continue
            now, label = clips.probabilities[clip, t], clips.labels[clip]
            below.clear()
            draw_predictions(below, now, self.listed[clip], clips.names, label, rows)
            if clips.captions is None:
                predicted = int(now.argmax())
                colour = INK if label is None else TRUE if predicted == label else WRONG
                said.set(text=f"{clips.names[predicted]}  {now[predicted]:.0%}", color=colour)
