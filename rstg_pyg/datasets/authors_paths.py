"""The 10,000 test clips that the authors of the paper publish as paths, before they are drawn."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np

from rstg_pyg.datasets.authors_file import (
    CHECKSUM,
    FILE_NAME,
    NUM_BYTES,
    NUM_CLIPS,
    NUM_DIGITS,
    NUM_FRAMES,
    URL,
    download_paths,
    read_paths,
)
from rstg_pyg.datasets.clips import NO_SYNC_PROBABILITY, Clip
from rstg_pyg.datasets.digits import DigitImages
from rstg_pyg.datasets.download import DownloadError
from rstg_pyg.datasets.labels import NO_SYNC, pair_to_label

AUTHORS = "authors"
REFERENCE_VARIABLE = "RSTG_PYG_REFERENCE"


class AuthorsPaths:
    r"""The authors' test clips before they are drawn, read when they are first needed.

    Pickles carry the place of the file and not its content.

    Args:
        file (str): The file.
        advice (str): What the user can do about a bad or missing file.
    """

    def __init__(self, file: str, advice: str) -> None:
        self.file = file
        self.advice = advice

    def __getstate__(self) -> dict:
        return {name: self.__dict__[name] for name in ("file", "advice")}

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        r"""The arrays of the file."""
        return read_paths(self.file, self.advice)

    @property
    def fingerprint(self) -> str:
        r"""A text that differs between different sets of paths."""
        return CHECKSUM

    def check_labels(self, digits: DigitImages) -> None:
        r"""Checks that the images have the classes that the file gives for them.

        Args:
            digits (DigitImages): The test images of MNIST.

        Raises:
            ValueError: If the classes of an image differ.
        """
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

    def clip(self, index: int, digits: DigitImages) -> Clip:
        r"""The authors' clip number :obj:`index`.

        Args:
            index (int): Number of the clip, 0 to 9,999.
            digits (DigitImages): The test images of MNIST.

        Returns:
            Clip: The clip.
        """
        images = self.arrays["ind_digits"][index].astype(np.int64)
        classes = digits.labels[images].astype(np.int64)
        in_step = bool(self.arrays["sincron_prob"][index])
        return Clip(
            images,
            classes,
            self.arrays["coords_digits"][index].swapaxes(0, 1).astype(np.int64),
            in_step,
            pair_to_label(int(classes[0]), int(classes[1])) if in_step else NO_SYNC,
        )


def open_paths(paths: str | os.PathLike, raw_dir: str | os.PathLike, log: bool = True) -> AuthorsPaths:
    r"""Decides where the authors' paths come from, and reads them.

    1. The file :obj:`paths`, unless that is :obj:`"authors"`.
    2. The file in the folder that the environment variable :obj:`RSTG_PYG_REFERENCE` names. A
       file or folder that was named is used or is an error.
    3. The file in the folder :obj:`raw_dir`, into which it is downloaded first if it is missing.

    Args:
        paths (str or PathLike): :obj:`"authors"`, or the file.
        raw_dir (str or PathLike): The folder for downloads.
        log (bool): Whether downloads print a line. (default: :obj:`True`)

    Returns:
        AuthorsPaths: The paths.

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
                download_paths(raw_dir, log)
        except DownloadError as error:
            raise DownloadError(
                f"{error}. Connect to the network, or put the file ({NUM_BYTES} bytes with SHA-256 {CHECKSUM}) into "
                f"{raw_dir} or into a folder named in {REFERENCE_VARIABLE}, or name it in 'paths'"
            ) from error
    opened = AuthorsPaths(os.path.abspath(os.path.expanduser(file)), advice)
    # A bad file is met here and not in the middle of a training run.
    _ = opened.arrays
    return opened


def check_arguments(
    train: bool,
    num_digits: int,
    num_frames: int,
    num_clips: int,
    seed: int,
    no_sync_probability: float,
    digits: str,
) -> None:
    r"""Checks that arguments of :class:`~rstg_pyg.datasets.SyncMNIST` go together with :obj:`paths`.

    Args:
        train (bool): Must be :obj:`False`.
        num_digits (int): Must be 5.
        num_frames (int): Must be 10.
        num_clips (int): Must be at most 10,000.
        seed (int): Must be the default, 0.
        no_sync_probability (float): Must be the default, :obj:`1/92`.
        digits (str): Must not be :obj:`"sklearn"`.

    Raises:
        ValueError: If one of them does not.
    """
    if train:
        raise ValueError("expected 'train' to be False with 'paths', which are those of test clips, got True")
    for name, found, expected in (("num_digits", num_digits, NUM_DIGITS), ("num_frames", num_frames, NUM_FRAMES)):
        if found != expected:
            raise ValueError(f"expected '{name}' to be {expected} with 'paths', as in the authors' clips, got {found}")
    if num_clips > NUM_CLIPS:
        raise ValueError(f"expected 'num_clips' to be at most {NUM_CLIPS} with 'paths', got {num_clips}")
    for name, found, expected in (
        ("seed", seed, 0),
        ("no_sync_probability", no_sync_probability, NO_SYNC_PROBABILITY),
    ):
        if found != expected:
            raise ValueError(f"'{name}' has no effect with 'paths', where nothing is drawn: leave it out, got {found}")
    if digits not in ("mnist", "auto"):
        raise ValueError(f"expected 'digits' to be 'mnist' or 'auto' with 'paths', got {digits!r}")
