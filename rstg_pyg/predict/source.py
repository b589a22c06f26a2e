"""Videos to look at: files, and folders of numbered JPEG frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from torch import Tensor

from rstg_pyg.datasets.video import read_frame_folder, read_video_file, spread_indices, stream_video_file
from rstg_pyg.datasets.video.frame_folders import count_frames, frame_name, read_frame
from rstg_pyg.datasets.video.reading import require_av
from rstg_pyg.predict.frame_rate import as_rate
from rstg_pyg.predict.frames import to_square

FOLDER_RATE = 12
"""Frames a second of the folders of Something-Something v1."""


class VideoSource:
    r"""A video file, or a folder of frames 00001.jpg, 00002.jpg, ...

    Args:
        path: The file or folder.
        rate: Frames a second (default: what the file says; 12 for folders).

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

    def __init__(self, path: str | os.PathLike, rate: Optional[float] = None) -> None:
        self.path = Path(path)
        self.is_folder = self.path.is_dir()
        if next(iter(self), None) is None:
            raise ValueError(f"expected a video in {path}, got no frames")
        if rate is None:
            rate = FOLDER_RATE if self.is_folder else _rate_of(self.path)
        self.rate: Fraction = as_rate("rate", rate)

    def __iter__(self) -> Iterator[Tensor]:
        """The frames ``[H, W, 3]``, uint8, one at a time."""
        if not self.is_folder:
            yield from stream_video_file(self.path)
            return
        for number in range(count_frames(self.path)):
            yield torch.from_numpy(read_frame(self.path / frame_name(number)).copy())

    def centre_clip(self, num_frames: int, size: int) -> tuple[Tensor, int]:
        r"""The clip that the evaluation takes of the video, ``[3, T, S, S]`` uint8, and its number of frames."""
        count = 0

        def choose(found: int) -> np.ndarray:
            nonlocal count
            count = found
            return spread_indices(found, num_frames)[0]

        frames, places = (read_frame_folder if self.is_folder else read_video_file)(self.path, choose)
        return to_square(frames, size)[:, torch.from_numpy(places)], count


def _rate_of(path: Path) -> Fraction:
    with require_av().open(os.fspath(path)) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise ValueError(f"expected {path} to say its frames a second, got none: give them")
    return rate
