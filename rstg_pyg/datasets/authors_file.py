"""The file with the paths of the 10,000 test clips that the authors of the paper publish."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path

import numpy as np

from rstg_pyg.datasets.download import download_files
from rstg_pyg.datasets.motion import NUM_STARTS
from rstg_pyg.files import naming

FILE_NAME = "predefined_path_test.pickle"
# One commit of the authors' repository: what it holds does not change.
URL = (
    "https://raw.githubusercontent.com/IuliaDuta/RSTG/4e46ba81754c81ebf5a5c036b47e35d7d042a0fc/"
    f"create_datasets/{FILE_NAME}"
)
NUM_BYTES = 1_260_612
CHECKSUM = "8d65395d8343738dbce58dea7654d911074d51ae758118044052fb08e62bfee0"

NUM_CLIPS, NUM_FRAMES, NUM_DIGITS = 10_000, 10, 5
# Shape, type and largest value of the arrays; any other is left aside.
ARRAYS = {
    "coords_digits": ((1, NUM_CLIPS, NUM_FRAMES, NUM_DIGITS, 2), "u1", NUM_STARTS - 1),
    "ind_digits": ((1, NUM_CLIPS, NUM_DIGITS), "<u4", 9999),
    "set_digits": ((1, NUM_CLIPS, NUM_DIGITS - 1), "u1", 9),
    "sincron_prob": ((1, NUM_CLIPS), "u1", 1),
}

# All that a pickle of arrays calls. NumPy 1 and 2 name the module of the first one differently.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ADMITTED = {
    "numpy.core.multiarray._reconstruct": _RECONSTRUCT,
    "numpy._core.multiarray._reconstruct": _RECONSTRUCT,
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays of NumPy in containers of Python, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> object:
        try:
            return _ADMITTED[f"{module}.{name}"]
        except KeyError:
            raise ValueError(f"a pickle of arrays was expected, but it asks for {module}.{name}") from None


def parse_paths(content: bytes) -> dict[str, np.ndarray]:
    r"""The arrays in the bytes of the authors' file.

    Args:
        content (bytes): The content of the file, a pickle.

    Shapes:
        - **coords_digits:** top-left corners (row, column), :math:`(N, T, D, 2)`, uint8
        - **ind_digits:** indices of the digit images, :math:`(N, D)`, uint32
        - **set_digits:** classes of all digits but the first, :math:`(N, D - 1)`, uint8
        - **sincron_prob:** 1 where digits 0 and 1 move in step, else 0, :math:`(N)`, uint8

    Raises:
        ValueError: If the pickle asks for anything but arrays, or if these are not the expected ones.
    """
    loaded = _ArrayUnpickler(io.BytesIO(content)).load()
    if not isinstance(loaded, dict):
        raise ValueError(f"expected a dictionary of arrays, got {type(loaded).__name__}")
    for name, (shape, dtype, highest) in ARRAYS.items():
        array = loaded.get(name)
        if not isinstance(array, np.ndarray):
            raise ValueError(f"expected an array '{name}', got {type(array).__name__}")
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"expected '{name}' to be {list(shape)} of {np.dtype(dtype)}, got {list(array.shape)} of {array.dtype}"
            )
        if array.max() > highest:
            raise ValueError(f"expected '{name}' to lie within 0 to {highest}, got {array.max()}")
    return {name: loaded[name][0] for name in ARRAYS}


def read_paths(file: str | os.PathLike, advice: str) -> dict[str, np.ndarray]:
    r"""Reads the authors' file and holds its content against the checksum.

    Args:
        file (str or PathLike): The file.
        advice (str): What the user can do if it is not the file: the last sentence of the messages.

    Returns:
        dict: The arrays of :func:`parse_paths`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or another file.
    """
    if not os.path.isfile(file):
        raise FileNotFoundError(f"there is no file {file} with the authors' paths. {advice}")
    with naming(file):
        content = Path(file).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != CHECKSUM:
        raise ValueError(
            f"{file} is not the {FILE_NAME} of the authors: expected {NUM_BYTES} bytes with SHA-256 {CHECKSUM}, "
            f"found {len(content)} bytes with {found}. {advice}"
        )
    return parse_paths(content)


def download_paths(folder: str | os.PathLike, log: bool = True) -> None:
    r"""Puts the authors' file into a folder.

    Args:
        folder (str or PathLike): The folder. If nothing could be fetched it is left as it was.
        log (bool): Whether to print a line. (default: :obj:`True`)

    Raises:
        DownloadError: If the server cannot be reached.
        ValueError: If something was fetched, but not the file.
    """
    download_files(folder, {FILE_NAME: [URL]}, lambda path, _: read_paths(path, ""), "the file", log)
