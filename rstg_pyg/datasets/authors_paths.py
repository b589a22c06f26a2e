"""The 10,000 test clips that the authors of the paper publish as paths: the file, and what it gives before drawing."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rstg_pyg.datasets.digits import DigitImages
from rstg_pyg.datasets.download import DownloadError, download_files
from rstg_pyg.datasets.scenes import NO_SYNC_PROBABILITY, NUM_STARTS, Scenes
from rstg_pyg.files import naming

AUTHORS = "authors"
REFERENCE_VARIABLE = "RSTG_PYG_REFERENCE"
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
    """Take the arrays out of the bytes of the authors' file, a pickle.

    Shapes:
        - **coords_digits:** top-left corners (row, column), ``[N, T, D, 2]``, uint8.
        - **ind_digits:** indices of the digit images, ``[N, D]``, uint32.
        - **set_digits:** classes of all digits but the first, ``[N, D - 1]``, uint8.
        - **sincron_prob:** 1 where digits 0 and 1 move in step, else 0, ``[N]``, uint8.

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
    """Read the authors' file and hold its content against the checksum.

    Args:
        file: The file.
        advice: What the user can do if it is not the file: the last sentence of the messages.

    Returns:
        The arrays of :func:`parse_paths`.

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


class AuthorsPaths:
    """The authors' test clips before they are drawn, read when they are first needed.

    Pickles carry the place of the file and not its content.

    Args:
        file: The file.
        advice: What the user can do about a bad or missing file.
    """

    def __init__(self, file: str, advice: str) -> None:
        self.file = file
        self.advice = advice

    def __getstate__(self) -> dict:
        return {name: self.__dict__[name] for name in ("file", "advice")}

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the file."""
        return read_paths(self.file, self.advice)

    def check_digits(self, digits: DigitImages) -> None:
        """Raise unless the test images have the classes that the file gives for them."""
        images, expected = self.arrays["ind_digits"][:, 1:], self.arrays["set_digits"]
        if images.max() >= len(digits.labels):
            raise ValueError(
                f"the authors' paths need at least {images.max() + 1} digit images, got {len(digits.labels)}"
            )
        found = digits.labels[images]
        if (found != expected).any():
            clip, place = np.argwhere(found != expected)[0]
            raise ValueError(
                f"the digit images do not fit the authors' paths: in clip {clip} expected digit {place + 1}, image "
                f"{images[clip, place]}, to be of class {expected[clip, place]}, got {found[clip, place]}"
            )

    def scenes(self, digits: DigitImages, device: torch.device) -> Scenes:
        """All the authors' clips, drawn with these test images of MNIST."""
        images = self.arrays["ind_digits"].astype(np.int64)
        path = self.arrays["coords_digits"].swapaxes(1, 2).astype(np.int64, order="C")
        arrays = (images, digits.labels[images].astype(np.int64), path, self.arrays["sincron_prob"] == 1)
        return Scenes(*(torch.from_numpy(array).to(device) for array in arrays))


def open_paths(paths: str | os.PathLike, raw_dir: str | os.PathLike, log: bool = True) -> AuthorsPaths:
    """Decide where the authors' paths come from, and read them, so that a bad file is met at once.

    1. The file ``paths``, unless that is ``"authors"``.
    2. The file in the folder that the environment variable ``RSTG_PYG_REFERENCE`` names. A file or folder that was
       named is used or is an error.
    3. The file in the folder ``raw_dir``, into which it is downloaded first if it is missing.

    Args:
        paths: ``"authors"``, or the file.
        raw_dir: The folder for downloads.
        log: Print a line per download.

    Raises:
        FileNotFoundError: If a named file or folder is missing.
        ValueError: If the file is damaged or another file.
        DownloadError: If the file is neither there nor can be downloaded.
    """
    if paths != AUTHORS or os.environ.get(REFERENCE_VARIABLE):
        file, origin = paths, "'paths'"
        if paths == AUTHORS:
            file = Path(os.environ[REFERENCE_VARIABLE], FILE_NAME)
            origin = f"the environment variable {REFERENCE_VARIABLE}"
        advice = f"Put an intact copy of the file there (it is at {URL}), or correct {origin}"
    else:
        file = Path(raw_dir, FILE_NAME)
        advice = "Delete the file and construct the dataset again: it will be downloaded anew"
        try:
            if not file.is_file():
                download_files(raw_dir, {FILE_NAME: [URL]}, lambda path, _: read_paths(path, ""), "the file", log)
        except DownloadError as error:
            raise DownloadError(
                f"{error}. Connect to the network, or put the file ({NUM_BYTES} bytes with SHA-256 {CHECKSUM}) into "
                f"{raw_dir} or into a folder named in {REFERENCE_VARIABLE}, or name it in 'paths'"
            ) from error
    opened = AuthorsPaths(os.path.abspath(os.path.expanduser(file)), advice)
    _ = opened.arrays
    return opened


def check_arguments(dataset: Any, digits: str) -> None:
    """Raise unless the arguments of a :class:`~rstg_pyg.datasets.SyncMNIST` go together with ``paths``."""
    if dataset.train:
        raise ValueError("expected 'train' to be False with 'paths', which are those of test clips, got True")
    for name, default in (("seed", 0), ("no_sync_probability", NO_SYNC_PROBABILITY), ("delay", 0)):
        found = getattr(dataset, name)
        if found != default:
            raise ValueError(f"'{name}' has no effect with 'paths', where nothing is drawn: leave it out, got {found}")
    for name, expected in (("num_digits", NUM_DIGITS), ("num_frames", NUM_FRAMES)):
        found = getattr(dataset, name)
        if found != expected:
            raise ValueError(f"expected '{name}' to be {expected} with 'paths', as in the authors' clips, got {found}")
    if dataset.num_clips > NUM_CLIPS:
        raise ValueError(f"expected 'num_clips' to be at most {NUM_CLIPS} with 'paths', got {dataset.num_clips}")
    if digits not in ("mnist", "auto"):
        raise ValueError(f"expected 'digits' to be 'mnist' or 'auto' with 'paths', got {digits!r}")
