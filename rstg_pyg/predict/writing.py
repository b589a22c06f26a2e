"""Writing videos as WebM, MP4 or GIF, one frame at a time, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from rstg_pyg.datasets.video import write_video_file
from rstg_pyg.datasets.video.frame_folders import require_pillow
from rstg_pyg.datasets.video.video_files import checked_frames, gif_frames, require_av
from rstg_pyg.files import replacing

FORMATS = (".webm", ".mp4", ".gif")


def write_video(path: str | os.PathLike, frames: Iterable[np.ndarray], rate: Fraction) -> None:
    r"""Write a video beside ``path`` while its frames come in, and give it the name once it is whole.

    Args:
        path: The file, by its ending WebM (VP9), MP4 (H.264) or GIF; its folder is made where there is none.
        frames: The frames, at least one.
        rate: Frames a second; above 50, some are left out of a GIF.

    Shapes:
        - **frames:** each ``[H, W, 3]`` uint8, H and W even, all of one size.

    Raises:
        ValueError: If the ending is another, there is no frame, a frame has another size than the first, or a side of
            an MP4 or WebM is odd.
        OSError: If the file cannot be written. What was there before is still there, after any error.
        ImportError: If PyAV, or Pillow for a GIF, is not installed.
    """
    path = check_output(path)
    av = require_av()
    ending = path.suffix.lower()
    if ending == ".webm":
        write_video_file(path, frames, float(rate))
        return
    with replacing(path) as part:
        size, frames = checked_frames(path, frames, even=ending == ".mp4")
        with av.open(os.fspath(part), "w", format=ending[1:]) as container:
            stream = container.add_stream("gif" if ending == ".gif" else "libx264", rate=rate)
            stream.height, stream.width = size
            for picture in (_gif if ending == ".gif" else _mp4)(av, stream, frames, rate):
                container.mux(stream.encode(picture))
            container.mux(stream.encode())


def check_output(path: str | os.PathLike) -> Path:
    """Return the path; raise a ValueError unless it has one of the endings that can be written."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"expected a file ending in {', '.join(FORMATS)}, got {path}")
    return path


def _mp4(av: Any, stream: Any, frames: Iterable[np.ndarray], rate: Fraction) -> Iterator[Any]:
    stream.pix_fmt = "yuv420p"
    stream.options = {"crf": "20", "preset": "veryfast"}
    for frame in frames:
        yield av.VideoFrame.from_ndarray(frame, format="rgb24")


def _gif(av: Any, stream: Any, frames: Iterable[np.ndarray], rate: Fraction) -> Iterator[Any]:
    stream.pix_fmt = "pal8"
    stream.codec_context.time_base = Fraction(1, 100)
    for time, frame in gif_frames(frames, rate):
        picture = _with_palette(av, frame)
        picture.pts, picture.time_base = time, Fraction(1, 100)
        yield picture


def _with_palette(av: Any, frame: np.ndarray) -> Any:
    """A frame of 256 colours, its own: one palette for all would need all frames."""
    image = require_pillow()
    picture = image.fromarray(frame).quantize(256, image.Quantize.FASTOCTREE, dither=image.Dither.NONE)
    colours = np.frombuffer(picture.palette.getdata()[1], np.uint8).reshape(-1, 3)
    palette = np.full((256, 4), 255, np.uint8)
    palette[: len(colours), 1:] = colours
    return av.VideoFrame.from_ndarray((np.asarray(picture), palette), format="pal8")
