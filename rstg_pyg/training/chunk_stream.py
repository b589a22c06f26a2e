"""Clips cut into chunks and batches, and shared out among processes, whatever they are."""

from __future__ import annotations

import os
import pickle
import signal
import warnings
from multiprocessing.reduction import ForkingPickler

import lightning
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch_geometric.data import Batch

from rstg_pyg.training.run_recipe import RunRecipe


def share_of_batches(clips: range, batch_size: int, rank: int = 0, world_size: int = 1) -> list[range]:
    """Cut clips into batches and return what one of several processes takes of each: equal shares, so that the mean of
    the processes' gradients is the gradient of the whole batch. Up to ``world_size - 1`` clips of the last batch are
    left out for that.

    Raises:
        ValueError: If ``batch_size`` is no multiple of ``world_size``.

    Example:
        >>> from rstg_pyg.training.chunk_stream import share_of_batches
        >>> share_of_batches(range(10, 20), batch_size=6, rank=1, world_size=2)
        [range(13, 16), range(18, 20)]
    """
    if batch_size % world_size:
        raise ValueError(f"expected 'batch_size' to be a multiple of the {world_size} processes, got {batch_size}")
    shares = []
    for start in range(clips.start, clips.stop, batch_size):
        size = min(batch_size, clips.stop - start) // world_size
        if size:
            shares.append(range(start + rank * size, start + (rank + 1) * size))
    return shares


class ChunkStream(lightning.LightningDataModule):
    r"""What :class:`ClipStream` and :class:`VideoStream` have in common: the loaders of chunks.

    An epoch of the trainer is one chunk: chunk e holds clips ``e * chunk`` up to ``(e + 1) * chunk``. Where clip i is
    a function of the seed and of i, a run that is resumed after a chunk sees exactly what an unbroken one would have
    seen, and several processes see together what one would. The trainer needs ``reload_dataloaders_every_n_epochs=1``
    and ``use_distributed_sampler=False``, see :func:`~rstg_pyg.training.run_trainer`.

    A stream of clips of a new kind derives from it and makes three datasets, whose items are batches and whose item
    numbers are ranges of clips: :meth:`training`, :meth:`validation` and :meth:`testing`.

    Args:
        recipe: What to train on.
        num_workers: Processes that make batches.
        made_on_device: Whether batches are made where the model is: then workers help on a CPU alone.

    Raises:
        ValueError: If ``batch_size`` is no multiple of the number of processes (when training starts).

    Source: this package's.

    Example:
        >>> from torch.utils.data import Dataset
        >>> from rstg_pyg.training import ChunkStream, VideoRecipe
        >>> class Numbers(Dataset):
        ...     def __getitem__(self, clips):
        ...         return list(clips)
        >>> class NumberStream(ChunkStream):
        ...     def training(self):
        ...         return Numbers()
        >>> list(NumberStream(VideoRecipe(10, batch_size=2, chunk=5)).train_dataloader())
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
        warnings.warn(_SLOWER.format(failure), stacklevel=1)
    return pickle.loads(content)


_SLOWER = (
    "expected shared memory for a worker's batches, got: {}; they come through a pipe, which is slower. More shared "
    "memory (docker run --shm-size), more file descriptors (ulimit -n) or no workers help"
)


def _leave_signals(worker: int) -> None:
    """Ctrl-C goes to workers too; what it means is for the process that started them to say, which ends them."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
