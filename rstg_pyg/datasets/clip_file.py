"""Clips generated ahead of time, in one file."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np

from rstg_pyg.files import FileError, open_file, reading, replacing

# More bytes than the header of such a file has.
_HEADER = 10_000


class ClipFile:
    """A file of rendered clips, each with a checksum, read one at a time.

    The file is a ``.npy`` file of records: the clip's frames and their CRC-32. It is not mapped into memory: a file
    that someone shortens, or a disk that fails, would end the process without a word. Pickles carry the file's name and
    not its content.

    Args:
        path: The file.
        num_clips: Number of clips.
        num_frames: Number T of frames per clip.
        size: Height and width S of the frames.
    """

    def __init__(self, path: str | os.PathLike, num_clips: int, num_frames: int, size: int) -> None:
        self.path = os.path.abspath(path)
        self.num_clips = num_clips
        self.record = np.dtype([("video", np.uint8, (num_frames, size, size)), ("crc", "<u4")])

    def __getstate__(self) -> dict:
        return {name: self.__dict__[name] for name in ("path", "num_clips", "record")}

    def write(self, render: Callable[[int], np.ndarray]) -> None:
        """Generate all clips into a temporary file and move it into place when it is complete.

        Args:
            render: Gives the frames of the clip with a number, uint8 ``[T, S, S]``.

        Raises:
            OSError: If the disk has not enough room, or the file cannot be written.
        """
        folder = Path(self.path).parent
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = self.num_clips * self.record.itemsize, shutil.disk_usage(folder).free
        if needed > free:
            raise OSError(
                f"{self.num_clips} clips generated ahead of time need {needed / 1e9:.1f} GB in "
                f"{folder}, which has {free / 1e9:.1f} GB free: choose a smaller 'num_clips', "
                "another 'root', or 'pregenerate=False'"
            )
        header = {
            "descr": np.lib.format.dtype_to_descr(self.record),
            "fortran_order": False,
            "shape": (self.num_clips,),
        }
        clip = np.zeros(1, dtype=self.record)
        with replacing(self.path) as part, open(part, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for index in range(self.num_clips):
                video = render(index)
                clip[0] = (video, zlib.crc32(video))
                file.write(clip.tobytes())
            file.flush()
            os.fsync(file.fileno())

    @cached_property
    def start(self) -> int:
        """The number of bytes before the first clip, of a file that was found whole."""
        with self._reading():
            with open_file(self.path) as file:
                header, size = BytesIO(file.read(_HEADER)), os.fstat(file.fileno()).st_size
            np.lib.format.read_magic(header)
            shape, _, dtype = np.lib.format.read_array_header_1_0(header)
            if dtype != self.record or shape != (self.num_clips,):
                raise ValueError(
                    f"expected {self.num_clips} records of {self.record}, found shape {list(shape)} of {dtype}"
                )
            whole = header.tell() + self.num_clips * self.record.itemsize
            if size != whole:
                raise ValueError(f"expected {whole} bytes, found {size}")
        return header.tell()

    def read(self, index: int) -> np.ndarray:
        """Read the frames of one clip, uint8 ``[T, S, S]``.

        Raises:
            FileNotFoundError: If the file is not there.
            FileError: If it is damaged, truncated or holds something else.
        """
        start = self.start + index * self.record.itemsize
        with self._reading():
            clips = np.fromfile(self.path, self.record, count=1, offset=start)
            if not len(clips) or zlib.crc32(clips["video"]) != clips["crc"]:
                raise ValueError(f"clip {index} does not match its checksum")
        return clips["video"][0]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        again = "construct the dataset again: it will be generated anew"
        try:
            with reading(self.path, FileError, "a whole file of clips"):
                yield
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.path} is gone. {again.capitalize()}") from error
        except FileError as error:
            raise FileError(f"{error}. Delete the file and {again}") from error
