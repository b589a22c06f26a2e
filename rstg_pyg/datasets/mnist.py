"""MNIST from the four IDX files, each held against its checksum."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from rstg_pyg.datasets.idx import IDXError, read_content

FILE_NAMES = {
    True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
ALL_FILE_NAMES = FILE_NAMES[True] + FILE_NAMES[False]

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


def find_mnist_file(folder: str | os.PathLike, name: str) -> Path | None:
    r"""The file of that name in a folder, as it is or with ``.gz``; :obj:`None` if there is none.

    Args:
        folder (str or PathLike): The folder.
        name (str): One of the four names, without ``.gz``.
    """
    for path in (Path(folder, f"{name}.gz"), Path(folder, name)):
        if path.is_file():
            return path
    return None


def read_mnist_file(path: str | os.PathLike, name: str, advice: str) -> np.ndarray:
    r"""Reads one MNIST file and holds its content against the checksum.

    Args:
        path (str or PathLike): The file, compressed or not.
        name (str): Which of the four files it should be, without ``.gz``.
        advice (str): What the user can do if it is not: the last sentence of the messages.

    Shapes:
        - **output:** :math:`(N, 28, 28)` for images or :math:`(N)` for labels, uint8

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
    r"""The images and labels of one split from a folder with the IDX files.

    Args:
        folder (str or PathLike): The folder.
        train (bool): Whether to read the training or the test files.
        advice (str): What the user can do about a bad or missing file.

    Shapes:
        - **output:** images :math:`(N, 28, 28)` and labels :math:`(N)`, uint8

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
