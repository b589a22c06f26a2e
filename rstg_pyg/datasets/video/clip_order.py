"""The random clips of many epochs as one sequence, shuffled anew in each."""

from __future__ import annotations

import numpy as np
from torch.utils.data import Dataset
from torch_geometric.data import Data

from rstg_pyg.arguments import check_positive
from rstg_pyg.datasets.random_numbers import uniforms
from rstg_pyg.datasets.video.something_something import SomethingSomething

_STREAM = 0x5348 << 48


class ClipSequence(Dataset):
    r"""Clip number :math:`n` of a training run: a video of epoch :math:`\lfloor n / N \rfloor`, each once an epoch.

    The order of an epoch is a function of the dataset's seed and of the epoch. So clip :math:`n` is the same in any
    process and worker, and a run that stops after some clips and goes on from there sees what an unbroken one sees.

    Args:
        dataset (SomethingSomething): The :math:`N` videos, all or a selection.
        num_clips (int): How many clips the sequence has.

    Shapes:
        Those of the items of :class:`~rstg_pyg.datasets.SomethingSomething`.

    Raises:
        ValueError: If :obj:`num_clips` is not positive.
        IndexError: If there is no such clip.

    Example:
        >>> from rstg_pyg.datasets.made_videos import make_videos
        >>> make_videos("made", version="v1", clips=4, validation_clips=2, height=32, frames=(8, 12))
        >>> clips = ClipSequence(SomethingSomething("made", num_frames=8, size=32), num_clips=10)
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
        r"""The positions of the videos in the order of an epoch, :math:`(N)`."""
        if self._order is None or self._order[0] != epoch:
            drawn = uniforms(self.dataset.seed, _STREAM, epoch, len(self.dataset))
            self._order = epoch, np.argsort(drawn, kind="stable")
        return self._order[1]
