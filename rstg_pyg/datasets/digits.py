"""The digit images of SyncMNIST: MNIST from a folder or the network, or the digits that scikit-learn ships."""

from __future__ import annotations

import hashlib
import os
from functools import cached_property

import numpy as np

from rstg_pyg.datasets.download import DownloadError
from rstg_pyg.datasets.drawing import Pixels, opaque_pixels, resize_bilinear
from rstg_pyg.datasets.mnist import CHECKSUMS, FILE_NAMES, MIRRORS, download_mnist, find_mnist_file, read_mnist

MNIST_VARIABLE = "RSTG_PYG_MNIST"
SOURCES = ("auto", "mnist", "sklearn")


class DigitImages:
    """The digit images of one split, read when they are first needed.

    Pickles carry where the images come from and not the images: a worker process reads them again from the same files.

    Args:
        train: Whether these are the training or the test images.
        folder: The folder with the MNIST files, or None for the digits of scikit-learn.
        advice: What the user can do about a bad file in the folder.
    """

    def __init__(self, train: bool, folder: str | None, advice: str = "") -> None:
        self.train = train
        self.folder = folder
        self.advice = advice

    def __getstate__(self) -> dict:
        return {name: self.__dict__[name] for name in ("train", "folder", "advice")}

    @property
    def source(self) -> str:
        """``"mnist"`` or ``"sklearn"``."""
        return "sklearn" if self.folder is None else "mnist"

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        if self.folder is None:
            return read_sklearn_digits(self.train)
        return read_mnist(self.folder, self.train, self.advice)

    @property
    def images(self) -> np.ndarray:
        """The images, uint8 ``[N, 28, 28]``."""
        return self._arrays[0]

    @property
    def labels(self) -> np.ndarray:
        """The digit classes, uint8 ``[N]``."""
        return self._arrays[1]

    @cached_property
    def by_class(self) -> list[np.ndarray]:
        """For each of the ten classes, the indices of its images."""
        return [np.flatnonzero(self.labels == digit) for digit in range(10)]

    @cached_property
    def pixels(self) -> Pixels:
        """What is drawn of each image."""
        return opaque_pixels(self.images)

    @cached_property
    def fingerprint(self) -> str:
        """A text that differs between different sets of images."""
        if self.folder is not None:
            return "-".join(CHECKSUMS[name] for name in FILE_NAMES[self.train])
        content = hashlib.sha256(self.images.tobytes())
        content.update(self.labels.tobytes())
        return content.hexdigest()


def open_digits(
    source: str,
    train: bool,
    mnist_dir: str | os.PathLike | None,
    raw_dir: str | os.PathLike,
    log: bool = True,
) -> tuple[DigitImages, str | None]:
    """Decide where the digit images come from, and read them, so that a bad file is met at once.

    1. The folder ``mnist_dir``, or else the one that the environment variable ``RSTG_PYG_MNIST`` names. A folder that
       was named is used or is an error.
    2. The folder ``raw_dir``, into which missing MNIST files are downloaded first.
    3. With ``source="auto"`` and no network, the digits of scikit-learn.

    Args:
        source: ``"auto"``, ``"mnist"`` (never step 3) or ``"sklearn"`` (only that).
        train: Open the training images; else the test images.
        mnist_dir: A folder with the MNIST files.
        raw_dir: The folder for downloads.
        log: Print a line per download.

    Returns:
        The images, and a notice for the user where step 3 was taken, else None.

    Raises:
        ValueError: If the arguments contradict each other.
        FileNotFoundError: If a named folder lacks files.
        IDXError: If a file is damaged or not the file of MNIST.
        DownloadError: If MNIST is asked for, not there, and cannot be downloaded.
        ImportError: If scikit-learn is needed and not installed.
    """
    if source not in SOURCES:
        raise ValueError(f"expected 'digits' to be one of {list(SOURCES)}, got {source!r}")
    if source == "sklearn" and mnist_dir is not None:
        raise ValueError(
            f"digits='sklearn' does not read the folder given in 'mnist_dir' ({mnist_dir}): leave out one of the two"
        )
    folder, advice, notice = None, "", None
    named = mnist_dir if mnist_dir is not None else os.environ.get(MNIST_VARIABLE) or None
    if source == "sklearn":
        pass
    elif named is not None:
        origin = "'mnist_dir'" if mnist_dir is not None else f"the environment variable {MNIST_VARIABLE}"
        folder, advice = named, f"Put an intact copy of the file there (MNIST is at {MIRRORS[0]}), or correct {origin}"
    else:
        failure = _download(raw_dir, train, log)
        if failure is None:
            folder, advice = raw_dir, "Delete the file and construct the dataset again: it will be downloaded anew"
        elif source == "mnist":
            raise DownloadError(
                f"{failure}. Connect to the network, or put the four MNIST files into {raw_dir} or into a folder named "
                f"in 'mnist_dir' or {MNIST_VARIABLE}"
            ) from failure
        else:
            notice = (
                "MNIST is not here and could not be downloaded: SyncMNIST uses the 8x8 handwritten digits of "
                "scikit-learn instead, so results do not compare with those on MNIST (name a folder with the MNIST "
                f"files in 'mnist_dir' or {MNIST_VARIABLE})"
            )
    if folder is not None:
        # In a form that holds in a worker process, too.
        folder = os.path.abspath(os.path.expanduser(folder))
    digits = DigitImages(train, folder, advice)
    if not all(len(members) for members in digits.by_class):
        raise ValueError(f"the digit images of {digits.source} do not cover all ten classes")
    return digits, notice


def _download(folder: str | os.PathLike, train: bool, log: bool) -> DownloadError | None:
    """Download what a folder lacks; return the failure if both files of the split are not there then."""

    def is_whole() -> bool:
        return all(find_mnist_file(folder, name) is not None for name in FILE_NAMES[train])

    try:
        if not is_whole():
            download_mnist(folder, log=log)
    except DownloadError as error:
        return None if is_whole() else error
    return None


def read_sklearn_digits(train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Bring the 1,797 digits of ``sklearn.datasets.load_digits`` into the form of MNIST.

    Values 0 to 16 become 0 to 255; the 8 x 8 images are resized to 20 x 20, the box that MNIST digits fill, and stand
    in the middle of 28 x 28 pixels. Of every class, images number 0, 7, 14, ... are the test split and all others the
    training split.

    Args:
        train: Return the training split; else the test split.

    Shapes:
        - **output:** images ``[N, 28, 28]`` and labels ``[N]``, uint8.

    Raises:
        ImportError: If scikit-learn is not installed.

    Example:
        >>> images, labels = read_sklearn_digits(train=True)
        >>> images.shape[1:]
        (28, 28)
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "scikit-learn, whose digits stand in for MNIST, is not installed. Install it with "
            "'pip install scikit-learn', or name a folder with the MNIST files in 'mnist_dir' or "
            "in the environment variable RSTG_PYG_MNIST"
        ) from error
    small, labels = load_digits(return_X_y=True)
    number = np.zeros(len(labels), dtype=np.int64)
    for digit in range(10):
        members = labels == digit
        number[members] = np.arange(members.sum())
    chosen = (number % 7 == 0) != train
    small = np.floor(small[chosen].reshape(-1, 8, 8) * (255 / 16) + 0.5).astype(np.uint8)
    images = np.pad(resize_bilinear(small, 20), ((0, 0), (4, 4), (4, 4)))
    return images, labels[chosen].astype(np.uint8)
