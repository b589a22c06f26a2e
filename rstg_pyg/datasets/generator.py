"""Clips of SyncMNIST made in batches on the device that takes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch

from rstg_pyg.datasets.syncmnist import SyncMNIST


class ClipGenerator:
    """Makes the clips of a :class:`~rstg_pyg.datasets.SyncMNIST` in batches, on any device.

    Clip i of a batch is byte for byte the item that the dataset gives for the same number, but all clips of a batch are
    drawn at once, by tensor operations on the device. A call on a CUDA device only queues work and never waits for it.
    The digit images are copied to the device when the generator is made, about 63 MB for the training images of MNIST.

    Large batches are drawn in rounds, whose temporary tensors take up to 1 GiB (on a CPU 32 MiB).

    Args:
        dataset: What the clips are; a selection such as ``dataset[100:200]`` counts by its own numbers. It must not
            have a ``transform``, which works on single clips. Clips generated ahead of time are not read but made anew,
            to the same bytes.
        device: Where clips are made (default: the default device of PyTorch).

    Shapes:
        Of the argument and of the batch's attributes, with D digits:

        - **index:** ``[B]``, int64.
        - **video:** ``[B, 1, T, S, S]``, uint8.
        - **y:** ``[B]``, int64: the labels.
        - **digits:** ``[B, D]``, int64: the digit classes.
        - **sync:** ``[B, 2]``, int64: (0, 1), or (-1, -1) where no digits move in step.
        - **path:** ``[B, D, T, 2]``, int64: top-left corners (row, column) on the canvas.

    Raises:
        ValueError: If ``dataset`` is not a SyncMNIST, or has a transform.

    Source: the SyncMNIST generator of Nicolicioiu, Duta, Leordeanu, "Recurrent Space-time Graph Neural Networks",
    NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> dataset = SyncMNIST("data/SyncMNIST", num_digits=3, digits="sklearn")
        >>> batch = ClipGenerator(dataset, "cpu")(range(100, 116))
        >>> batch.video.shape, batch.num_graphs
        (torch.Size([16, 1, 10, 64, 64]), 16)
        >>> torch.equal(batch.video[5], dataset[105].video[0])
        True
    """

    def __init__(self, dataset: SyncMNIST, device: torch.device | str | None = None) -> None:
        if not isinstance(dataset, SyncMNIST):
            raise ValueError(f"expected 'dataset' to be a SyncMNIST, got {type(dataset).__name__}")
        if dataset.transform is not None:
            raise ValueError(
                "expected 'dataset' to have no transform, which works on single clips and not on batches, "
                f"got {dataset.transform!r}"
            )
        self.device = torch.get_default_device() if device is None else torch.device(device)
        self.num_clips = len(dataset)
        self._numbers: Tensor | None = None
        if dataset._indices is not None:
            self._numbers = torch.tensor(list(dataset.indices()), dtype=torch.long, device=self.device)
        self._dataset = dataset
        self._make = dataset._maker(self.device)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_make": None}  # a function within a function, which workers make anew

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make = self._dataset._maker(self.device)

    def __call__(self, index: Tensor | range) -> Batch:
        """Make the clips with the given numbers, as a data loader would put them together.

        Args:
            index: Numbers of the clips, a range or an int64 tensor, in any order. Those of a range or a tensor on the
                CPU are checked. Those of a tensor on another device are not, which would have to wait for that device:
                there, a number outside the dataset can give any clip.

        Returns:
            The clips, on the device of the generator.

        Raises:
            ValueError: If ``index`` is neither a range nor an int64 tensor, is empty, or has more than one dimension.
            IndexError: If a number that is checked is not within the dataset.
        """
        clips = self._make(self._numbers_of(index))
        # One by one, for torch.compile does not see attributes that are given to the constructor.
        batch = Batch()
        batch.video, batch.y, batch.digits = clips["video"], clips["y"], clips["digits"]
        batch.sync, batch.path = clips["sync"], clips["path"]
        batch._num_graphs = len(clips["y"])
        return batch

    def _numbers_of(self, index: Tensor | range) -> Tensor:
        """Check the numbers of clips and bring them to the device."""
        if isinstance(index, Tensor):
            shape, found = list(index.shape), f"a tensor of {index.dtype}"
        elif isinstance(index, range):
            shape, found = [len(index)], "a range"
        else:
            shape, found = [], type(index).__name__
        if found not in ("a range", "a tensor of torch.int64"):
            raise ValueError(f"expected 'index' to be a range or a tensor of torch.int64, got {found}")
        if len(shape) != 1 or shape[0] == 0:
            raise ValueError(f"expected 'index' to be of shape [B] with B > 0, got {shape}")
        low = high = 0
        if isinstance(index, range):
            low, high = sorted((index[0], index[-1]))
        elif index.device.type == "cpu":
            low, high = index.min().item(), index.max().item()
        if low < 0 or high >= self.num_clips:
            raise IndexError(f"expected clip numbers within 0 to {self.num_clips - 1}, got {low if low < 0 else high}")
        if isinstance(index, range):
            index = torch.arange(index.start, index.stop, index.step, device=self.device)
        elif index.device.type == "cpu" and self.device.type == "cuda":
            # A copy from memory that is not pinned would wait for the device.
            index = index.pin_memory().to(self.device, non_blocking=True)
        else:
            index = index.to(self.device)
        return index if self._numbers is None else self._numbers[index]
