"""Videos that are folders of numbered images: 00001.jpg, 00002.jpg, ..."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from rstg_pyg.datasets.video.damage import MAX_PIXELS, Damage, DamagedVideoError, open_media, stack_frames
from rstg_pyg.datasets.video.sampling import Choose
from rstg_pyg.files import naming

_NAME = re.compile(r"((?!\.).*?)([0-9]+)(\.(?:jpe?g|png))", re.IGNORECASE | re.DOTALL)


def list_frames(folder: str | os.PathLike) -> list[str]:
    r"""The files of the frames in a folder, in order.

    They are JPEG or PNG images numbered from 0 or 1, all with the same number of digits as far as that goes, and with
    the same letters before, if any. Of several such rows, the longest counts, and one of optical flow last. Other files
    do not count.

    Raises:
        DamagedVideoError: If there is no such folder, it holds no frame, or a number is left out.

    Example:
        >>> Path("17").mkdir()
        >>> for name in ("img_00002.png", "img_00000.png", "img_00001.png", "flow_x_00001.png", "cover.png"):
        ...     Path("17", name).touch()
        >>> list_frames("17")
        ['img_00000.png', 'img_00001.png', 'img_00002.png']
    """
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise DamagedVideoError(f"expected a folder {folder}, got {error.strerror}", Damage.MISSING) from error
    rows: dict[tuple[str, str], list[str]] = {}
    for match in filter(None, map(_NAME.fullmatch, names)):
        rows.setdefault((match[1], match[3]), []).append(match[2])
    if not rows:
        raise DamagedVideoError(
            f"expected numbered frames, such as 00001.jpg, img_00001.jpg or 000000.png, in {folder}, "
            f"got {f'other files, such as {min(names)}' if names else 'none'}",
            Damage.EMPTY,
        )
    (before, ending), numbers = min(rows.items(), key=lambda row: (row[0][0].startswith("flow"), -len(row[1]), row[0]))
    widths = Counter(len(number) for number in numbers if number[0] == "0")
    width = max(widths, key=lambda each: (widths[each], each), default=1)
    found = {int(number) for number in numbers if number == f"{int(number):0{width}d}"}
    first = 0 if 0 in found else 1
    listed = [f"{before}{number:0{width}d}{ending}" for number in range(first, first + len(found))]
    if (last := max(found)) >= first + len(found):
        gap = next(number for number in range(first, last) if number not in found)
        first_name, last_name, lost = (f"{before}{number:0{width}d}{ending}" for number in (first, last, gap))
        raise DamagedVideoError(f"expected frames {first_name} to {last_name} in {folder}, got no {lost}", Damage.GAP)
    return listed


def read_frame_folder(folder: str | os.PathLike, choose: Choose) -> tuple[Tensor, np.ndarray]:
    r"""Read frames of a folder, each once, and no others.

    They are JPEG or PNG images, numbered from 0 or 1 with any number of digits, behind the same letters, if any. They
    come upright, turned as their files say.

    Args:
        folder: The folder.
        choose: From the number of frames to the numbers of those that are wanted.

    Shapes:
        - **output:** the U different frames that are wanted, ``[U, H, W, 3]`` uint8, and which of them stands at which
          place of what ``choose`` returned, in its shape.

    Raises:
        DamagedVideoError: If the folder or a frame that is wanted is missing, damaged, or of another size.
        ImportError: If Pillow is not installed.

    Example:
        >>> write_frame_folder("18", np.zeros((6, 8, 10, 3), np.uint8))
        >>> frames, places = read_frame_folder("18", lambda count: np.array([0, 0, count - 1]))
        >>> frames.shape, places.tolist()
        (torch.Size([2, 8, 10, 3]), [0, 0, 1])
    """
    names = list_frames(folder)
    chosen = choose(len(names))
    wanted, places = np.unique(chosen, return_inverse=True)
    frames = [read_frame(Path(folder, names[number])) for number in wanted.tolist()]
    return stack_frames(folder, frames), places.reshape(chosen.shape)


def read_frame(path: Path) -> np.ndarray:
    r"""The pixels of an image, upright, ``[H, W, 3]`` uint8.

    Raises:
        DamagedVideoError: If it is missing, damaged, no JPEG or PNG image, or larger than a frame can be.
        ImportError: If Pillow is not installed.
    """
    pillow = require_pillow()
    from PIL import ImageOps

    with open_media(path, "a JPEG or PNG image") as file:
        try:
            with pillow.open(file, formats=("JPEG", "PNG")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"one of {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
                ImageOps.exif_transpose(image, in_place=True)
                if image.mode.startswith("I"):  # grey in 16 bits, which Pillow would cut off at 255
                    grey = (np.asarray(image).astype(np.uint32) // 257).astype(np.uint8)
                    return np.repeat(grey[..., None], 3, -1)
                return np.asarray(image.convert("RGB"))
        except MemoryError:
            raise
        except Exception as error:
            # Whatever a decoder raises of damaged data.
            what = str(error).split(" <")[0]
            damage = Damage.TRUNCATED if "truncated" in what.lower() else Damage.UNREADABLE
            raise DamagedVideoError(f"expected a JPEG or PNG image in {path}, got {what}", damage) from error


def write_frame_folder(folder: str | os.PathLike, frames: Iterable[np.ndarray], quality: int = 90) -> None:
    r"""Write a video as numbered JPEG frames.

    Args:
        folder: The folder; it is made. JPEG frames of that name in it, such as 00001.jpg, are removed first.
        frames: The frames.
        quality: Quality of the JPEG files, 1 to 95.

    Shapes:
        - **frames:** each ``[H, W, 3]`` uint8.

    Raises:
        ImportError: If Pillow is not installed.

    Example:
        >>> write_frame_folder("19", np.zeros((2, 8, 10, 3), np.uint8))
        >>> sorted(os.listdir("19"))
        ['00001.jpg', '00002.jpg']
    """
    pillow = require_pillow()
    Path(folder).mkdir(parents=True, exist_ok=True)
    for old in Path(folder).iterdir():
        # Of a longer video, the rest would stay behind the new one.
        if re.fullmatch(r"[0-9]+\.jpg", old.name):
            old.unlink()
    for number, frame in enumerate(frames, start=1):
        # Pillow itself cuts a file off on a full disk and does not say so.
        path, content = Path(folder, f"{number:05d}.jpg"), io.BytesIO()
        pillow.fromarray(frame).save(content, "JPEG", quality=quality)
        with naming(path):
            path.write_bytes(content.getbuffer())


def require_pillow() -> Any:
    r"""Pillow's ``Image``; an ImportError says how to install it."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "Pillow, which reads and writes JPEG frames, is not installed. Install it with 'pip install pillow'"
        ) from error
    return Image
