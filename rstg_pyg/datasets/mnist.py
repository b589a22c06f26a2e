"""MNIST: its four IDX files, read strictly, held against their checksums, and downloaded where they are missing."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
from pathlib import Path

import numpy as np

from rstg_pyg.datasets.download import download_files
from rstg_pyg.files import FileError, open_file, reading

FILE_NAMES = {
    True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# Unsigned bytes in three dimensions for images, in one for labels.
MAGIC_NUMBERS = {True: 0x00000803, False: 0x00000801}
MOST_ITEMS = 60_000 * 28 * 28
# SHA-256 of the decompressed files: the same data may be compressed in many ways.
CHECKSUMS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_ITEM_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class IDXError(FileError):
    """A file is not the IDX file that it should be. The message names the file."""


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Read the array in an IDX file, gzip-compressed or not.

    Args:
        path: The file.

    Returns:
        The array, read-only.

    Raises:
        FileNotFoundError: If there is no such file.
        IDXError: If the file is damaged, truncated, too long or no IDX file at all.

    Source: the IDX format of MNIST, Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "labels")
        >>> _ = open(path, "wb").write(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 6]))
        >>> read_idx(path).tolist()
        [5, 6]
    """
    return read_content(path)[1]


def read_content(
    path: str | os.PathLike, magic: int | None = None, most: int | None = None
) -> tuple[bytes, np.ndarray]:
    """Read the header and the array of an IDX file.

    An IDX file starts with two zero bytes, a byte for the item type and a byte for the number n of dimensions; then
    follow n sizes of four bytes and the items, all high byte first. Nothing may be missing and nothing may follow. No
    more is decompressed than the header says.

    Args:
        path: The file. Its first two bytes decide whether it is compressed.
        magic: The magic number, i.e. the first four bytes, that the file must have; None for any that IDX knows.
        most: How many items it may have; None for any number.
    """
    with reading(path, IDXError, "an IDX file"), open_file(path) as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        file = gzip.GzipFile(fileobj=raw) if packed else raw
        header = file.read(4)
        if len(header) < 4:
            raise IDXError(f"{path} is truncated: {len(header)} bytes cannot hold an IDX header")
        if header[:2] != b"\0\0" or header[2] not in _ITEM_TYPES or header[3] == 0:
            raise IDXError(
                f"{path} is not an IDX file: expected a magic number 0x0000TTNN with a known item "
                f"type TT and NN > 0 dimensions, found 0x{header.hex()}"
            )
        if magic is not None and int.from_bytes(header, "big") != magic:
            raise IDXError(f"{path} has a wrong magic number: expected 0x{magic:08x}, found 0x{header.hex()}")
        dtype = np.dtype(_ITEM_TYPES[header[2]])
        begin = 4 + 4 * header[3]
        header += file.read(begin - 4)
        if len(header) < begin:
            raise IDXError(
                f"{path} is truncated: {header[3]} dimensions need a header of {begin} bytes, found {len(header)}"
            )
        shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
        items = math.prod(shape)
        if most is not None and items > most:
            raise IDXError(f"{path} is too large: expected at most {most} items, found shape {list(shape)}")
        size = items * dtype.itemsize
        # A byte of gzip stands for at most 1,032: what a header asks for beyond that is not there.
        content = file.read(min(size + 1, (1032 if packed else 1) * os.fstat(raw.fileno()).st_size))
        if len(content) != size:
            state = "is truncated" if len(content) < size else "has trailing bytes"
            raise IDXError(
                f"{path} {state}: its header, of shape {list(shape)}, asks for {begin + size} bytes, found "
                f"{begin + len(content)}{' or more' if len(content) > size else ''}"
            )
        array = np.frombuffer(content, dtype).reshape(shape)
        return header, array.astype(dtype.newbyteorder("="), copy=False)


def find_mnist_file(folder: str | os.PathLike, name: str) -> Path | None:
    """Find the file of that name in a folder, as it is or with ``.gz``; None if there is none."""
    for path in (Path(folder, f"{name}.gz"), Path(folder, name)):
        if path.is_file():
            return path
    return None


def read_mnist_file(path: str | os.PathLike, name: str, advice: str) -> np.ndarray:
    """Read one of the four files and hold its content against the checksum.

    Args:
        path: The file, compressed or not.
        name: Which of the four it should be, without ``.gz``.
        advice: What the user can do if it is not: the last sentence of the messages.

    Shapes:
        - **output:** ``[N, 28, 28]`` for images or ``[N]`` for labels, uint8.

    Raises:
        IDXError: If the file is damaged, truncated, no IDX file, or not the file of MNIST.
    """
    try:
        header, array = read_content(path, MAGIC_NUMBERS["images" in name], MOST_ITEMS)
    except IDXError as error:
        raise IDXError(f"{error}. {advice}") from error
    found = hashlib.sha256(header + array.tobytes()).hexdigest()
    if found != CHECKSUMS[name]:
        raise IDXError(
            f"{path} is not the {name} of MNIST: expected SHA-256 {CHECKSUMS[name]} of the "
            f"decompressed content, found {found}. {advice}"
        )
    return array


def read_mnist(folder: str | os.PathLike, train: bool, advice: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the images and labels of one split from a folder with the IDX files.

    Args:
        folder: The folder.
        train: Read the training files; else the test files.
        advice: What the user can do about a bad or missing file.

    Shapes:
        - **output:** images ``[N, 28, 28]`` and labels ``[N]``, uint8.

    Raises:
        FileNotFoundError: If the folder or one of the two files is missing.
        IDXError: If a file is damaged or not the file of MNIST.

    Example:
        >>> read_mnist("no/such/folder", True, "Name another folder.")
        Traceback (most recent call last):
        FileNotFoundError: the MNIST folder no/such/folder does not exist. Name another folder.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"the MNIST folder {folder} does not exist. {advice}")
    arrays = []
    for name in FILE_NAMES[train]:
        path = find_mnist_file(folder, name)
        if path is None:
            raise FileNotFoundError(f"{folder} holds neither {name}.gz nor {name}. {advice}")
        arrays.append(read_mnist_file(path, name, advice))
    return arrays[0], arrays[1]


def download_mnist(folder: str | os.PathLike, log: bool = True) -> None:
    """Put the files of MNIST that a folder lacks into it, from the first of ``MIRRORS`` that has them.

    Args:
        folder: The folder. Where nothing could be fetched it is left as it was.
        log: Print a line per download.

    Raises:
        DownloadError: If no mirror can be reached.
        IDXError: If something was fetched, but from no mirror the file of MNIST.
    """
    missing = [f"{name}.gz" for names in FILE_NAMES.values() for name in names if find_mnist_file(folder, name) is None]
    download_files(
        folder,
        {name: [mirror + name for mirror in MIRRORS] for name in missing},
        lambda path, name: read_mnist_file(path, name.removesuffix(".gz"), ""),
        "the four MNIST files",
        log,
    )
