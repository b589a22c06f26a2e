"""Videos that cannot be read: named, counted, and skipped up to a limit."""

from __future__ import annotations

import enum
import warnings
from collections.abc import Sequence

import torch

# Names in one message; the rest is counted.
NAMES_SHOWN = 10


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
    r"""A video cannot be read. The message names the file.

    Args:
        message (str): What is wrong with which file.
        damage (Damage): The kind of damage. (default: :obj:`Damage.UNREADABLE`)
    """

    def __init__(self, message: str, damage: Damage = Damage.UNREADABLE) -> None:
        super().__init__(message)
        self.damage = damage


class TooManyDamagedVideosError(RuntimeError):
    r"""More videos are damaged than a dataset may skip."""


class DamagedVideoWarning(UserWarning):
    r"""A video is damaged and was skipped."""


class DamageRecord:
    r"""Which videos were found damaged, by this process and by its data loader's workers together.

    The record lies in shared memory, so that the limit holds for all workers and the process that started them
    can report what they found. It only counts: whether a video is skipped depends on its files alone.

    Args:
        video_ids (sequence): The names of the videos.
        limit (int): How many damaged videos are skipped before it is an error.

    Raises:
        TooManyDamagedVideosError: By :meth:`note`, as soon as there are more.

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

    def note(self, position: int, error: DamagedVideoError) -> None:
        r"""Records a damaged video and, the first time, warns of it by name.

        Args:
            position (int): Number of the video.
            error (DamagedVideoError): What is wrong with it.
        """
        known = bool(self._damage[position])
        self._damage[position] = int(error.damage)
        self.check_limit()
        if not known:
            warnings.warn(f"video {self.video_ids[position]} is skipped: {error}", DamagedVideoWarning, stacklevel=2)

    def note_missing(self, positions: Sequence[int], folder: str) -> None:
        r"""Records all videos that a folder lacks, with one warning.

        Args:
            positions (sequence): Numbers of the videos.
            folder (str): The folder, for the warning.
        """
        if len(positions) == 0:
            return
        self._damage[torch.as_tensor(positions)] = int(Damage.MISSING)
        self.check_limit()
        names = _listed([str(self.video_ids[i]) for i in positions])
        message = f"{len(positions):,} of {len(self.video_ids):,} videos are not in {folder} and are skipped: {names}"
        warnings.warn(message, DamagedVideoWarning, stacklevel=2)

    def check_limit(self) -> None:
        r"""Raises if more videos are damaged than may be skipped."""
        if int(self._damage.count_nonzero()) > self.limit:
            raise TooManyDamagedVideosError(
                f"expected at most max_damaged={self.limit} damaged videos, found {self._count()}: {self._names()}"
            )

    def report(self) -> str:
        r"""One line on all damaged videos so far; empty if there is none."""
        if not self._damage.any():
            return ""
        return f"skipped {self._count()} videos as damaged (limit {self.limit}): {self._names()}"

    def _count(self) -> str:
        return f"{int(self._damage.count_nonzero()):,} of {len(self.video_ids):,}"

    def _names(self) -> str:
        return _listed([f"{name} ({damage.words})" for name, damage in self.damaged.items()])


def _listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
