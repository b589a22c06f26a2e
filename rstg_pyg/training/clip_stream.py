"""SyncMNIST as a stream of fresh clips."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch.utils.data import Dataset
from torch_geometric.data import Batch, Data

from rstg_pyg.datasets import ClipGenerator, SyncMNIST
from rstg_pyg.training.chunk_stream import ChunkStream
from rstg_pyg.training.recipe import Phase, Recipe


class Curriculum(Dataset):
    """The clips of all phases, one after the other. Clip i is clip i of the phase that it falls into, so that a change
    of an early phase's kind leaves the later ones as they are.

    Args:
        phases: What the clips are.
        datasets: The clips of each phase, at least as many as all phases have together.

    Shapes:
        - **item.video:** ``[1, 1, T, S, S]`` uint8. **item.y:** ``[1]``. **item.binary:** ``[1]`` bool, whether the
          question is only if a pair moves in step.

    Raises:
        ValueError: If there is not one dataset per phase.

    Example:
        >>> from rstg_pyg import SyncMNIST
        >>> from rstg_pyg.training import Curriculum, Phase
        >>> easy, hard = (SyncMNIST("data", num_digits=n, digits="sklearn", num_clips=5) for n in (2, 3))
        >>> clips = Curriculum([Phase(2, num_digits=2), Phase(3, num_digits=3)], [easy, hard])
        >>> len(clips)
        5
    """

    def __init__(self, phases: Sequence[Phase], datasets: Sequence[SyncMNIST]) -> None:
        if len(phases) != len(datasets):
            raise ValueError(f"expected one dataset per phase, got {len(phases)} phases and {len(datasets)} datasets")
        self.phases, self.datasets = tuple(phases), tuple(datasets)
        self.ends = list(accumulate(phase.clips for phase in phases))

    def __len__(self) -> int:
        return self.ends[-1]

    def phase_of(self, index: int) -> int:
        """Return the number of the phase that clip ``index`` falls into; what comes after the last is like it."""
        return min(bisect_right(self.ends, index), len(self.ends) - 1)

    def __getitem__(self, index: int) -> Data:
        phase = self.phase_of(index)
        clip = self.datasets[phase][index]
        # Paths and classes have a width per phase; a batch across the change of phases could not hold them.
        return Data(video=clip.video, y=clip.y, binary=torch.tensor([self.phases[phase].target == "in-step"]))


class ClipBatches(Dataset):
    """A curriculum whose items are batches: ranges of clips, made at once by
    :class:`~rstg_pyg.datasets.ClipGenerator`. The clips are those of the curriculum, byte for byte.

    Args:
        clips: The curriculum.
        device: Where batches are made.

    Shapes:
        - **batch.video:** ``[B, 1, T, S, S]`` uint8. **batch.y:** ``[B]``. **batch.binary:** ``[B]`` bool.

    Raises:
        ValueError: By an item's number, if it is not a range of consecutive clips.
        IndexError: If there are no such clips.

    Example:
        >>> from rstg_pyg import SyncMNIST
        >>> from rstg_pyg.training import Curriculum, Phase
        >>> from rstg_pyg.training.clip_stream import ClipBatches
        >>> dataset = SyncMNIST("data", num_digits=2, digits="sklearn", num_clips=8, size=16)
        >>> ClipBatches(Curriculum([Phase(8, 2)], [dataset]), "cpu")[range(2, 6)].video.shape
        torch.Size([4, 1, 10, 16, 16])
    """

    def __init__(self, clips: Curriculum, device: torch.device | str) -> None:
        self.clips = clips
        self.device = torch.device(device)
        self.generators = [ClipGenerator(dataset, device) for dataset in clips.datasets]

    def __getitem__(self, index: range) -> Batch:
        if not isinstance(index, range) or index.step != 1 or not index:
            raise ValueError(f"expected a range of consecutive clips, got {index!r}")
        parts = []
        start = index.start
        while start < index.stop:
            phase = self.clips.phase_of(start)
            last = phase == len(self.generators) - 1
            stop = index.stop if last else min(index.stop, self.clips.ends[phase])
            made = self.generators[phase](range(start, stop))
            binary = torch.full_like(made.y, self.clips.phases[phase].target == "in-step", dtype=torch.bool)
            parts.append((made.video, made.y, binary))
            start = stop
        video, y, binary = (torch.cat(part) if len(parts) > 1 else part[0] for part in zip(*parts, strict=True))
        batch = Batch(video=video, y=y, binary=binary)
        batch._num_graphs = len(y)
        return batch


class ClipStream(ChunkStream):
    r"""Training, validation and test clips of a :class:`Recipe`, see :class:`~rstg_pyg.training.ChunkStream` for how
    they are cut into chunks and shared out among processes. Clip i is a function of the seed and of i.

    Validation clips are those that training would come to next, test clips are of the test digits.

    Args:
        root: Where MNIST is kept or downloaded to, see :class:`~rstg_pyg.SyncMNIST`.
        recipe: What to train on.
        seed: Seed of the clips.
        digits: ``"auto"``, ``"mnist"`` or ``"sklearn"``, see :class:`~rstg_pyg.SyncMNIST`.
        mnist_dir: A folder that holds the MNIST files.
        num_workers: Processes that make clips for training on a CPU. For any other device they are made by that device,
            see :class:`~rstg_pyg.datasets.ClipGenerator`; they are the same.
        test_paths: ``"authors"`` or a file for the authors' own test clips, see :class:`~rstg_pyg.SyncMNIST`.

    Shapes:
        - **batch.video:** ``[B, 1, T, S, S]`` uint8. **batch.y:** ``[B]``. **batch.binary:** ``[B]`` bool, whether the
          question is only if a pair moves in step.

    Raises:
        ValueError: If ``test_paths`` does not go with the recipe, or ``batch_size`` is no multiple of the number of
            processes (when training starts).
        Whatever :class:`~rstg_pyg.SyncMNIST` raises.

    Source: SyncMNIST and its training in Nicolicioiu, Duta, Leordeanu, "Recurrent Space-time Graph Neural Networks",
    NeurIPS 2019, arXiv:1904.05582; the curriculum is this package's.

    Example:
        >>> from rstg_pyg.training import ClipStream, Phase, Recipe
        >>> recipe = Recipe((Phase(100),), size=16, test_clips=4, batch_size=2)
        >>> stream = ClipStream("data", recipe, digits="sklearn")
        >>> next(iter(stream.test_dataloader())).video.shape
        torch.Size([2, 1, 10, 16, 16])
    """

    def __init__(
        self,
        root: str | os.PathLike,
        recipe: Recipe,
        seed: int = 0,
        digits: str = "auto",
        mnist_dir: str | os.PathLike | None = None,
        num_workers: int = 0,
        test_paths: str | os.PathLike | None = None,
    ) -> None:
        super().__init__(recipe, num_workers, made_on_device=True)
        options = {"size": recipe.size, "digits": digits, "mnist_dir": mnist_dir}
        datasets = []
        for phase in recipe.phases:
            kind = {"num_digits": phase.num_digits, "no_sync_probability": phase.no_sync_probability}
            datasets.append(SyncMNIST(root, num_clips=recipe.clips + recipe.val_clips, seed=seed, **kind, **options))
            # Whatever source the first one found serves the others: no clip of a run is of another kind.
            options["digits"] = datasets[0].source
        self.train_clips = Curriculum(recipe.phases, datasets)
        kind = {"num_digits": recipe.task.num_digits}
        if test_paths is not None:
            kind["paths"] = test_paths
        else:
            kind |= {"seed": seed, "no_sync_probability": recipe.task.no_sync_probability}
        self.test_clips = SyncMNIST(root, train=False, num_clips=recipe.test_clips, **kind, **options)
        self._batches: ClipBatches | None = None

    @property
    def source(self) -> str:
        """Where the digit images come from."""
        return self.test_clips.source

    def training(self) -> ClipBatches:
        if self._batches is None or self._batches.device != self.device():
            self._batches = ClipBatches(self.train_clips, self.device())
        return self._batches

    def validation(self) -> tuple[ClipBatches, range]:
        return self.training(), range(self.recipe.clips, self.recipe.clips + self.recipe.val_clips)

    def testing(self) -> tuple[ClipBatches, int, int]:
        only = Curriculum((self.recipe.task,), (self.test_clips,))
        return ClipBatches(only, self.device()), len(self.test_clips), self.recipe.batch_size
