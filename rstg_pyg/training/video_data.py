"""The clips of a run on Something-Something: random ones to train on, fixed ones for validation and tests."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from torch_geometric.data import Batch

from rstg_pyg.datasets.random_numbers import uniforms
from rstg_pyg.datasets.video import ClipSequence, SomethingSomething
from rstg_pyg.files import listed
from rstg_pyg.training.data import RunData
from rstg_pyg.training.recipe import VideoRecipe
from rstg_pyg.training.weights import CheckpointError

_PICKS = 0x7375627365740000


class VideoBatches(Dataset):
    """Clips whose items are batches: ranges of clips, each read in turn, the views of a video one after the other."""

    def __init__(self, clips: Sequence) -> None:
        self.clips = clips

    def __getitem__(self, index: range) -> Batch:
        items = [self.clips[i] for i in index]
        batch = Batch(**{name: torch.cat([item[name] for item in items]) for name in ("video", "y", "valid")})
        batch._num_graphs = len(items)
        return batch


class VideoData(RunData):
    r"""Training, validation and test clips of a :class:`VideoRecipe`, see :class:`~rstg_pyg.training.RunData` for
    how they are cut into chunks and shared out among processes.

    Training clips are a :class:`~rstg_pyg.datasets.video.ClipSequence`: clip i is a function of the files, the seed
    and i. Validation looks at the centre clips of some videos of the validation split, the same for every seed; a
    test takes the views asked for of all of its videos. Of videos that cannot be read, training takes the next one
    instead, and validation and tests leave them out; :meth:`damaged` names them.

    Args:
        root: The folder of the data set, see :class:`~rstg_pyg.datasets.SomethingSomething`, as for ``version``,
            ``max_damaged`` and ``video_dir``.
        recipe: What to train on.
        version: ``"v1"`` or ``"v2"``.
        seed: Seed of the training clips.
        views: Clips per test video: ``"centre"`` for one, or ``"22"``.
        num_workers: Processes that read videos.
        max_damaged: How many videos of a split may be damaged or missing.
        video_dir: The folder of videos, if it lies elsewhere.

    Shapes:
        - **batch.video:** ``[B * V, 3, T, S, S]`` uint8. **batch.y:** ``[B]``. **batch.valid:** ``[B]`` bool.

    Raises:
        ValueError: If a step has more clips than there are videos (when training starts), or there are fewer videos to
            validate or test on than processes.
        CheckpointError: By ``fit``, if a run is to go on with other videos than it began with; it is a ValueError.
        Exception: Whatever :class:`~rstg_pyg.datasets.SomethingSomething` raises.

    Source: clips and evaluation are those of arXiv:1904.05582 (NeurIPS 2019).

    Example:
        >>> from rstg_pyg.datasets.made_videos import make_videos
        >>> from rstg_pyg.training import VideoRecipe, VideoData
        >>> make_videos("made", version="v1", clips=4, validation_clips=2, height=32, frames=(8, 12))
        >>> recipe = VideoRecipe(8, num_frames=4, size=32, batch_size=2, chunk=4)
        >>> data = VideoData("made", recipe, views="22")
        >>> next(iter(data.train_dataloader())).video.shape, next(iter(data.test_dataloader())).video.shape
        (torch.Size([2, 3, 4, 32, 32]), torch.Size([22, 3, 4, 32, 32]))
    """

    def __init__(
        self,
        root: str | os.PathLike,
        recipe: VideoRecipe,
        version: str = "v1",
        seed: int = 0,
        views: str = "centre",
        num_workers: int = 0,
        max_damaged: int = 10,
        video_dir: str | os.PathLike | None = None,
    ) -> None:
        super().__init__(recipe, num_workers)
        self._options = {
            "root": root,
            "version": version,
            "num_frames": recipe.num_frames,
            "seed": seed,
            "max_damaged": max_damaged,
            "video_dir": video_dir,
        }
        held_back = {**self._options, "split": "validation", "size": recipe.clip_size}
        videos = SomethingSomething(views=views, **held_back)
        self.classes = videos.classes
        count = len(videos) if recipe.test_clips is None else recipe.test_clips
        self.test_clips = videos if count >= len(videos) else videos[_some(len(videos), count)]
        if views != "centre":
            videos = SomethingSomething(views="centre", **held_back)
        self.val_clips = videos[_some(len(videos), recipe.val_clips)]

    @cached_property
    def train_clips(self) -> ClipSequence:
        """The training clips; a run that only tests never asks for them."""
        recipe = self.recipe
        videos = SomethingSomething(
            split="train",
            size=recipe.size,
            scale=recipe.scale,
            colour_jitter=recipe.colour_jitter,
            flip=recipe.flip,
            **self._options,
        )
        step = recipe.batch_size * recipe.accumulate
        if step > len(videos):
            raise ValueError(f"expected at most as many clips per step as the {len(videos):,} videos, got {step:,}")
        return ClipSequence(videos, recipe.clips)

    def training(self) -> VideoBatches:
        return VideoBatches(self.train_clips)

    def validation(self) -> tuple[VideoBatches, range]:
        return VideoBatches(self.val_clips), range(self._enough(len(self.val_clips)))

    def testing(self) -> tuple[VideoBatches, int, int]:
        at_once = max(1, self.recipe.batch_size // self.test_clips.num_views)
        return VideoBatches(self.test_clips), self._enough(len(self.test_clips)), at_once

    def _enough(self, count: int) -> int:
        world_size = self.place()[1]
        if count < world_size:
            raise ValueError(f"expected a video for each of the {world_size} processes, got {count}")
        return count

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint says of the training videos."""
        videos = self.train_clips.dataset
        names = "\n".join(f"{name} {label}" for name, label in zip(videos.video_ids, videos._labels, strict=True))
        return {"videos": len(videos), "names": zlib.crc32(names.encode())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raise :class:`CheckpointError` unless a checkpoint is of the same training videos."""
        now = self.state_dict()
        if state_dict != now:
            raise CheckpointError(
                f"expected the training videos that the run began with, {state_dict['videos']:,}, got "
                f"{now['videos']:,}" + " with other names or labels" * (state_dict["videos"] == now["videos"])
            )

    def damaged(self) -> dict[str, list[str]]:
        """Name the videos of both splits that this start of the run could not read, in all processes, and what is
        wrong with them. With several processes, all have to ask."""
        used = [*([self.train_clips.dataset] if "train_clips" in vars(self) else []), self.val_clips, self.test_clips]
        of_all: list[Any] = [[(videos.split, videos.damaged) for videos in used]]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            own, of_all = of_all[0], [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(of_all, own)
        found: dict[str, dict[str, Any]] = {"train": {}, "validation": {}}
        for split, videos in chain(*of_all):
            found[split] |= videos
        return {split: [f"{name} ({videos[name].words})" for name in sorted(videos)] for split, videos in found.items()}


def describe_damage(damaged: dict[str, list[str]]) -> list[str]:
    """Return a sentence for each split that has videos in :meth:`VideoData.damaged`."""
    fate = {"train": "which others stand in for", "validation": "which do not count"}
    sentences = []
    for split, names in damaged.items():
        if names:
            sentences.append(f"damaged {split} videos, {fate[split]}: {listed(names, 10)}")
    return sentences


def _some(videos: int, count: int) -> np.ndarray:
    """The positions of a fixed random choice of ``count`` videos, in order."""
    order = np.argsort(uniforms(0, _PICKS, 0, videos), kind="stable")
    return np.sort(order[:count])
