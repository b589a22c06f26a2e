"""Videos that are files, such as WebM: whole, chosen frames, or a stream of frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rstg_pyg.datasets.video.damage import Damage, DamagedVideoError
from rstg_pyg.datasets.video.reading import MAX_PIXELS, Choose, open_media, require_av, stack_frames
from rstg_pyg.datasets.video.sampling import even_times

# Elements that a WebM file consists of: the EBML header, then one segment.
_HEADER, _SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")


def read_video_file(path: str | os.PathLike, choose: Choose) -> tuple[Tensor, np.ndarray]:
    r"""Reads frames of a video file: decodes all of it, but keeps only what is wanted.

    Frames come upright, turned and mirrored as the file says. Of a video whose frames come unevenly,
    :obj:`choose` chooses among moments 1/30 s apart or less instead of among frames, and gets what was shown then.

    Args:
        path (str or PathLike): The file.
        choose (callable): From the number of frames to the numbers of those that are wanted. It may be called
            twice: first for the packets, which for some files are not the frames.

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
    _, shown = even_times(_packet_times(path)[0] or [None])
    while True:
        chosen = shown[choose(len(shown))]
        wanted, places = np.unique(chosen, return_inverse=True)
        kept, times = _decode(path, set(wanted.tolist()))
        before, (_, shown) = shown, even_times(times)
        if np.array_equal(shown, before):
            return stack_frames(path, kept), places.reshape(chosen.shape)


def stream_video_file(path: str | os.PathLike) -> Iterator[Tensor]:
    r"""The frames of a video file, upright and one after the other, in constant memory.

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
    for _, pixels in _frames(path):
        yield torch.from_numpy(pixels())


def shown_frames(path: str | os.PathLike) -> tuple[Fraction | None, np.ndarray]:
    r"""The rate of a video file and the frames that it shows, see
    :func:`~rstg_pyg.datasets.video.sampling.even_times`."""
    times, promised = _packet_times(path)
    rate, shown = even_times(times, promised)
    if not np.array_equal(shown, np.arange(len(times))):
        # Packets are not always frames.
        rate, shown = even_times(_decode(path, set())[1], promised)
    return rate, shown


def _packet_times(path: str | os.PathLike) -> tuple[list[float | None], Fraction | None]:
    """When the packets are shown, in that order, and the rate that the file promises."""
    with _open_video(path) as (container, stream):
        times = [_seconds(packet.pts, stream) for packet in container.demux(stream) if packet.size]
        promised = stream.average_rate or stream.guessed_rate
    return (times if None in times else sorted(times)), promised or None


def _decode(path: str | os.PathLike, wanted: set[int]) -> tuple[list[np.ndarray], list[float | None]]:
    """The wanted frames, and the times of all."""
    kept, times = [], []
    for time, pixels in _frames(path):
        if len(times) in wanted:
            kept.append(pixels())
        times.append(time)
    if not times:
        raise DamagedVideoError(f"expected a video in {path}, got no frames", Damage.EMPTY)
    return kept, times


def _seconds(pts: int | None, stream: Any) -> float | None:
    return None if pts is None else float(pts * stream.time_base)


def _frames(path: str | os.PathLike) -> Iterator[tuple[float | None, Callable[[], np.ndarray]]]:
    """The times of all frames, and what gives the upright pixels of each."""
    matrix = None
    with _open_video(path) as (container, stream):
        # Of its own, because a frame that converts itself keeps threads, which a worker that is forked waits for.
        converter = require_av().video.reformatter.VideoReformatter()
        for number, frame in enumerate(container.decode(stream)):
            # Of the first alone, because a frame whose side data was asked for stays until the garbage collector comes.
            if number == 0 and (found := frame.side_data.get("DISPLAYMATRIX")) is not None:
                matrix = np.frombuffer(bytes(found), np.int32)
            yield _seconds(frame.pts, stream), partial(_to_rgb, frame, converter, matrix, path)


def _to_rgb(frame: Any, converter: Any, matrix: np.ndarray | None, path: str | os.PathLike) -> np.ndarray:
    if frame.is_corrupt:
        raise DamagedVideoError(f"expected a whole frame at {frame.time} s of {path}, got a damaged one")
    pixels = converter.reformat(frame, format="rgb24").to_ndarray()
    if matrix is None:
        return pixels
    # Where x goes, a and b, and where y goes, c and d (ISO/IEC 14496-12, 6.2.2).
    a, b, _, c, d = matrix[:5].tolist()
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


@contextmanager
def _open_video(path: str | os.PathLike) -> Iterator[tuple[Any, Any]]:
    """Opens a file and its first video stream, and says of any failure which file it was."""
    av = require_av()
    _check_whole(path)
    try:
        # Names of authors and places in an old encoding do not matter here.
        with av.open(os.fspath(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise DamagedVideoError(f"expected a video in {path}, got none")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DamagedVideoError(f"expected a video in {path} of a kind that FFmpeg decodes, got another")
            # Workers of a data loader share the work; threads in each would only compete.
            stream.thread_count = 1
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            yield container, stream
    except av.FFmpegError as error:
        raise DamagedVideoError(f"expected a video in {path}, got {error.strerror}") from error


def _check_whole(path: str | os.PathLike) -> None:
    """Raises for a file that is missing, empty, or shorter than it says. Decoders take what is there for all."""
    with open_media(path, "a video") as file:
        end, size = _webm_length(file.read(256)), os.fstat(file.fileno()).st_size
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
