"""What readers of videos have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rstg_pyg.datasets.video.damage import Damage, DamagedVideoError

Choose = Callable[[int], np.ndarray]
"""From the number of frames of a video to the numbers of those that are wanted, in any shape."""


def every_frame(count: int) -> np.ndarray:
    r"""Chooses all frames."""
    return np.arange(count)


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
