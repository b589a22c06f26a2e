"""Videos that cannot be read: found by the checks that all readers share, named, and skipped up to a limit."""

from __future__ import annotations

import enum
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from rstg_pyg.files import FileError, listed, open_file

MAX_PIXELS = 2**26
"""Of one frame: 8,192 x 8,192, twice what cameras make. A damaged file may say more than there is memory."""


class Damage(enum.IntEnum):
    r"""What is wrong with a video."""

    MISSING = 1
    EMPTY = 2
    GAP = 3
    TRUNCATED = 4
    UNREADABLE = 5
    MIXED_SIZES = 6

    @property
    def words(self) -> str:
        r"""The damage in lower case, for messages."""
        return self.name.lower().replace("_", " ")


class DamagedVideoError(ValueError):
    r"""A video cannot be read. The message names the file, ``damage`` is the kind."""

    def __init__(self, message: str, damage: Damage = Damage.UNREADABLE) -> None:
        super().__init__(message)
        self.damage = damage


class TooManyDamagedVideosError(RuntimeError):
    r"""More videos are damaged than a dataset may skip."""


class DamagedVideoWarning(UserWarning):
    r"""A video is damaged and was skipped."""


@contextmanager
def open_media(path: str | os.PathLike, what: str) -> Iterator[BinaryIO]:
    r"""Open a video or an image that has something in it.

    Args:
        path: The file.
        what: What it ought to hold, for messages.

    Raises:
        DamagedVideoError: If it is missing or empty, cannot be read, or is no file: opening a pipe waits for ever.
    """
    try:
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise DamagedVideoError(f"expected {what} in {path}, got an empty file", Damage.EMPTY)
            yield file
    except FileError as error:
        raise DamagedVideoError(str(error)) from error
    except OSError as error:
        damage = Damage.MISSING if isinstance(error, FileNotFoundError) else Damage.UNREADABLE
        raise DamagedVideoError(f"expected a file {path}, got {error.strerror}", damage) from error


def stack_frames(path: str | os.PathLike, frames: list[np.ndarray]) -> Tensor:
    r"""Frames ``[H, W, 3]`` as one tensor; a :class:`DamagedVideoError` names the video if their sizes differ."""
    sizes = dict.fromkeys(frame.shape[:2] for frame in frames)
    if len(sizes) > 1:
        (height, width), (other_height, other_width) = list(sizes)[:2]
        raise DamagedVideoError(
            f"expected frames of one size in {path}, got {height} x {width} and {other_height} x {other_width}",
            Damage.MIXED_SIZES,
        )
    return torch.from_numpy(np.stack(frames))


class DamageRecord:
    r"""Which videos were found damaged, by this process and by its data loader's workers together.

    The record lies in shared memory, so that the limit holds for all workers and the process that started them
    can report what they found. It only counts: whether a video is skipped depends on its files alone.

    Args:
        video_ids: The names of the videos.
        limit: How many damaged videos are skipped before it is an error.

    Raises:
        TooManyDamagedVideosError: By :meth:`note` and :meth:`note_missing`, as soon as there are more.

    Example:
        >>> record = DamageRecord(["7", "12", "30"], limit=1)
        >>> with warnings.catch_warnings(action="ignore"):
        ...     record.note(1, DamagedVideoError("12.webm ends too early", Damage.TRUNCATED))
        >>> record.report()
        'skipped 1 of 3 videos as damaged (limit 1): 12 (truncated)'
    """

    def __init__(self, video_ids: Sequence[str], limit: int) -> None:
        self.video_ids = video_ids
        self.limit = limit
        self._damage = torch.zeros(len(video_ids), dtype=torch.uint8).share_memory_()

    @property
    def damaged(self) -> dict[str, Damage]:
        r"""What is wrong with the videos found damaged so far, by their names."""
        found = self._damage.nonzero().flatten().tolist()
        return {str(self.video_ids[i]): Damage(int(self._damage[i])) for i in found}

    def note(self, idx: int, error: DamagedVideoError) -> None:
        r"""Record the damage of video number ``idx`` and, the first time, warn of it by name."""
        known = bool(self._damage[idx])
        self._set([idx], error.damage)
        if not known:
            warnings.warn(f"video {self.video_ids[idx]} is skipped: {error}", DamagedVideoWarning, stacklevel=2)

    def note_missing(self, missing: Sequence[int], folder: str | os.PathLike) -> None:
        r"""Record the numbers of all videos that a folder lacks, with one warning."""
        if missing:
            self._set(missing, Damage.MISSING)
            names = listed((self.video_ids[i] for i in missing), 10)
            what = f"{len(missing):,} of {len(self.video_ids):,} videos are not in {folder} and are skipped: {names}"
            warnings.warn(what, DamagedVideoWarning, stacklevel=2)

    def report(self) -> str:
        r"""One line on all damaged videos so far; empty if there is none."""
        count, names = self._found()
        return f"skipped {count} videos as damaged (limit {self.limit}): {names}" if names else ""

    def _set(self, numbers: Sequence[int], damage: Damage) -> None:
        self._damage[list(numbers)] = int(damage)
        if int(self._damage.count_nonzero()) > self.limit:
            count, names = self._found()
            raise TooManyDamagedVideosError(
                f"expected at most max_damaged={self.limit} damaged videos, found {count}: {names}"
            )

    def _found(self) -> tuple[str, str]:
        """How many of all videos are damaged, and which."""
        damaged = self.damaged
        names = listed((f"{name} ({damage.words})" for name, damage in damaged.items()), 10)
        return f"{len(damaged):,} of {len(self.video_ids):,}", names
