"""The Something-Something dataset, versions 1 and 2, and the sequence of clips that a training run takes of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset

from rstg_pyg.arguments import check_choice, check_index, check_positive, whole_number
from rstg_pyg.datasets.random_numbers import uniforms
from rstg_pyg.datasets.video.annotations import ALL_SPLITS, VERSIONS, read_annotations
from rstg_pyg.datasets.video.augment import (
    FLIPS,
    change_colours,
    mirror_classes,
    random_crop,
    resize,
    short_side_to,
    spread_crops,
)
from rstg_pyg.datasets.video.damage import Damage, DamagedVideoError, DamageRecord
from rstg_pyg.datasets.video.frame_folders import read_frame_folder, require_pillow
from rstg_pyg.datasets.video.sampling import VIEWS, Choose, random_indices, spread_indices
from rstg_pyg.datasets.video.video_files import read_video_file, require_av

VIDEO_FOLDERS = {"v1": "20bn-something-something-v1", "v2": "20bn-something-something-v2"}
# What stands behind a video's name in its file's, as published first; nothing is for a folder of frames.
_ENDINGS = {"v1": ("", ".webm", ".mp4"), "v2": (".webm", ".mp4", "")}
# Second words of the generator's keys: of the clips, with the epoch in the low half, and of their order.
_CLIPS, _ORDER = 0x5353 << 48, 0x5348 << 48
# Numbers a random clip takes before those of its frames: scale, top, left, flip and three of colour.
_NUMBERS = 7


class SomethingSomething(Dataset):
    r"""Clips of hands doing something with something: what exactly, only motion tells.

    The videos of Goyal et al., "The 'something something' video database for learning and evaluating visual common
    sense", ICCV 2017, `arXiv:1706.04261 <https://arxiv.org/abs/1706.04261>`_, read as published: version 1 is folders
    of numbered JPEG frames and CSV files, version 2 is WebM files and JSON files, see
    :func:`~rstg_pyg.datasets.video.read_annotations`. Copies of other forms do too, in either version: a folder of
    frames numbered from 0 or 1, with any number of digits, letters before or PNG images
    (:func:`~rstg_pyg.datasets.video.read_frame_folder`), or an MP4 file. Images are read by Pillow, files of videos
    by PyAV, both of the extra ``video``.

    A clip is 32 frames that cover the video. What is taken from a video is its ``views``:

    - ``"train"``: one clip, with a random frame from each of 32 equal segments, a random square crop after a resize
      of the shorter side to a random length, random brightness, contrast and saturation, and a random flip left to
      right where that keeps the class.
    - ``"centre"``: one clip, with the middle frame of each segment and the central crop.
    - ``"22"``: the evaluation of `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_: 2 choices of frames, at a
      quarter and at three quarters of each segment, times 11 crops along the width (of a video that is higher than
      wide: along the height), choice by choice. They lie folded into the batch, and
      :func:`~rstg_pyg.datasets.video.average_views` makes one answer of their logits.

    A random clip is a function of the files, the seed, the epoch and its number, and of nothing else: not of the
    worker, the batch or the order of access. The epoch is that of :meth:`set_epoch`, or given to :meth:`clip`.

    A video that cannot be read is skipped, with a warning that names it, up to ``max_damaged`` of them. In training,
    the next video that can be read takes its place. In evaluation, its clips are black and ``valid`` is false: leave
    it out of the accuracy. :meth:`damage_report` lists them all.

    Args:
        root: The folder with the annotations and with the folder of videos, ``20bn-something-something-v1`` or ``-v2``.
        version: ``"v1"`` or ``"v2"``.
        split: ``"train"``, ``"validation"`` or ``"test"``, which is published without labels: there ``y`` is -1, and
            nothing can be trained or evaluated.
        num_frames: Number T of frames of a clip.
        views: ``"train"``, ``"centre"`` or ``"22"`` (default: ``"train"`` for the training split, else ``"centre"``).
        size: Height and width S of the clips (default: 224 for ``"train"``, else 256).
        scale: Of ``"train"``: bounds of the shorter side of the resized video, as multiples of ``size``, at least 1.
            The default is 256 to 320 for crops of 224.
        colour_jitter: Of ``"train"``: brightness, contrast and saturation are each multiplied by a factor within 1
            plus or minus this, 0 to 1.
        flip: Of ``"train"``: which clips are flipped left to right, each with probability 1/2: ``"undirected"`` for
            those of classes without "left" or "right" in their name, ``"swap"`` for those too whose mirror image is a
            class, which then is the label, ``"never"`` for none.
        seed: The seed, 0 to 2^64 - 1.
        max_damaged: How many videos may be damaged or missing.
        video_dir: The folder of videos, if it lies elsewhere.
        transform: Applied to every :class:`~torch_geometric.data.Data` on access.

    Shapes:
        Attributes of an item, with V views (1, or 22):

        - **video:** ``[V, 3, T, S, S]`` uint8, RGB; the batches of PyG's :class:`~torch_geometric.loader.DataLoader`
          hold ``[B * V, 3, T, S, S]``. 22 views of full size take 138 MB.
        - **y:** ``[1]``, the number of the class, or -1 where none is published.
        - **valid:** ``[1]``, whether the video could be read.
        - **video_id:** the name of the video, a string; a list of them in a batch.

    Raises:
        TypeError: If ``root`` is no path.
        ValueError: If an argument is out of range.
        FileNotFoundError: If annotations, the folder of videos, or all videos are missing.
        AnnotationError: If annotations are not of the published form; it is a ValueError.
        TooManyDamagedVideosError: If more videos are missing, or by access, more are damaged than ``max_damaged``; it
            is a RuntimeError.
        ImportError: If Pillow (for images) or PyAV (for files of videos) is not installed.

    Example:
        >>> from torch_geometric.loader import DataLoader
        >>> from rstg_pyg.datasets.made_videos import make_videos
        >>> make_videos("made", version="v1", clips=4, validation_clips=2, height=32, frames=(8, 12))
        >>> dataset = SomethingSomething("made", version="v1", num_frames=8, size=32)
        >>> batch = next(iter(DataLoader(dataset, batch_size=4)))
        >>> batch.video.shape, batch.y.shape
        (torch.Size([4, 3, 8, 32, 32]), torch.Size([4]))
    """

    def __init__(
        self,
        root: str | os.PathLike,
        version: str = "v1",
        split: str = "train",
        num_frames: int = 32,
        views: str | None = None,
        size: int | None = None,
        scale: tuple[float, float] = (8 / 7, 10 / 7),
        colour_jitter: float = 0.2,
        flip: str = "undirected",
        seed: int = 0,
        max_damaged: int = 10,
        video_dir: str | os.PathLike | None = None,
        transform: Callable | None = None,
    ) -> None:
        if not isinstance(root, (str, os.PathLike)):
            raise TypeError(f"expected 'root' to be a path, got {root!r}")
        if views is None:
            views = "train" if split == "train" else "centre"
        check_choice("version", version, VERSIONS)
        check_choice("split", split, ALL_SPLITS)
        check_choice("views", views, tuple(VIEWS))
        check_choice("flip", flip, FLIPS)
        if split == "test" and VIEWS[views].random:
            raise ValueError(f"expected a split with labels for 'views' {views!r}, got {split!r}")
        size = (224 if VIEWS[views].random else 256) if size is None else size
        check_positive(num_frames=num_frames, size=size)
        seed, max_damaged = whole_number("seed", seed, 0, 2**64 - 1), whole_number("max_damaged", max_damaged, 0)
        if not (len(scale) == 2 and 1 <= scale[0] <= scale[1]):
            raise ValueError(f"expected 'scale' to be two numbers of at least 1, in order, got {scale!r}")
        if not 0 <= colour_jitter <= 1:
            raise ValueError(f"expected 'colour_jitter' to be a number within 0 to 1, got {colour_jitter!r}")
        # In a form that holds in a worker process and another folder, too.
        root, video_dir = (path and os.path.abspath(os.path.expanduser(path)) for path in (root, video_dir))
        super().__init__(root, transform=transform)
        self.version, self.split, self.views = version, split, views
        self.num_frames, self.size, self.scale, self.colour_jitter = num_frames, size, tuple(scale), colour_jitter
        self.flip, self.seed = flip, seed

        self.video_ids, self._labels, self.classes = read_annotations(self.root, version, split)
        self._mirror = mirror_classes(self.classes)
        self.video_dir = Path(self.root, VIDEO_FOLDERS[version]) if video_dir is None else Path(video_dir)
        if not self.video_dir.is_dir():
            raise FileNotFoundError(f"expected a folder of videos {self.video_dir}, got none (see 'video_dir')")
        self._record = DamageRecord(self.video_ids, max_damaged)
        there = set(os.listdir(self.video_dir))
        endings = _ENDINGS[version]
        found = [[end for end in endings if name + end in there] for name in self.video_ids.tolist()]
        self._endings = [(ends or endings)[0] for ends in found]
        # What is not installed is met here and not in a worker.
        for end in set(self._endings):
            _ = require_av() if end else require_pillow()
        if not any(found):
            name = self.video_ids[0]
            raise FileNotFoundError(
                f"expected {len(found):,} videos in {self.video_dir}, each a folder of frames such as {name} or a file "
                f"such as {name}.webm or {name}.mp4, got {f'others, such as {min(there)}' if there else 'none'}"
            )
        self._record.note_missing([i for i, ends in enumerate(found) if not ends], self.video_dir)
        # In shared memory, so that workers that live on see the next epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def num_classes(self) -> int:
        r"""The number of classes."""
        return len(self.classes)

    @property
    def num_views(self) -> int:
        r"""Clips V of a video."""
        return VIEWS[self.views].samplings * VIEWS[self.views].crops

    @property
    def damaged(self) -> dict[str, Damage]:
        r"""What is wrong with the videos found damaged so far, by their names: by this process and its workers."""
        return self._record.damaged

    def damage_report(self) -> str:
        r"""One line on all videos that this process and its workers found damaged so far; empty if there is none."""
        return self._record.report()

    def set_epoch(self, epoch: int) -> None:
        r"""Set the epoch of the random clips, also for workers that run; call it before a loader is iterated.

        Args:
            epoch: The epoch, 0 to 2^32 - 1.
        """
        self._epoch.fill_(whole_number("epoch", epoch, 0, 2**32 - 1))

    def video_path(self, idx: int) -> Path:
        r"""The folder or file of video number ``idx``."""
        return self.video_dir / f"{self.video_ids[idx]}{self._endings[idx]}"

    def __getitem__(self, idx: Any) -> Any:
        check_index("video", idx, len(self))
        return super().__getitem__(idx)

    def len(self) -> int:
        r"""The number of videos."""
        return len(self.video_ids)

    def get(self, idx: int) -> Data:
        r"""The clips of video number ``idx`` in the epoch that was set."""
        return self._get(int(idx), int(self._epoch))

    def clip(self, position: int, epoch: int) -> Data:
        r"""What ``self[position]`` is in a given epoch.

        Args:
            position: Number of the video, among those selected.
            epoch: The epoch, 0 to 2^32 - 1.
        """
        epoch = whole_number("epoch", epoch, 0, 2**32 - 1)
        check_index("video", position, len(self))
        data = self._get(int(self.indices()[position]), epoch)
        return data if self.transform is None else self.transform(data)

    def read(self, idx: int, choose: Choose) -> tuple[Tensor, np.ndarray]:
        r"""Frames of video number ``idx`` as they are, see :func:`~rstg_pyg.datasets.video.read_video_file`."""
        read = read_video_file if self._endings[idx] else read_frame_folder
        return read(self.video_path(idx), choose)

    def _get(self, idx: int, epoch: int) -> Data:
        if not 0 <= idx < len(self.video_ids):
            raise IndexError(f"expected a video number within 0 to {len(self.video_ids) - 1}, got {idx}")
        is_random, damage = VIEWS[self.views].random, None
        for candidate in self._candidates(idx) if is_random else (idx,):
            label = int(self._labels[candidate])
            try:
                if is_random:
                    return self._item(*self._random_clip(candidate, label, epoch), candidate)
                return self._item(self._fixed_clips(candidate), label, candidate)
            except DamagedVideoError as error:
                self._record.note(candidate, error)
                damage = error
        if is_random:
            raise DamagedVideoError(f"expected a video that can be read, got none; of the last: {damage}") from damage
        black = torch.zeros(self.num_views, 3, self.num_frames, self.size, self.size, dtype=torch.uint8)
        return self._item(black, label, idx, valid=False)

    def _item(self, video: Tensor, label: int, idx: int, valid: bool = True) -> Data:
        return Data(
            video=video, y=torch.tensor([label]), valid=torch.tensor([valid]), video_id=str(self.video_ids[idx])
        )

    def _candidates(self, idx: int) -> Iterator[int]:
        """The video, then those that may stand in for it: the next ones of the selection."""
        yield idx
        selected = list(self.indices())
        start = selected.index(idx) + 1 if idx in selected else 0
        yield from (other for other in selected[start:] + selected[:start] if other != idx)

    def _random_clip(self, idx: int, label: int, epoch: int) -> tuple[Tensor, int]:
        drawn = uniforms(self.seed, _CLIPS | epoch, idx, _NUMBERS + self.num_frames)
        scale, top, left, flip, *colours = drawn[:_NUMBERS].tolist()
        frames, places = self.read(idx, lambda count: random_indices(count, drawn[_NUMBERS:]))
        low, high = self.scale
        frames = random_crop(frames, self.size, self.size * (low + scale * (high - low)), (top, left))
        mirrored = self._mirror[label]
        flips = {"undirected": mirrored == label, "swap": mirrored is not None, "never": False}
        if flip < 0.5 and flips[self.flip]:
            frames, label = frames.flip(3), mirrored
        video = frames.transpose(0, 1)[:, torch.from_numpy(places)].contiguous()
        if self.colour_jitter:
            video = change_colours(video, *(1 + self.colour_jitter * (2 * place - 1) for place in colours))
        return video[None], label

    def _fixed_clips(self, idx: int) -> Tensor:
        samplings, crops, _ = VIEWS[self.views]
        frames, places = self.read(idx, lambda count: spread_indices(count, self.num_frames, samplings))
        video = resize(frames, *short_side_to(*frames.shape[1:3], self.size)).transpose(0, 1)
        return torch.cat([spread_crops(video[:, torch.from_numpy(each)], self.size, crops) for each in places])


class ClipSequence(torch.utils.data.Dataset):
    r"""The random clips of many epochs as one sequence: clip n is a video of epoch n // N, each video once an epoch.

    The order of an epoch is a function of the dataset's seed and of the epoch. So clip n is the same in any process
    and worker, and a run that stops after some clips and goes on from there sees what an unbroken one sees.

    Args:
        dataset: The N videos, all or a selection.
        num_clips: How many clips there are.

    Shapes:
        Those of the items of :class:`~rstg_pyg.datasets.SomethingSomething`.

    Raises:
        ValueError: If ``num_clips`` is not positive.
        IndexError: If there is no such clip.

    Example:
        >>> from rstg_pyg.datasets.made_videos import make_videos
        >>> make_videos("small", version="v1", clips=4, validation_clips=2, height=32, frames=(8, 12))
        >>> clips = ClipSequence(SomethingSomething("small", num_frames=8, size=32), num_clips=10)
        >>> sorted(clips[n].video_id for n in range(4, 8))
        ['1', '2', '3', '4']
    """

    def __init__(self, dataset: SomethingSomething, num_clips: int) -> None:
        check_positive(num_clips=num_clips)
        self.dataset = dataset
        self.num_clips = num_clips
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int) -> Data:
        if not 0 <= index < self.num_clips:
            raise IndexError(f"expected a clip number within 0 to {self.num_clips - 1}, got {index}")
        epoch, place = divmod(int(index), len(self.dataset))
        return self.dataset.clip(int(self.order(epoch)[place]), epoch)

    def order(self, epoch: int) -> np.ndarray:
        r"""The positions of the videos ``[N]`` in the order of an epoch."""
        if self._order is None or self._order[0] != epoch:
            drawn = uniforms(self.dataset.seed, _ORDER, epoch, len(self.dataset))
            self._order = epoch, np.argsort(drawn, kind="stable")
        return self._order[1]
