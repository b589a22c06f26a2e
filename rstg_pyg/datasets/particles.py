"""Particles that springs or charges move: what was seen of them, what comes next, and who acts on whom."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset

from rstg_pyg.arguments import check_choice, check_flags, check_index, check_positive, describe
from rstg_pyg.datasets.particle_motion import KINDS, STEP, STEPS_PER_FRAME, draw_start, simulate
from rstg_pyg.files import FileError, reading, replace_file

SPLITS = {"train": 50_000, "val": 10_000, "test": 10_000}
"""How many simulations each has, unless told otherwise."""

FORMAT_VERSION = 2
"""Changes with what the files hold."""


class Particles(Dataset):
    r"""Particles in a box with elastic walls, pairs of which are joined by springs, or which carry charges.

    Simulated from the physics by :func:`~rstg_pyg.datasets.particle_motion.simulate`: a simulation follows from the
    kind, the seed, the split and its number alone. Simulations go to one file, which later constructions with the same
    arguments read.

    Positions, and velocities likewise, are scaled so that -1 and 1 are the training set's extremes.

    Args:
        root: The folder of the file.
        kind: ``"springs"``: each pair is joined by a spring or is not. ``"charges"``: each pair attracts or repels.
        split: ``"train"``, ``"val"`` or ``"test"``.
        num_simulations: Number of simulations (default: 50,000, 10,000 and 10,000 by split).
        num_particles: Number N of particles, 2 or more.
        history: Number of frames of the input (default: 49 - ``horizon`` for training, else 49).
        horizon: Number H of frames of the target.
        seed: The seed, 0 to 2^64 - 1.
        scale: The extremes to scale by, :attr:`scale` of the training set. By default a training set takes its own,
            and the other splits those of the training set of the default size, which is made where it is not there.
        transform: Applied to every :class:`~torch_geometric.data.Data` on access.
        log: Print a line where simulations are made.

    Shapes:
        Attributes of an item:

        - **x:** ``[N, history, 4]``, positions and velocities. **y:** ``[N, H, 4]``, the next frames.
        - **edge_index:** ``[2, N * (N - 1)]``, every pair in both directions.
        - **edge_label:** ``[N * (N - 1)]``, 1 where the pair is joined by a spring, or attracts; else 0. Not to be seen
          by who is to find it out.

    Attributes:
        scale: ``[2, 2]``, the lowest and the highest position, and velocity, that became -1 and 1.

    Raises:
        ValueError: If an argument is out of its range; as FileError, if the file is damaged.

    Source: "Neural Relational Inference for Interacting Systems" (Kipf, Fetaya, Wang, Welling, Zemel), ICML 2018,
    arXiv:1802.04687.

    Example:
        >>> from torch_geometric.loader import DataLoader
        >>> train = Particles("data/Particles", "springs", num_simulations=20)
        >>> test = Particles("data/Particles", "springs", "test", num_simulations=5, scale=train.scale)
        >>> batch = next(iter(DataLoader(test, batch_size=5)))
        >>> batch.x.shape, batch.y.shape, batch.edge_label.shape
        (torch.Size([25, 49, 4]), torch.Size([25, 20, 4]), torch.Size([100]))
    """

    def __init__(
        self,
        root: str | os.PathLike,
        kind: str = "springs",
        split: str = "train",
        num_simulations: int | None = None,
        *,
        num_particles: int = 5,
        history: int | None = None,
        horizon: int = 20,
        seed: int = 0,
        scale: Tensor | None = None,
        transform: Callable | None = None,
        log: bool = True,
    ) -> None:
        check_choice("kind", kind, KINDS)
        check_choice("split", split, tuple(SPLITS))
        check_flags(log=log)
        num_simulations = SPLITS[split] if num_simulations is None else num_simulations
        check_positive(num_simulations=num_simulations, num_particles=num_particles, horizon=horizon)
        if num_particles < 2:
            raise ValueError(f"expected 'num_particles' to be 2 or more, got {num_particles}")
        if history is None:
            history = 49 - horizon if split == "train" else 49
            if history < 1:
                raise ValueError(f"expected a 'horizon' below 49 for training without 'history', got {horizon}")
        check_positive(history=history)
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64:
            raise ValueError(f"expected 'seed' to be an int within 0 to 2^64 - 1, got {seed!r}")
        if scale is not None and (not isinstance(scale, Tensor) or scale.shape != (2, 2)):
            raise ValueError(f"expected 'scale' of shape [2, 2], got {describe(scale)}")
        self.kind, self.split, self.seed = kind, split, seed
        self.num_simulations, self.num_particles = num_simulations, num_particles
        self.history, self.horizon = history, horizon
        super().__init__(os.fspath(root), transform=transform, log=log)
        if scale is None and split != "train":
            options = {"num_particles": num_particles, "seed": seed, "log": log}
            scale = Particles(root, kind, **options).scale
        frames, interaction = self._load()
        self.scale = _extremes(frames) if scale is None else scale.float()
        low, high = (bound.repeat_interleave(2) for bound in self.scale.unbind(1))
        self._frames = torch.from_numpy(frames).sub_(low).mul_(2 / (high - low)).sub_(1)
        source, destination = (~torch.eye(num_particles, dtype=torch.bool)).nonzero().unbind(1)
        self._edge_index = torch.stack([source, destination])
        pulls = torch.from_numpy(interaction) == (1 if kind == "springs" else -1)
        self._edge_label = pulls[:, source, destination].long()

    @property
    def motion(self) -> tuple[float, float, float]:
        """How a frame follows from the one before: by how much a velocity of 1 moves a place, by how much one of 0
        does, and the median absolute change of a velocity (charges that meet make the mean large), all as scaled."""
        middle, half = self.scale.double().sum(1) / 2, self.scale.double().diff(dim=1)[:, 0] / 2
        seconds = STEP * STEPS_PER_FRAME
        change = self._frames[:1000, ..., 2:].diff(dim=2).abs().median()
        return float(seconds * half[1] / half[0]), float(seconds * middle[1] / half[0]), float(change)

    @property
    def processed_file_names(self) -> list[str]:
        """The file of the simulations."""
        sizes = f"n{self.num_particles}_t{self.history + self.horizon}_s{self.num_simulations}_seed{self.seed}"
        return [f"{self.kind}_{self.split}_{sizes}_v{FORMAT_VERSION}.npz"]

    def __getitem__(self, idx: Any) -> Any:
        check_index("simulation", idx, len(self))
        return super().__getitem__(idx)

    def len(self) -> int:
        """The number of simulations."""
        return self.num_simulations

    def get(self, idx: int) -> Data:
        """Simulation number ``idx``; its tensors are views."""
        frames = self._frames[idx]
        x, y = frames[:, : self.history], frames[:, self.history :]
        return Data(x=x, edge_index=self._edge_index, edge_label=self._edge_label[idx], y=y)

    def _load(self) -> tuple[np.ndarray, np.ndarray]:
        path = Path(self.processed_paths[0])
        if not path.is_file():
            if self.log:
                print(f"Simulating {self.num_simulations:,} times: {path}", file=sys.stderr)
            replace_file(path, self._make())
        count, size, length = self.num_simulations, self.num_particles, self.history + self.horizon
        with reading(path, FileError, "a file of simulations (delete it, and it is made anew)"):
            with np.load(path, allow_pickle=False) as file:
                frames, interaction = file["frames"], file["interaction"]
            wanted = [((count, size, length, 4), np.float32), ((count, size, size), np.int8)]
            got = [(array.shape, array.dtype) for array in (frames, interaction)]
            if got != wanted:
                raise ValueError(f"shapes and types {got} instead of {wanted}")
        return frames, interaction

    def _make(self) -> memoryview:
        """Simulate, and give the content of the file."""
        count, size, length = self.num_simulations, self.num_particles, self.history + self.horizon
        series = list(SPLITS).index(self.split) * len(KINDS) + KINDS.index(self.kind)
        frames = np.empty((count, size, length, 4), dtype=np.float32)
        interaction = np.empty((count, size, size), dtype=np.int8)
        for first in range(0, count, 1000):
            drawn = [draw_start(self.kind, self.seed, series, i, size) for i in range(first, min(first + 1000, count))]
            start, acts = (np.stack(part) for part in zip(*drawn, strict=True))
            part = slice(first, first + len(start))
            frames[part], interaction[part] = simulate(self.kind, start, acts, length), acts
        content = io.BytesIO()
        np.savez(content, frames=frames, interaction=interaction)
        return content.getbuffer()


def _extremes(frames: np.ndarray) -> Tensor:
    parts = frames[..., :2], frames[..., 2:]
    return torch.tensor([[part.min(), part.max()] for part in parts], dtype=torch.float32)
