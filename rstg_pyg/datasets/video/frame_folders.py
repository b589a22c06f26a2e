"""Videos that are folders of numbered JPEG frames: 00001.jpg, 00002.jpg, ..."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from torch import Tensor

from rstg_pyg.datasets.video.damage import Damage, DamagedVideoError
from rstg_pyg.datasets.video.reading import Choose, require_pillow, stack_frames

_NAME = re.compile(r"(\d{5})\.jpg")


def frame_name(number: int) -> str:
    r"""The file of a frame, counted from 0.

    Example:
        >>> frame_name(0)
        '00001.jpg'
    """
    return f"{number + 1:05d}.jpg"


def count_frames(folder: str | os.PathLike) -> int:
    r"""The number of frames in a folder. Files with other names do not count.

    Args:
        folder (str or PathLike): The folder.

    Raises:
        DamagedVideoError: If there is no such folder, it holds no frame, or a number is left out.
    """
    try:
        numbers = sorted(int(match[1]) for name in os.listdir(folder) if (match := _NAME.fullmatch(name)))
    except OSError as error:
        raise DamagedVideoError(f"expected a folder {folder}, got {error.strerror}", Damage.MISSING) from error
    if not numbers:
        raise DamagedVideoError(f"expected frames {frame_name(0)}, ... in {folder}, got none", Damage.EMPTY)
    for number, found in enumerate(numbers):
        if found != number + 1:
            raise DamagedVideoError(
                f"expected frames {frame_name(0)} to {frame_name(numbers[-1] - 1)} in {folder}, "
                f"got no {frame_name(number)}",
                Damage.GAP,
            )
    return len(numbers)


def read_frame_folder(folder: str | os.PathLike, choose: Choose) -> tuple[Tensor, np.ndarray]:
    r"""Reads frames of a folder, each once, and no others.

    Args:
        folder (str or PathLike): The folder.
        choose (callable): From the number of frames to the numbers of those that are wanted.

    Shapes:
        - **output:** the :math:`U` different frames that are wanted, :math:`(U, H, W, 3)` uint8, and which of them
          stands at which place of what :obj:`choose` returned, in its shape

    Raises:
        DamagedVideoError: If the folder or a frame that is wanted is missing, damaged, or of another size.
        ImportError: If Pillow is not installed.

    Example:
        >>> from rstg_pyg.datasets.video import write_frame_folder
        >>> write_frame_folder("17", np.zeros((6, 8, 10, 3), np.uint8))
        >>> frames, places = read_frame_folder("17", lambda count: np.array([0, 0, count - 1]))
        >>> frames.shape, places.tolist()
        (torch.Size([2, 8, 10, 3]), [0, 0, 1])
    """
    wanted, places = np.unique(choose(count_frames(folder)), return_inverse=True)
    frames = [read_frame(Path(folder, frame_name(number))) for number in wanted.tolist()]
    return stack_frames(folder, frames), places


def read_frame(path: Path) -> np.ndarray:
    pillow = require_pillow()
    try:
        with pillow.open(path, formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        damage, what = Damage.UNREADABLE, str(error)
        if path.stat().st_size == 0:
            damage, what = Damage.EMPTY, "an empty file"
        elif "truncated" in what.lower():
            damage = Damage.TRUNCATED
        raise DamagedVideoError(f"expected a JPEG image in {path}, got {what}", damage) from error
