"""Videos to look at, files and folders of numbered frames, and what of their frames a network sees."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, repeat
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rstg_pyg.datasets.video import (
    crop_offsets,
    read_frame_folder,
    read_video_file,
    resize,
    short_side_to,
    spread_crops,
    spread_indices,
    stream_video_file,
)
from rstg_pyg.datasets.video.frame_folders import list_frames, read_frame
from rstg_pyg.datasets.video.video_files import shown_frames

FOLDER_RATE = 12
"""Frames a second of the folders of Something-Something v1."""


class VideoSource:
    r"""A video file, or a folder of frames 00001.jpg, 00002.jpg, ...

    Frames come upright and at a fixed rate. Where those of a file come unevenly, as a browser records them, each comes
    as often as it is shown at that rate, see :func:`~rstg_pyg.datasets.video.sampling.even_times`.

    Args:
        path: The file or folder.
        rate: Frames a second, if each frame is to come once (default: what the file's times are; 12 for folders).

    Raises:
        DamagedVideoError: If there is none, it holds no frame, or it cannot be read.
        ValueError: If ``rate`` is not above 0, or is not given where a file does not say it.

    Example:
        >>> from rstg_pyg.datasets.video import write_video_file
        >>> write_video_file("17.webm", np.zeros((6, 32, 48, 3), np.uint8), frames_per_second=24)
        >>> source = VideoSource("17.webm")
        >>> source.rate, sum(1 for frame in source)
        (Fraction(24, 1), 6)
    """

    def __init__(self, path: str | os.PathLike, rate: float | None = None) -> None:
        self.path = Path(path)
        self.is_folder = self.path.is_dir()
        self._counts: list[int] = []
        if next(iter(self), None) is None:
            raise ValueError(f"expected a video in {path}, got no frames")
        if self.is_folder:
            found, shown = FOLDER_RATE, np.arange(len(list_frames(self.path)))
        else:
            found, shown = shown_frames(self.path)
        if rate is not None:
            found, shown = rate, np.arange(shown[-1] + 1)
        if found is None:
            raise ValueError(f"expected {path} to say its frames a second, got none: give them")
        self.rate: Fraction = as_rate("rate", found)
        self._counts = np.bincount(shown).tolist()

    def __iter__(self) -> Iterator[Tensor]:
        """The frames ``[H, W, 3]``, uint8, one at a time."""
        if self.is_folder:
            for name in list_frames(self.path):
                yield torch.from_numpy(read_frame(self.path / name).copy())
            return
        for frame, count in zip(stream_video_file(self.path), chain(self._counts, repeat(1)), strict=False):
            yield from repeat(frame, count)

    def centre_clip(self, num_frames: int, size: int) -> tuple[Tensor, int]:
        r"""The clip that the evaluation takes of the video, ``[3, T, S, S]`` uint8, and how many frames come."""
        read = read_frame_folder if self.is_folder else read_video_file
        frames, places = read(self.path, lambda count: spread_indices(count, num_frames)[0])
        return to_square(frames, size)[:, torch.from_numpy(places)], sum(self._counts)


def as_rate(name: str, value: float) -> Fraction:
    r"""A number of frames a second, exact enough for any video.

    Raises:
        ValueError: If it is not a number above 0.

    Example:
        >>> as_rate("rate", 29.97)
        Fraction(2997, 100)
    """
    if not (isinstance(value, Real) and 0 < value < 10**6):
        raise ValueError(f"expected {name!r} to be frames a second, above 0, got {value!r}")
    rate = Fraction(value if isinstance(value, Fraction) else float(value)).limit_denominator(100_000)
    if rate == 0:
        raise ValueError(f"expected {name!r} to be frames a second, above 0, got {value!r}")
    return rate


def to_square(frames: Tensor, size: int) -> Tensor:
    r"""The central squares of frames after a resize of the shorter side: the evaluation's centre clip.

    Args:
        frames: Frames of a video.
        size: Height and width of the result S.

    Shapes:
        - **frames:** ``[T, H, W, 3]`` uint8. **output:** ``[3, T, S, S]`` uint8.
    """
    video = resize(frames, *short_side_to(*frames.shape[1:3], size)).transpose(0, 1)
    return spread_crops(video, size, 1)[0]


def square_box(height: int, width: int, size: int) -> tuple[float, float, float, float]:
    r"""Where in a frame the square of :func:`to_square` lies: top, left, bottom, right, in pixels of the frame.

    Example:
        >>> square_box(20, 30, 8)
        (0.0, 5.0, 20.0, 25.0)
    """
    resized = short_side_to(height, width, size)
    spans = []
    for length, shown in zip((height, width), resized, strict=True):
        offset = crop_offsets(shown, size, 1)[0]
        spans.append((offset * length / shown, (offset + size) * length / shown))
    (top, bottom), (left, right) = spans
    return top, left, bottom, right
