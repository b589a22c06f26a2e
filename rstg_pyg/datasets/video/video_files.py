"""Videos that are files, such as WebM: whole, chosen frames, or a stream of frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rstg_pyg.datasets.video.damage import Damage, DamagedVideoError
from rstg_pyg.datasets.video.reading import Choose, require_av, stack_frames

# Elements that a WebM file consists of: the EBML header, then one segment.
_HEADER, _SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")


def read_video_file(path: str | os.PathLike, choose: Choose) -> tuple[Tensor, np.ndarray]:
    r"""Reads frames of a video file: decodes all of it, but keeps only what is wanted.

    Args:
        path (str or PathLike): The file.
        choose (callable): From the number of frames to the numbers of those that are wanted. It may be called
            twice: first with the number of packets, which for some files is not that of frames.

    Shapes:
        - **output:** the :math:`U` different frames that are wanted, :math:`(U, H, W, 3)` uint8, and which of them
          stands at which place of what :obj:`choose` returned, in its shape

    Raises:
        DamagedVideoError: If the file is missing, empty, ends too early or cannot be decoded.
        ImportError: If PyAV is not installed.

    Example:
        >>> from rstg_pyg.datasets.video import write_video_file
        >>> write_video_file("17.webm", np.zeros((6, 32, 48, 3), np.uint8))
        >>> frames, places = read_video_file("17.webm", lambda count: np.array([0, 0, count - 1]))
        >>> frames.shape, places.tolist()
        (torch.Size([2, 32, 48, 3]), [0, 0, 1])
    """
    with _open_video(path) as (container, stream):
        count = sum(packet.size > 0 for packet in container.demux(stream))
    while True:
        wanted, places = np.unique(choose(max(count, 1)), return_inverse=True)
        kept, found = _decode(path, set(wanted.tolist()))
        if found == 0:
            raise DamagedVideoError(f"expected a video in {path}, got no frames", Damage.EMPTY)
        if found == count:
            return stack_frames(path, kept), places
        count = found


def stream_video_file(path: str | os.PathLike) -> Iterator[Tensor]:
    r"""The frames of a video file, one after the other, in constant memory.

    Args:
        path (str or PathLike): The file.

    Shapes:
        - **output:** frames :math:`(H, W, 3)`, uint8

    Raises:
        DamagedVideoError: If the file is missing, empty, ends too early or cannot be decoded.
        ImportError: If PyAV is not installed.

    Example:
        >>> from rstg_pyg.datasets.video import write_video_file
        >>> write_video_file("17.webm", np.zeros((6, 32, 48, 3), np.uint8))
        >>> sum(1 for frame in stream_video_file("17.webm"))
        6
    """
    with _open_video(path) as (container, stream):
        for frame in container.decode(stream):
            yield torch.from_numpy(_to_rgb(frame, path))


def _decode(path: str | os.PathLike, wanted: set[int]) -> tuple[list[np.ndarray], int]:
    """The wanted frames, and the number of all."""
    kept, number = [], 0
    with _open_video(path) as (container, stream):
        for frame in container.decode(stream):
            if number in wanted:
                kept.append(_to_rgb(frame, path))
            number += 1
    return kept, number


def _to_rgb(frame: Any, path: str | os.PathLike) -> np.ndarray:
    if frame.is_corrupt:
        raise DamagedVideoError(f"expected a whole frame at {frame.time} s of {path}, got a damaged one")
    return frame.to_ndarray(format="rgb24")


@contextmanager
def _open_video(path: str | os.PathLike) -> Iterator[tuple[Any, Any]]:
    """Opens a file and its first video stream, and says of any failure which file it was."""
    av = require_av()
    _check_whole(path)
    try:
        with av.open(os.fspath(path)) as container:
            if not container.streams.video:
                raise DamagedVideoError(f"expected a video in {path}, got none")
            stream = container.streams.video[0]
            # Workers of a data loader share the work; threads in each would only compete.
            stream.thread_count = 1
            yield container, stream
    except av.FFmpegError as error:
        raise DamagedVideoError(f"expected a video in {path}, got {error.strerror}") from error


def _check_whole(path: str | os.PathLike) -> None:
    """Raises for a file that is missing, empty, or shorter than it says. Decoders take what is there for all."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            start = file.read(256)
    except OSError as error:
        raise DamagedVideoError(f"expected a file {path}, got {error.strerror}", Damage.MISSING) from error
    if size == 0:
        raise DamagedVideoError(f"expected a video in {path}, got an empty file", Damage.EMPTY)
    end = _webm_length(start)
    if end is not None and size < end:
        raise DamagedVideoError(f"expected {end} bytes in {path}, got {size}", Damage.TRUNCATED)


def _webm_length(start: bytes) -> int | None:
    """How long a WebM file is by its own account: None if it does not say, or is no WebM file.

    An element is its name, its length and its content (RFC 8794). A segment of unknown length says nothing.
    """
    if not start.startswith(_HEADER):
        return None
    length, place = _element_length(start, len(_HEADER))
    if length is None or not start.startswith(_SEGMENT, place + length):
        return None
    length, place = _element_length(start, place + length + len(_SEGMENT))
    return None if length is None else place + length


def _element_length(start: bytes, place: int) -> tuple[int | None, int]:
    """The length that is written at a place, and the place behind it. As many zeros as its first byte begins with
    are the bytes that follow; all ones mean unknown."""
    if place >= len(start) or start[place] == 0:
        return None, place
    count = 9 - start[place].bit_length()
    if place + count > len(start):
        return None, place
    unknown = (1 << 7 * count) - 1
    length = int.from_bytes(start[place : place + count], "big") & unknown
    return (None if length == unknown else length), place + count
