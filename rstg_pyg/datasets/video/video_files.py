"""Videos that are files, such as WebM: chosen frames, one frame after the other, and files that are written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rstg_pyg.arguments import check_choice
from rstg_pyg.datasets.video.damage import MAX_PIXELS, Damage, DamagedVideoError, open_media, stack_frames
from rstg_pyg.datasets.video.sampling import Choose, even_times
from rstg_pyg.files import replacing

ENCODERS = {"vp9": "libvpx-vp9", "vp8": "libvpx"}

# Elements that a WebM file consists of: the EBML header, then one segment.
_HEADER, _SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")


def read_video_file(path: str | os.PathLike, choose: Choose) -> tuple[Tensor, np.ndarray]:
    r"""Read frames of a video file: decode all of it, but keep only what is wanted.

    Frames come upright, turned and mirrored as the file says. Of a video whose frames come unevenly, ``choose``
    chooses among moments 1/30 s apart or less instead of among frames, and gets what was shown then.

    Args:
        path: The file.
        choose: From the number of frames to the numbers of those that are wanted. It may be called twice: first for
            the packets, which for some files are not the frames.

    Shapes:
        - **output:** the U different frames that are wanted, ``[U, H, W, 3]`` uint8, and which of them stands at which
          place of what ``choose`` returned, in its shape.

    Raises:
        DamagedVideoError: If the file is missing, empty, ends too early or cannot be decoded.
        ImportError: If PyAV is not installed.

    Example:
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
    r"""The frames of a video file ``[H, W, 3]``, uint8, upright, one after the other and in constant memory.

    Raises:
        DamagedVideoError: If the file is missing, empty, ends too early or cannot be decoded.
        ImportError: If PyAV is not installed.

    Example:
        >>> write_video_file("17.webm", np.zeros((6, 32, 48, 3), np.uint8))
        >>> sum(1 for frame in stream_video_file("17.webm"))
        6
    """
    for _, pixels in _frames(path):
        yield torch.from_numpy(pixels())


def shown_frames(path: str | os.PathLike) -> tuple[Fraction | None, np.ndarray]:
    r"""The rate of a video file and the frames that it shows, as :func:`~rstg_pyg.datasets.video.sampling.even_times`
    returns them."""
    times, promised = _packet_times(path)
    rate, shown = even_times(times, promised)
    if not np.array_equal(shown, np.arange(len(times))):
        # Packets are not always frames.
        rate, shown = even_times(_decode(path, set())[1], promised)
    return rate, shown


def write_video_file(
    path: str | os.PathLike,
    frames: Iterable[np.ndarray],
    frames_per_second: float = 12,
    codec: str = "vp9",
    quality: int = 30,
) -> None:
    r"""Write a WebM file, one frame at a time, whole or not at all: after an error, what was there before still is.

    Args:
        path: The file.
        frames: The frames, at least one, all of one size.
        frames_per_second: Frames per second.
        codec: ``"vp9"`` or ``"vp8"``.
        quality: Constant quality: 4 is the best and largest, 63 the worst.

    Shapes:
        - **frames:** each ``[H, W, 3]`` uint8, H and W even.

    Raises:
        ValueError: If there is no frame, a side is odd, or a frame has another size than the first.
        ImportError: If PyAV is not installed.

    Example:
        >>> write_video_file("17.webm", np.zeros((2, 32, 48, 3), np.uint8), codec="vp8")
        >>> os.path.exists("17.webm")
        True
    """
    check_choice("codec", codec, tuple(ENCODERS))
    av = require_av()
    with replacing(path) as part:
        (height, width), frames = checked_frames(path, frames)
        with av.open(os.fspath(part), "w", format="webm") as container:
            track = container.add_stream(ENCODERS[codec], rate=Fraction(frames_per_second).limit_denominator(1000))
            track.width, track.height, track.pix_fmt = width, height, "yuv420p"
            track.bit_rate = 0 if codec == "vp9" else 10_000_000
            track.options = {"crf": str(quality), "deadline": "realtime", "cpu-used": "8"}
            track.thread_count = 1
            for frame in frames:
                container.mux(track.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(track.encode())


def checked_frames(
    path: str | os.PathLike, frames: Iterable[np.ndarray], even: bool = True
) -> tuple[tuple[int, int], Iterator[np.ndarray]]:
    r"""Return the height and width of the frames of a file that is to be written, and the frames: encoders stretch one
    of another size in silence.

    Raises:
        ValueError: If there is no frame, a side is odd and is to be even, or, later, a frame has another shape than the
            first.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"expected at least one frame for {path}, got none")
    height, width = first.shape[:2]
    if even and (height % 2 or width % 2):
        raise ValueError(f"expected frames with even sides for {path}, got {height} x {width}")

    def checked() -> Iterator[np.ndarray]:
        for number, frame in enumerate(chain((first,), frames), start=1):
            if frame.shape != first.shape:
                expected, got = [*first.shape], [*frame.shape]
                raise ValueError(f"expected frames of shape {expected} for {path}, got {got} at frame {number}")
            yield frame

    return (height, width), checked()


def gif_frames(frames: Iterable[Any], rate: Fraction | float) -> Iterator[tuple[int, Any]]:
    r"""Yield the frames that a GIF can show, each with its time in hundredths of a second.

    Viewers take a delay of less than two hundredths for ten: of faster videos some frames are left out, so that the
    others come at their times.

    Example:
        >>> list(gif_frames("abcdef", 100))
        [(0, 'a'), (2, 'c'), (4, 'e')]
    """
    last = -2
    for number, frame in enumerate(frames):
        time = round(100 * number / rate)
        if time - last >= 2:
            yield time, frame
            last = time


def require_av() -> Any:
    r"""PyAV; an ImportError says how to install it."""
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "PyAV, which reads and writes video files, is not installed. Install it with 'pip install av'"
        ) from error
    return av


def _packet_times(path: str | os.PathLike) -> tuple[list[float | None], Fraction | None]:
    """When the packets are shown, in that order, and the rate that the file promises."""
    with _open_video(path) as (container, track):
        times = [_seconds(packet.pts, track) for packet in container.demux(track) if packet.size]
        promised = track.average_rate or track.guessed_rate
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


def _seconds(pts: int | None, track: Any) -> float | None:
    return None if pts is None else float(pts * track.time_base)


def _frames(path: str | os.PathLike) -> Iterator[tuple[float | None, Callable[[], np.ndarray]]]:
    """The times of all frames, and what gives the upright pixels of each."""
    matrix = None
    with _open_video(path) as (container, track):
        # Of its own, because a frame that converts itself keeps threads, which a worker that is forked waits for.
        converter = require_av().video.reformatter.VideoReformatter()
        for number, frame in enumerate(container.decode(track)):
            # Of the first alone, because a frame whose side data was asked for stays until the garbage collector comes.
            if number == 0 and (found := frame.side_data.get("DISPLAYMATRIX")) is not None:
                matrix = np.frombuffer(bytes(found), np.int32)
            yield _seconds(frame.pts, track), partial(_to_rgb, frame, converter, matrix, path)


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
    """Open a file and its first video track, and say of any failure which file it was."""
    av = require_av()
    _check_whole(path)
    try:
        # Names of authors and places in an old encoding do not matter here.
        with av.open(os.fspath(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise DamagedVideoError(f"expected a video in {path}, got none")
            track = container.streams.video[0]
            if track.codec_context is None:
                raise DamagedVideoError(f"expected a video in {path} of a kind that FFmpeg decodes, got another")
            # Workers of a data loader share the work; threads in each would only compete.
            track.thread_count = 1
            track.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            yield container, track
    except av.FFmpegError as error:
        raise DamagedVideoError(f"expected a video in {path}, got {error.strerror}") from error


def _check_whole(path: str | os.PathLike) -> None:
    """Raise for a file that is missing, empty, or shorter than it says. Decoders take what is there for all."""
    with open_media(path, "a video") as file:
        end, size = _webm_length(file.read(256)), os.fstat(file.fileno()).st_size
    if end is not None and size < end:
        raise DamagedVideoError(f"expected {end} bytes in {path}, got {size}", Damage.TRUNCATED)


def _webm_length(start: bytes) -> int | None:
    """How long a WebM file is by its own account: None if it does not say, or is no WebM file."""
    place: int | None = 0
    for name in (_HEADER, _SEGMENT):
        if place is None or not start.startswith(name, place):
            return None
        place = _element_end(start, place + len(name))
    return place


def _element_end(start: bytes, place: int) -> int | None:
    """Where an element ends whose length is written at ``place``, behind its name (RFC 8794); None if that is unknown.

    As many zeros as the length's first byte begins with are the bytes that follow; all ones mean unknown.
    """
    if place >= len(start) or start[place] == 0:
        return None
    count = 9 - start[place].bit_length()
    unknown = (1 << 7 * count) - 1
    length = int.from_bytes(start[place : place + count], "big") & unknown
    return None if place + count > len(start) or length == unknown else place + count + length
