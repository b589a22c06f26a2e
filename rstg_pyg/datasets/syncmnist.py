"""The SyncMNIST dataset."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset

from rstg_pyg.arguments import check_flags, check_index, whole_number
from rstg_pyg.datasets.authors_paths import CHECKSUM, AuthorsPaths, check_arguments, open_paths
from rstg_pyg.datasets.clip_file import ClipFile
from rstg_pyg.datasets.digits import open_digits
from rstg_pyg.datasets.drawing import ClipRenderer
from rstg_pyg.datasets.scenes import NO_SYNC_PROBABILITY, NUM_CLASSES, SceneSampler

FORMAT_VERSION = 1
NUM_FRAMES = 10
# How many clips are made together, and how many bytes of their frames are kept, where one is asked for after the other.
AHEAD = 8
AHEAD_BYTES = 2**23


class SyncMNIST(Dataset):
    r"""Clips of moving handwritten digits, two of which move in step: which two?

    The synthetic dataset of `"Recurrent Space-time Graph Neural Networks" <https://arxiv.org/abs/1904.05582>`_
    (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019), called 3SyncMNIST and 5SyncMNIST there by the number of digits. Digits
    of different classes move over a black canvas of 100 x 100, each by its own random walk; with probability 91/92 the
    first two make the same moves. The label is the pair of classes that moves in step, :math:`i (i - 1) / 2 + j` for
    classes :math:`i > j`, or 45 when none does.

    Clip i is a function of the seed, the split and i, and of nothing else: not of the worker, the process, the batch,
    the order of access, or the number of clips. It shows digit image i modulo the number of images, and others.

    With a ``delay`` of G, the second digit of the pair repeats the first one's moves G frames later, so that what tells
    the pair lies G frames apart. Until then it walks on its own. Clips with ``delay=0`` are those of the paper.

    The images are those of MNIST, from a folder that holds its files, or downloaded to ``root/raw``. Without either,
    and with ``digits="auto"``, a warning says so and the digits that scikit-learn ships take their place. The test
    split has digit images and random numbers of its own in any case.

    With ``train=False, paths="authors"``, the clips are the 10,000 test clips of 5SyncMNIST that the authors publish:
    digits, paths and labels are those of their file, and with ``size=64`` the frames are theirs byte for byte. The file
    is downloaded from their repository to ``root/raw``, unless the environment variable ``RSTG_PYG_REFERENCE`` names a
    folder that holds it. It is held against its checksum, and it is a pickle of which only arrays are read.

    Args:
        root: Where downloads (``root/raw``) and clips generated ahead of time (``root/processed``) go. Nothing is
            written where neither is needed.
        num_digits: Number D of digits, 2 to 10.
        train: Take the training split; else the test split.
        num_frames: Number T of frames, more than ``delay`` (default: 10 + ``delay``, so that 10 moves are repeated).
        size: Height and width S of the frames.
        num_clips: Number of clips (default: 600,000 for training, 10,000 for test).
        seed: The seed, 0 to 2^64 - 1.
        digits: ``"mnist"``, ``"sklearn"``, or ``"auto"`` for MNIST where it can be had and scikit-learn's digits
            elsewhere.
        mnist_dir: A folder with the four IDX files of MNIST, with or without ``.gz`` (default: the environment variable
            ``RSTG_PYG_MNIST``, if it is set).
        pregenerate: Generate all clips ahead of time, into one file that later constructions with the same arguments
            use again. The clips are the same bytes either way.
        no_sync_probability: Probability that no pair of a clip moves in step. The authors' is 1/92; with more of such
            clips, motion is worth more than classes, which helps the first part of a curriculum.
        transform: Applied to every :class:`~torch_geometric.data.Data` on access.
        log: Print a line for downloads and generation.
        paths: ``"authors"`` for the authors' test clips, or, in place of a download, a copy of their file
            ``predefined_path_test.pickle``. Goes with ``train=False``, 5 digits, 10 frames, at most 10,000 clips and
            MNIST, for which ``digits="auto"`` then stands, and with neither ``seed``, ``no_sync_probability`` nor
            ``delay``. None for clips drawn at random.
        delay: Frames G from a move of the pair's first digit to the same move of its second.

    Shapes:
        Attributes of an item:

        - **video:** ``[1, 1, T, S, S]``, uint8; the batches of PyG's :class:`~torch_geometric.loader.DataLoader` hold
          ``[B, 1, T, S, S]``.
        - **y:** ``[1]``, the label, 0 to 45.
        - **digits:** ``[1, D]``, the classes in the order of pasting.
        - **sync:** ``[1, 2]``, which digits move in step: (0, 1), or (-1, -1) for none.
        - **path:** ``[1, D, T, 2]``, top-left corners (row, column) on the canvas.

    Raises:
        ValueError: If an argument is of the wrong type, out of range or does not go together with ``paths``, or a file
            of clips or paths is damaged.
        FileNotFoundError: If a named folder lacks the files of MNIST, or there is no file of paths where one was named.
        IDXError: If a file of MNIST is damaged, or is another file.
        DownloadError: If MNIST, with ``digits="mnist"`` or ``paths``, or the file of ``paths="authors"`` is not there
            and cannot be downloaded.
        ImportError: If scikit-learn's digits are needed and scikit-learn is not installed.

    Example:
        >>> from torch_geometric.loader import DataLoader
        >>> dataset = SyncMNIST("data/SyncMNIST", num_digits=3, digits="sklearn", num_clips=100)
        >>> batch = next(iter(DataLoader(dataset, batch_size=4)))
        >>> batch.video.shape, batch.y.shape
        (torch.Size([4, 1, 10, 64, 64]), torch.Size([4]))
    """

    _made: tuple[int, dict[str, Tensor] | None] = (0, None)
    """The clips that were made last, and the number of the first."""

    def __init__(
        self,
        root: str | os.PathLike,
        num_digits: int = 5,
        train: bool = True,
        num_frames: int | None = None,
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
        delay: int = 0,
    ) -> None:
        if not isinstance(root, (str, os.PathLike)):
            raise ValueError(f"expected 'root' to be a path, got {root!r}")
        if mnist_dir is not None and not isinstance(mnist_dir, (str, os.PathLike)):
            raise ValueError(f"expected 'mnist_dir' to be a path or None, got {mnist_dir!r}")
        if paths is not None and not isinstance(paths, (str, os.PathLike)):
            raise ValueError(f"expected 'paths' to be \"authors\", a path or None, got {paths!r}")
        if transform is not None and not callable(transform):
            raise ValueError(f"expected 'transform' to be callable or None, got {transform!r}")
        check_flags(train=train, pregenerate=pregenerate, log=log)
        is_number = isinstance(no_sync_probability, (int, float)) and not isinstance(no_sync_probability, bool)
        if not is_number or not 0 <= no_sync_probability <= 1:
            raise ValueError(
                f"expected 'no_sync_probability' to be a number within 0 to 1, got {no_sync_probability!r}"
            )
        self.train = train
        self.pregenerate = pregenerate
        self.num_digits = whole_number("num_digits", num_digits, 2, 10)
        self.delay = whole_number("delay", delay, 0)
        self.num_frames = whole_number("num_frames", NUM_FRAMES + self.delay if num_frames is None else num_frames, 1)
        if self.num_frames <= self.delay:
            raise ValueError(f"expected 'num_frames' to be more than delay={self.delay}, got {self.num_frames}")
        self.size = whole_number("size", size, 1)
        if num_clips is None:
            num_clips = 600_000 if train else 10_000
        self.num_clips = whole_number("num_clips", num_clips, 1)
        self.seed = whole_number("seed", seed, 0, 2**64 - 1)
        self.no_sync_probability = float(no_sync_probability)
        if paths is not None:
            check_arguments(self, digits)
            digits = "mnist"
        super().__init__(os.fspath(root), transform=transform, log=log)

        self._digits, notice = open_digits(digits, self.train, mnist_dir, self.raw_dir, self.log)
        if notice is not None:
            warnings.warn(notice, stacklevel=2)
        self._paths: AuthorsPaths | None = None
        if paths is not None:
            self._paths = open_paths(paths, self.raw_dir, self.log)
            self._paths.check_digits(self._digits)
        self._file: ClipFile | None = None
        if pregenerate:
            file = ClipFile(self.processed_paths[0], self.num_clips, self.num_frames, self.size)
            if not os.path.isfile(file.path):
                if log:
                    print(f"Generating {file.path}", file=sys.stderr)
                file.write(lambda index: self.get(index).video[0, 0].numpy())
            # A damaged file is met here and not in the middle of a training run.
            file.read(self.num_clips - 1)
            self._file = file
            # From now on frames are read.
            self.__dict__.pop("_make", None)
            self._made = (0, None)

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ("_make", "_made")}

    @property
    def source(self) -> str:
        """Where the digit images come from: ``"mnist"`` or ``"sklearn"``."""
        return self._digits.source

    @property
    def num_classes(self) -> int:
        """The number of classes, 46."""
        return NUM_CLASSES

    @property
    def processed_file_names(self) -> list[str]:
        """The file of clips generated ahead of time; none without ``pregenerate``."""
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
            parameters["paths"] = CHECKSUM
        if self.delay:
            parameters["delay"] = self.delay
        key = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:16]
        return [f"syncmnist_{'train' if self.train else 'test'}_{key}.npy"]

    def __getitem__(self, idx: Any) -> Any:
        check_index("clip", idx, len(self))
        return super().__getitem__(idx)

    def __getitems__(self, numbers: list[int]) -> list[Data]:
        """The clips of a batch, made together: data loaders ask for them this way."""
        kind = type(self)
        if kind.get is not SyncMNIST.get or kind.__getitem__ is not SyncMNIST.__getitem__:
            return [self[number] for number in numbers]
        for number in numbers:
            check_index("clip", number, len(self))
        indices = self.indices()
        numbers = [int(indices[number]) for number in numbers]
        clips = self._clips(numbers)
        items = [self._item(clips, place, number) for place, number in enumerate(numbers)]
        return items if self.transform is None else [self.transform(item) for item in items]

    def len(self) -> int:
        """The number of clips."""
        return self.num_clips

    def get(self, idx: int) -> Data:
        """Make clip number ``idx``, or read it from the file of clips generated ahead of time.

        Raises:
            IndexError: If there is no such clip.
        """
        idx = int(idx)
        if not 0 <= idx < self.num_clips:
            raise IndexError(f"expected a clip number within 0 to {self.num_clips - 1}, got {idx}")
        first, clips = self._made
        stop = first + (0 if clips is None else len(clips["y"]))
        if not first <= idx < stop:
            # Where clips are asked for one after the other, a few are made together: that takes less time per clip.
            most = min(AHEAD, AHEAD_BYTES // (self.num_frames * self.size**2), 2 * (stop - first), self.num_clips - idx)
            count = max(1, most) if idx == stop else 1
            first, clips = self._made = idx, self._clips(range(idx, idx + count))
        return self._item(clips, idx - first, idx)

    def _clips(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """The fields of some clips, without frames if these are in a file."""
        return self._make(torch.tensor(numbers, device="cpu"))

    def _item(self, clips: dict[str, Tensor], place: int, number: int) -> Data:
        fields = {name: field[place : place + 1].clone() for name, field in clips.items()}
        if self._file is not None:
            fields["video"] = torch.from_numpy(self._file.read(number))[None, None]
        # The number of nodes stays open: a transform that adds a graph brings its own.
        return Data(**fields)

    def _maker(self, device: torch.device, draw: bool = True) -> Callable[[Tensor], dict[str, Tensor]]:
        """Give the function from the numbers of clips, int64 [B], to the fields of a batch of them, on a device."""
        if self._paths is not None:
            sample = self._paths.scenes(self._digits, device).at
        else:
            sample = SceneSampler(
                self._digits, self.num_digits, self.num_frames, self.seed, self.no_sync_probability, device, self.delay
            )
        render = ClipRenderer(self._digits.pixels, self.size, device) if draw else None

        def make(index: Tensor) -> dict[str, Tensor]:
            scenes = sample(index)
            frames = {"video": render(scenes.images, scenes.path)[:, None]} if render else {}
            return {**frames, "y": scenes.label(), "digits": scenes.digits, "sync": scenes.sync(), "path": scenes.path}

        return make

    @cached_property
    def _make(self) -> Callable[[Tensor], dict[str, Tensor]]:
        return self._maker(torch.device("cpu"), draw=self._file is None)
