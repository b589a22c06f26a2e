"""The clips of a run, cut into chunks and batches and shared out among processes: of any kind, and of SyncMNIST."""

from __future__ import annotations

import os
import pickle
import signal
import warnings
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from multiprocessing.reduction import ForkingPickler

import lightning
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch_geometric.data import Batch, Data

from rstg_pyg.datasets import ClipGenerator, SyncMNIST
from rstg_pyg.training.recipe import Phase, Recipe, RunRecipe


def share_of_batches(clips: range, batch_size: int, rank: int = 0, world_size: int = 1) -> list[range]:
    """Cut clips into batches and return what one of several processes takes of each: equal shares, so that the mean of
    the processes' gradients is the gradient of the whole batch. Up to ``world_size - 1`` clips of the last batch are
    left out for that.

    Raises:
        ValueError: If ``batch_size`` is no multiple of ``world_size``.
    """
    if batch_size % world_size:
        raise ValueError(f"expected 'batch_size' to be a multiple of the {world_size} processes, got {batch_size}")
    shares = []
    for start in range(clips.start, clips.stop, batch_size):
        size = min(batch_size, clips.stop - start) // world_size
        if size:
            shares.append(range(start + rank * size, start + (rank + 1) * size))
    return shares


class RunData(lightning.LightningDataModule):
    r"""What :class:`SyncMNISTData` and :class:`VideoData` have in common: the loaders of chunks.

    An epoch of the trainer is one chunk: chunk e holds clips ``e * chunk`` up to ``(e + 1) * chunk``. Where clip i is
    a function of the seed and of i, a run that is resumed after a chunk sees exactly what an unbroken one would have
    seen, and several processes see together what one would. The trainer needs ``reload_dataloaders_every_n_epochs=1``
    and ``use_distributed_sampler=False``, see :func:`~rstg_pyg.training.run_trainer`.

    The data of a run on clips of a new kind derive from it and make three datasets, whose items are batches and whose
    item numbers are ranges of clips: :meth:`training`, :meth:`validation` and :meth:`testing`.

    Args:
        recipe: What to train on.
        num_workers: Processes that make batches.
        made_on_device: Whether batches are made where the model is: then workers help on a CPU alone.

    Raises:
        ValueError: If ``batch_size`` is no multiple of the number of processes (when training starts).

    Example:
        >>> from torch.utils.data import Dataset
        >>> from rstg_pyg.training import RunData, VideoRecipe
        >>> class Numbers(Dataset):
        ...     def __getitem__(self, clips):
        ...         return list(clips)
        >>> class NumberData(RunData):
        ...     def training(self):
        ...         return Numbers()
        >>> list(NumberData(VideoRecipe(10, batch_size=2, chunk=5)).train_dataloader())
        [[0, 1], [2, 3], [4]]
    """

    def __init__(self, recipe: RunRecipe, num_workers: int = 0, made_on_device: bool = False) -> None:
        super().__init__()
        self.recipe = recipe
        self.num_workers = num_workers
        self.made_on_device = made_on_device

    def training(self) -> Dataset:
        """Return the batches of training clips."""
        raise NotImplementedError

    def validation(self) -> tuple[Dataset, range]:
        """Return batches and the numbers of the clips to look at after every chunk."""
        raise NotImplementedError

    def testing(self) -> tuple[Dataset, int, int]:
        """Return batches, how many clips are tested, and how many come at once."""
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader:
        clips = self.recipe.chunk_clips(0 if self.trainer is None else self.trainer.current_epoch)
        return self._load(self.training(), share_of_batches(clips, self.recipe.batch_size, *self.place()))

    def val_dataloader(self) -> DataLoader:
        batches, clips = self.validation()
        return self._load(batches, share_of_batches(clips, self.recipe.batch_size, *self.place()))

    def test_dataloader(self) -> DataLoader:
        batches, count, at_once = self.testing()
        rank, world_size = self.place()
        clips = range(rank * count // world_size, (rank + 1) * count // world_size)
        return self._load(batches, share_of_batches(clips, at_once))

    def on_exception(self, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException):
            # Lightning's would end the process with code 0.
            exception.code = 128 + signal.SIGTERM

    def place(self) -> tuple[int, int]:
        """Return the number of this process and how many there are."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def device(self) -> torch.device:
        """Return where the model is."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def _load(self, batches: Dataset, shares: list[range]) -> DataLoader:
        on_cpu = self.device().type == "cpu"
        return DataLoader(
            batches,
            batch_size=None,
            sampler=shares,
            num_workers=self.num_workers if on_cpu or not self.made_on_device else 0,
            collate_fn=Pack(),
            worker_init_fn=_leave_signals,
            pin_memory=not on_cpu and not self.made_on_device,
        )


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


class SyncMNISTData(RunData):
    r"""Training, validation and test clips of a :class:`Recipe`, see :class:`~rstg_pyg.training.RunData` for how
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
        Exception: Whatever :class:`~rstg_pyg.SyncMNIST` raises.

    Source: SyncMNIST and its training in arXiv:1904.05582 (NeurIPS 2019); the curriculum is this package's.

    Example:
        >>> from rstg_pyg.training import SyncMNISTData, Phase, Recipe
        >>> recipe = Recipe((Phase(100),), size=16, test_clips=4, batch_size=2)
        >>> data = SyncMNISTData("data", recipe, digits="sklearn")
        >>> next(iter(data.test_dataloader())).video.shape
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
        options = {name: getattr(recipe, name) for name in ("size", "delay", "num_frames")}
        options |= {"digits": digits, "mnist_dir": mnist_dir}
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


class Pack:
    """Make a worker's batch into bytes here, where an error reaches the trainer: a worker that leaves that to its queue
    loses a batch that cannot be sent, and the trainer waits for it for ever.

    Tensors go as shared memory; where there is none for them (a full ``/dev/shm``, no file descriptor left, a limit on
    the size of files), they go through the queue's pipe, as all that follow: a batch that is shared in part keeps file
    descriptors. Python hands shared memory over as file descriptors, and without spare ones both sides wait for ever.
    """

    SPARE_FILES = 32

    def __init__(self) -> None:
        self.failure = ""

    def __call__(self, batch: Batch) -> Batch | Packed:
        if get_worker_info() is None:
            return batch
        if not self.failure:
            try:
                self._check_spare_files()
                return Packed(bytes(ForkingPickler.dumps(batch)))
            except (OSError, RuntimeError) as error:
                self.failure = getattr(error, "strerror", None) or str(error).rpartition(": ")[2]
        return Packed(pickle.dumps(batch), self.failure)

    def _check_spare_files(self) -> None:
        files = []
        try:
            for _ in range(self.SPARE_FILES):
                files.append(os.open(os.devnull, os.O_RDONLY))
        finally:
            for file in files:
                os.close(file)


class Packed:
    """Bytes that arrive as what they were made of."""

    def __init__(self, content: bytes, failure: str = "") -> None:
        self.content, self.failure = content, failure

    def __reduce__(self) -> tuple:
        return _unpack, (self.content, self.failure)


def _unpack(content: bytes, failure: str) -> Batch:
    if failure:
        words = (
            f"expected shared memory for a worker's batches, got: {failure}; they come through a pipe, which is "
            "slower. More shared memory (docker run --shm-size), more file descriptors (ulimit -n) or no workers help"
        )
        warnings.warn(words, stacklevel=1)
    return pickle.loads(content)


def _leave_signals(worker: int) -> None:
    """Ctrl-C goes to workers too; what it means is for the process that started them to say, which ends them."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
