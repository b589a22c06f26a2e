"""Writing videos: folders of JPEG frames, and video files."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from rstg_pyg.arguments import check_choice
from rstg_pyg.datasets.video.frame_folders import frame_name
from rstg_pyg.datasets.video.reading import require_av, require_pillow
from rstg_pyg.files import naming

ENCODERS = {"vp9": "libvpx-vp9", "vp8": "libvpx"}


def write_frame_folder(folder: str | os.PathLike, frames: Iterable[np.ndarray], quality: int = 90) -> None:
    r"""Writes a video as numbered JPEG frames.

    Args:
        folder (str or PathLike): The folder; it is made.
        frames (iterable): The frames.
        quality (int): Quality of the JPEG files, 1 to 95. (default: :obj:`90`)

    Shapes:
        - **frames:** each :math:`(H, W, 3)`, uint8

    Raises:
        ImportError: If Pillow is not installed.

    Example:
        >>> write_frame_folder("17", np.zeros((2, 8, 10, 3), np.uint8))
        >>> sorted(os.listdir("17"))
        ['00001.jpg', '00002.jpg']
    """
    pillow = require_pillow()
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        # Pillow itself cuts a file off on a full disk and does not say so.
        path, content = Path(folder, frame_name(number)), io.BytesIO()
        pillow.fromarray(frame).save(content, "JPEG", quality=quality)
        with naming(path):
            path.write_bytes(content.getbuffer())


def write_video_file(
    path: str | os.PathLike,
    frames: Iterable[np.ndarray],
    frames_per_second: float = 12,
    codec: str = "vp9",
    quality: int = 30,
) -> None:
    r"""Writes a WebM file, one frame at a time.

    Args:
        path (str or PathLike): The file.
        frames (iterable): The frames, at least one, all of one size.
        frames_per_second (float): Frames per second. (default: :obj:`12`)
        codec (str): :obj:`"vp9"` or :obj:`"vp8"`. (default: :obj:`"vp9"`)
        quality (int): Constant quality: 4 is the best and largest, 63 the worst. (default: :obj:`30`)

    Shapes:
        - **frames:** each :math:`(H, W, 3)`, uint8, :math:`H` and :math:`W` even

    Raises:
        ValueError: If there is no frame, or a side is odd.
        ImportError: If PyAV is not installed.

    Example:
        >>> write_video_file("17.webm", np.zeros((2, 32, 48, 3), np.uint8), codec="vp8")
        >>> os.path.exists("17.webm")
        True
    """
    check_choice("codec", codec, tuple(ENCODERS))
    av = require_av()
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"expected at least one frame for {path}, got none")
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise ValueError(f"expected frames with even sides for {path}, got {height} x {width}")
    with av.open(os.fspath(path), "w", format="webm") as container:
        stream = container.add_stream(ENCODERS[codec], rate=Fraction(frames_per_second).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 0 if codec == "vp9" else 10_000_000
        stream.options = {"crf": str(quality), "deadline": "realtime", "cpu-used": "8"}
        stream.thread_count = 1
        frame = first
        while frame is not None:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            frame = next(frames, None)
        container.mux(stream.encode())


def gif_frames(frames: Iterable[Any], rate: Fraction | float) -> Iterator[tuple[int, Any]]:
    r"""Yields the frames that a GIF can show, each with its time in hundredths of a second.

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
