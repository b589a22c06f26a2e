"""The SyncMNIST dataset."""

from __future__ import annotations

import hashlib
import json
import operator
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data, Dataset

from rstg_pyg.arguments import check_index
from rstg_pyg.datasets.authors_paths import AuthorsPaths, check_arguments, open_paths
from rstg_pyg.datasets.clips import NO_SYNC_PROBABILITY, Clip, sample_clip
from rstg_pyg.datasets.digits import open_digits
from rstg_pyg.datasets.labels import NUM_CLASSES
from rstg_pyg.datasets.render import render_clip
from rstg_pyg.datasets.store import ClipFile

FORMAT_VERSION = 1


def _whole_number(name: str, value: object, low: int, high: int | None = None) -> int:
    """Checks an integer argument."""
    span = f"an integer of at least {low}" if high is None else f"an integer within {low} to {high}"
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"expected '{name}' to be {span}, got {value!r}")
    if number < low or (high is not None and number > high):
        raise ValueError(f"expected '{name}' to be {span}, got {number}")
    return number


def _probability(name: str, value: object) -> float:
    """Checks a probability."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"expected '{name}' to be a number within 0 to 1, got {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"expected '{name}' to be a number within 0 to 1, got {value}")
    return float(value)


def _truth(name: str, value: object) -> bool:
    """Checks a Boolean argument."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"expected '{name}' to be True or False, got {value!r}")
    return bool(value)


class SyncMNIST(Dataset):
    r"""Clips of moving handwritten digits, two of which move in step: which two?

    The synthetic dataset of `"Recurrent Space-time Graph Neural Networks"
    <https://arxiv.org/abs/1904.05582>`_ (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019), called
    3SyncMNIST and 5SyncMNIST there by the number of digits. Digits of different classes move over
    a black canvas of 100 x 100, each by its own random walk; with probability 91/92 the first two
    make the same moves. The label is the pair of classes that moves in step,
    :math:`i (i - 1) / 2 + j` for classes :math:`i > j`, or 45 when none does.

    Clip :math:`i` is a function of the seed, the split and :math:`i`, and of nothing else: not of
    the worker, the process, the batch, the order of access, or the number of clips. It shows
    digit image :math:`i` modulo the number of images, and others.

    The images are those of MNIST, from a folder that holds its files, or downloaded to
    :obj:`root/raw`. Without either, and with :obj:`digits="auto"`, a warning says so and the
    digits that scikit-learn ships take their place. The test split has digit images and random
    numbers of its own in any case.

    With :obj:`train=False, paths="authors"`, the clips are the 10,000 test clips of 5SyncMNIST that
    the authors publish: digits, paths and labels are those of their file, and at :obj:`size=64`
    the frames are theirs byte for byte. The file is downloaded from their repository to
    :obj:`root/raw`, unless the environment variable :obj:`RSTG_PYG_REFERENCE` names a folder that
    holds it. It is held against its checksum, and it is a pickle of which only arrays are read.

    Args:
        root (str or PathLike): Where downloads (:obj:`root/raw`) and clips generated ahead of time
            (:obj:`root/processed`) go. Nothing is written where neither is needed.
        num_digits (int): Number of digits, 2 to 10. (default: :obj:`5`)
        train (bool): Whether to take the training or the test split. (default: :obj:`True`)
        num_frames (int): Number of frames :math:`T`. (default: :obj:`10`)
        size (int): Height and width :math:`S` of the frames. (default: :obj:`64`)
        num_clips (int, optional): Number of clips. (default: 600,000 for training, 10,000 for
            test)
        seed (int): The seed, 0 to :math:`2^{64} - 1`. (default: :obj:`0`)
        digits (str): :obj:`"mnist"`, :obj:`"sklearn"`, or :obj:`"auto"` for MNIST where it can be
            had and scikit-learn's digits elsewhere. (default: :obj:`"auto"`)
        mnist_dir (str or PathLike, optional): A folder with the four IDX files of MNIST, with or
            without ``.gz``. (default: the environment variable :obj:`RSTG_PYG_MNIST`, if it is
            set)
        pregenerate (bool): Whether to generate all clips ahead of time, into one file that later
            constructions with the same arguments use again. The clips are the same bytes either
            way. (default: :obj:`False`)
        no_sync_probability (float): Probability that no pair of a clip moves in step. The authors'
            is :obj:`1/92`; with more of such clips, motion is worth more than classes, which helps
            the first part of a curriculum. (default: :obj:`1/92`)
        transform (callable, optional): Applied to every :class:`~torch_geometric.data.Data` on
            access. (default: :obj:`None`)
        log (bool): Whether downloads and generation print a line. (default: :obj:`True`)
        paths (str or PathLike, optional): :obj:`"authors"` for the authors' test clips, or, in place
            of a download, a copy of their file :obj:`predefined_path_test.pickle`. Goes with
            :obj:`train=False`, 5 digits, 10 frames, at most 10,000 clips and MNIST, for which
            :obj:`digits="auto"` then stands, and with neither :obj:`seed` nor
            :obj:`no_sync_probability`. (default: :obj:`None`, clips drawn at random)

    Shapes:
        Attributes of an item, with :math:`D` digits:

        - **video:** :math:`(1, 1, T, S, S)`, uint8; the batches of PyG's
          :class:`~torch_geometric.loader.DataLoader` hold :math:`(B, 1, T, S, S)`
        - **y:** :math:`(1)`, the label, 0 to 45
        - **digits:** :math:`(1, D)`, the classes in the order of pasting
        - **sync:** :math:`(1, 2)`, which digits move in step: :math:`(0, 1)`, or :math:`(-1, -1)`
          for none
        - **path:** :math:`(1, D, T, 2)`, top-left corners (row, column) on the canvas

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of range or does not go together with :obj:`paths`, or a
            file of clips or paths is damaged.
        FileNotFoundError: If a named folder lacks the files of MNIST, or there is no file of paths
            where one was named.
        IDXError: If a file of MNIST is damaged, or is another file.
        DownloadError: If MNIST, with :obj:`digits="mnist"` or :obj:`paths`, or the file of
            :obj:`paths="authors"` is not there and cannot be downloaded.
        ImportError: If scikit-learn's digits are needed and scikit-learn is not installed.

    Example:
        >>> from torch_geometric.loader import DataLoader
        >>> dataset = SyncMNIST("data/SyncMNIST", num_digits=3, digits="sklearn", num_clips=100)
        >>> batch = next(iter(DataLoader(dataset, batch_size=4)))
        >>> batch.video.shape, batch.y.shape
        (torch.Size([4, 1, 10, 64, 64]), torch.Size([4]))
    """

    def __init__(
        self,
        root: str | os.PathLike,
        num_digits: int = 5,
        train: bool = True,
        num_frames: int = 10,
        size: int = 64,
        num_clips: int | None = None,
        seed: int = 0,
        digits: str = "auto",
        mnist_dir: str | os.PathLike | None = None,
        pregenerate: bool = False,
        no_sync_probability: float = NO_SYNC_PROBABILITY,
        transform: Callable | None = None,
        log: bool = True,
        paths: str | os.PathLike | None = None,
    ) -> None:
        if not isinstance(root, (str, os.PathLike)):
            raise TypeError(f"expected 'root' to be a path, got {root!r}")
        if mnist_dir is not None and not isinstance(mnist_dir, (str, os.PathLike)):
            raise TypeError(f"expected 'mnist_dir' to be a path or None, got {mnist_dir!r}")
        if paths is not None and not isinstance(paths, (str, os.PathLike)):
            raise TypeError(f"expected 'paths' to be \"authors\", a path or None, got {paths!r}")
        if transform is not None and not callable(transform):
            raise TypeError(f"expected 'transform' to be callable or None, got {transform!r}")
        self.num_digits = _whole_number("num_digits", num_digits, 2, 10)
        self.train = _truth("train", train)
        self.num_frames = _whole_number("num_frames", num_frames, 1)
        self.size = _whole_number("size", size, 1)
        if num_clips is None:
            num_clips = 600_000 if self.train else 10_000
        self.num_clips = _whole_number("num_clips", num_clips, 1)
        self.seed = _whole_number("seed", seed, 0, 2**64 - 1)
        self.no_sync_probability = _probability("no_sync_probability", no_sync_probability)
        self.pregenerate = _truth("pregenerate", pregenerate)
        if paths is not None:
            check_arguments(
                self.train,
                self.num_digits,
                self.num_frames,
                self.num_clips,
                self.seed,
                self.no_sync_probability,
                digits,
            )
            digits = "mnist"
        super().__init__(os.fspath(root), transform=transform, log=_truth("log", log))

        self._digits, notice = open_digits(digits, self.train, mnist_dir, self.raw_dir, self.log)
        if notice is not None:
            warnings.warn(notice, stacklevel=2)
        self._paths: AuthorsPaths | None = None
        if paths is not None:
            self._paths = open_paths(paths, self.raw_dir, self.log)
            self._paths.check_labels(self._digits)
        self._file: ClipFile | None = None
        if self.pregenerate:
            self._file = ClipFile(self.processed_paths[0], self.num_clips, self.num_frames, self.size)
            if not os.path.isfile(self._file.path):
                if self.log:
                    print(f"Generating {self._file.path}", file=sys.stderr)
                self._file.write(lambda index: self._render(self._sample(index)))
            # A damaged file is met here and not in the middle of a training run.
            self._file.read(self.num_clips - 1)

    @property
    def source(self) -> str:
        r"""Where the digit images come from: :obj:`"mnist"` or :obj:`"sklearn"`."""
        return self._digits.source

    @property
    def num_classes(self) -> int:
        r"""The number of classes, 46."""
        return NUM_CLASSES

    @property
    def processed_file_names(self) -> list[str]:
        r"""The file of clips generated ahead of time; none without :obj:`pregenerate`."""
        if not self.pregenerate:
            return []
        parameters = {
            "format": FORMAT_VERSION,
            "images": self._digits.fingerprint,
            "train": self.train,
            "num_digits": self.num_digits,
            "num_frames": self.num_frames,
            "size": self.size,
            "num_clips": self.num_clips,
            "seed": self.seed,
            "no_sync_probability": self.no_sync_probability,
        }
        if self._paths is not None:
            parameters["paths"] = self._paths.fingerprint
        key = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:16]
        return [f"syncmnist_{'train' if self.train else 'test'}_{key}.npy"]

    def __getitem__(self, idx: Any) -> Any:
        check_index("clip", idx, len(self))
        return super().__getitem__(idx)

    def len(self) -> int:
        r"""The number of clips."""
        return self.num_clips

    def get(self, idx: int) -> Data:
        r"""Clip number :obj:`idx`.

        Args:
            idx (int): Number of the clip.

        Raises:
            IndexError: If there is no such clip.
        """
        idx = int(idx)
        if not 0 <= idx < self.num_clips:
            raise IndexError(f"expected a clip number within 0 to {self.num_clips - 1}, got {idx}")
        clip = self._sample(idx)
        video = self._render(clip) if self._file is None else self._file.read(idx)
        # The number of nodes stays open: a transform that adds a graph brings its own.
        return Data(
            video=torch.from_numpy(video)[None, None],
            y=torch.tensor([clip.label]),
            digits=torch.from_numpy(clip.digits)[None],
            sync=torch.tensor([[0, 1] if clip.in_step else [-1, -1]]),
            path=torch.from_numpy(np.ascontiguousarray(clip.path))[None],
        )

    def _sample(self, index: int) -> Clip:
        if self._paths is not None:
            return self._paths.clip(index, self._digits)
        return sample_clip(index, self._digits, self.num_digits, self.num_frames, self.seed, self.no_sync_probability)

    def _render(self, clip: Clip) -> np.ndarray:
        return render_clip(self._digits.images[clip.images], clip.path, self.size)
