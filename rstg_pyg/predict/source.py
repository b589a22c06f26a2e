"""Videos to look at: files, and folders of numbered frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rstg_pyg.datasets.video import read_frame_folder, read_video_file, spread_indices, stream_video_file
from rstg_pyg.datasets.video.frame_folders import list_frames, read_frame
from rstg_pyg.datasets.video.video_files import shown_frames
from rstg_pyg.predict.frame_rate import as_rate
from rstg_pyg.predict.frames import to_square

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
