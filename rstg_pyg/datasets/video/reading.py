"""What readers of videos have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from rstg_pyg.datasets.video.damage import Damage, DamagedVideoError
from rstg_pyg.files import FileError, open_file

Choose = Callable[[int], np.ndarray]
"""From the number of frames of a video to the numbers of those that are wanted, in any shape."""


MAX_PIXELS = 2**26
"""Of one frame: 8,192 x 8,192, twice what cameras make. A damaged file may say more than there is memory."""


def every_frame(count: int) -> np.ndarray:
    r"""Chooses all frames."""
    return np.arange(count)


@contextmanager
def open_media(path: str | os.PathLike, what: str) -> Iterator[BinaryIO]:
    r"""Opens a video or an image that has something in it.

    Args:
        path (str or PathLike): The file.
        what (str): What it ought to hold, for messages.

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
    r"""Puts frames together.

    Args:
        path (str or PathLike): The video, for messages.
        frames (list): The frames, each :math:`(H, W, 3)`, uint8.

    Shapes:
        - **output:** :math:`(U, H, W, 3)`, uint8

    Raises:
        DamagedVideoError: If the frames are not all of one size.
    """
    sizes = dict.fromkeys(frame.shape[:2] for frame in frames)
    if len(sizes) > 1:
        (height, width), (other_height, other_width) = list(sizes)[:2]
        raise DamagedVideoError(
            f"expected frames of one size in {path}, got {height} x {width} and {other_height} x {other_width}",
            Damage.MIXED_SIZES,
        )
    return torch.from_numpy(np.stack(frames))


def require_pillow() -> Any:
    r"""Imports Pillow's :obj:`Image`.

    Raises:
        ImportError: If Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "Pillow, which reads and writes JPEG frames, is not installed. Install it with "
            "'pip install \"rstg-pyg[video]\"'"
        ) from error
    return Image


def require_av() -> Any:
    r"""Imports PyAV.

    Raises:
        ImportError: If PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "PyAV, which reads and writes video files, is not installed. Install it with "
            "'pip install \"rstg-pyg[video]\"'"
        ) from error
    return av
