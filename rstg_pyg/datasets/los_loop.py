"""Los-loop: the speeds of 207 traffic detectors for a week, and a small simulated road network in its form."""

from __future__ import annotations

import io
import os
import warnings
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.arguments import check_choice, check_positive
from rstg_pyg.datasets.data_folder import DATA, read_data_files
from rstg_pyg.datasets.download import DownloadError
from rstg_pyg.files import FileError, reading
from rstg_pyg.temporal import Windows

CHECKSUMS = {
    "los_speed.csv": "7b732d86ae32b2930595becba28aff39dacbfb2197e250fc0332e1744ce2cbf4",
    "los_adj.csv": "7a6eb41e10677992b5af50f5ab187c6c05c5c3a92cb973950cfddbf857361e76",
}
_REPOSITORY = "https://raw.githubusercontent.com/lehaifeng/T-GCN"
ADDRESSES = (
    f"{_REPOSITORY}/219a2346/data/",
    f"{_REPOSITORY}/219a2346/T-GCN/T-GCN-PyTorch/data/",
    f"{_REPOSITORY}/8427128f04157e6fd0b239a8734a468d923cd0c9/data/",
)
"""The folder has moved in the course of time."""
SOURCES = ("auto", "los-loop", "simulated")
SPLITS = ("train", "val", "test")
STEPS_PER_DAY = 288


class LosLoop(Windows):
    r"""Windows over the speeds of 207 detectors on the highways of Los Angeles, every 5 minutes for a week.

    The first 80 % of the rows are for training, and the last tenth of these is the validation data; windows lie within
    their part. Speeds are standardised, by mean and deviation of the training data. As in the published program the
    last row of the tests is left out. At the end of a part are windows whose targets are there in part: ``y_mask`` says
    which, so that errors at a shorter horizon count every window that they would have.

    Args:
        root: Where the files are downloaded to, see :func:`~rstg_pyg.datasets.data_folder.read_data_files`.
        split: ``"train"``, ``"val"`` or ``"test"``.
        history: Frames that are seen.
        horizon: Frames to predict.
        shortest: How many of these are there at least (default: all).
        stride, gap: See :class:`~rstg_pyg.temporal.Windows`.
        min_weight: Edges of a smaller weight are left out.
        speeds: ``"los-loop"``, ``"simulated"`` for :func:`simulate_traffic`, or ``"auto"`` for the simulation, and a
            warning, where Los-loop is not at hand and cannot be downloaded.
        data_dir: A folder that holds ``los_speed.csv`` and ``los_adj.csv`` (default: ``traffic`` in the folder that the
            environment variable ``RSTG_PYG_DATA`` names).

    Shapes:
        Of a window, with N detectors:

        - **x:** ``[N, history, 3]``: the speed, and sine and cosine of the time of day. **y:** ``[N, horizon, 1]``:
          the speed. **y_mask:** ``[N, horizon]`` bool. **edge_index:** ``[2, E]``, without loops. **edge_attr:**
          ``[E, 1]``, the adjacency: 1 for detectors in one place, less with their distance.

    Raises:
        ValueError: If an argument is out of its range, or a part has too few rows for a window.
        FileNotFoundError: If a folder that was named lacks a file.
        FileError: If a file is damaged or another one; it is a ValueError.
        DownloadError: If Los-loop is asked for and cannot be downloaded.

    Source: L. Zhao et al., "T-GCN: a temporal graph convolutional network for traffic prediction", IEEE Transactions on
    Intelligent Transportation Systems, 2019: the files, their division and the published rows.

    Example:
        >>> from rstg_pyg.datasets import LosLoop
        >>> LosLoop("data", "test", history=12, horizon=6, speeds="simulated")[0]
        Data(x=[30, 12, 3], edge_index=[2, 60], edge_attr=[60, 1], y=[30, 6, 1], y_mask=[30, 6], first_frame=0)
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str = "train",
        history: int = 12,
        horizon: int = 12,
        shortest: int | None = None,
        stride: int = 1,
        gap: int = 0,
        min_weight: float = 0.0,
        speeds: str = "auto",
        data_dir: str | os.PathLike | None = None,
    ) -> None:
        check_choice("split", split, SPLITS)
        check_choice("speeds", speeds, SOURCES)
        shortest = horizon if shortest is None else shortest
        check_positive(history=history, horizon=horizon, shortest=shortest)
        if shortest > horizon:
            raise ValueError(f"expected 'shortest' to be at most horizon={horizon}, got {shortest}")
        speed, adjacency, self.source = _open(root, speeds, data_dir)
        self.split = split
        num_seen = len(speed) * 8 // 10
        num_train = num_seen * 9 // 10
        self.mean, self.scale = float(speed[:num_train].mean()), float(speed[:num_train].std())
        """What is taken from speeds, and by what they are then divided: mean and standard deviation in training."""
        bounds = {"train": (0, num_train), "val": (num_train, num_seen)}
        start, stop = bounds.get(split, (num_seen, len(speed) - 1))
        wanted = history + max(0, gap + shortest)
        if stop - start < wanted:
            raise ValueError(f"expected at least {wanted} rows for a window, got {stop - start} of {split!r}")
        part, day = (speed[start:stop].T - self.mean) / self.scale, torch.arange(start, stop) % STEPS_PER_DAY
        angle = (2 * torch.pi * day / STEPS_PER_DAY).expand_as(part)
        self.adjacency = adjacency
        """The weights of all edges, ``[N, N]``, 1 on the diagonal."""
        edge_index = (adjacency.clone().fill_diagonal_(0) > min_weight).nonzero().T.contiguous()
        series = Data(
            x=_padded(torch.stack([part, angle.sin(), angle.cos()], -1), horizon - shortest),
            edge_index=edge_index,
            edge_attr=adjacency[edge_index[0], edge_index[1], None],
            y=_padded(part[..., None], horizon - shortest),
            y_mask=_padded(torch.ones_like(part)[..., None], horizon - shortest)[..., 0].bool(),
        )
        super().__init__(series, history, horizon, stride, gap)


def _padded(value: Tensor, count: int) -> Tensor:
    return torch.nn.functional.pad(value, (0, 0, 0, count))


def _open(root: str | os.PathLike, speeds: str, data_dir: str | os.PathLike | None) -> tuple[Tensor, Tensor, str]:
    """Speeds ``[T, N]``, the adjacency ``[N, N]``, and where they come from."""
    if speeds == "simulated":
        return *simulate_traffic(), speeds
    try:
        files = read_data_files("traffic", CHECKSUMS, ADDRESSES, root, data_dir)
    except DownloadError as error:
        advice = f"put the two files into a folder and name it (data_dir, or its parent in {DATA})"
        if speeds == "los-loop":
            raise DownloadError(f"{error}; {advice}") from None
        warnings.warn(f"a small simulated road network takes the place of Los-loop: {error}; {advice}", stacklevel=3)
        return *simulate_traffic(), "simulated"
    speed = _table(files["los_speed.csv"], "los_speed.csv", header=True)
    return speed, _table(files["los_adj.csv"], "los_adj.csv"), "los-loop"


@lru_cache(maxsize=2)
def _table(content: bytes, name: str, header: bool = False) -> Tensor:
    with reading(name, FileError, "a table of numbers"):
        return torch.from_numpy(
            np.loadtxt(io.BytesIO(content), np.float32, delimiter=",", skiprows=int(header), ndmin=2)
        )


@lru_cache(maxsize=1)
def simulate_traffic(num_detectors: int = 30, num_days: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Speeds on a ring road with detectors one after the other: jams that grow at rush hours and move backwards.

    Args:
        num_detectors: Number N of detectors.
        num_days: Days of 288 rows.
        seed: Of everything that is random.

    Shapes:
        - **output:** speeds ``[288 * num_days, N]`` in miles per hour, and an adjacency ``[N, N]`` of the next
          detector on both sides.

    Source: this package's.

    Example:
        >>> from rstg_pyg.datasets.los_loop import simulate_traffic
        >>> speed, adjacency = simulate_traffic()
        >>> speed.shape, adjacency.shape
        (torch.Size([1440, 30]), torch.Size([30, 30]))
    """
    check_positive(num_detectors=num_detectors, num_days=num_days)
    generator = torch.Generator().manual_seed(seed)
    place, jam, speeds = torch.arange(num_detectors), torch.zeros(num_detectors), []
    bottleneck = (torch.rand(num_detectors, generator=generator) < 0.2).float()
    for step in range(STEPS_PER_DAY * num_days):
        hour = step % STEPS_PER_DAY / 12
        rush = sum(np.exp(-((hour - peak) ** 2) / 3) for peak in (8, 17))
        starts = bottleneck * rush * torch.rand(num_detectors, generator=generator)
        jam = (0.75 * jam + 0.22 * jam.roll(-1) + 0.25 * starts).clamp(max=1)
        noise = torch.randn(num_detectors, generator=generator)
        speeds.append((65 - 45 * jam + 2 * noise).clamp(5, 70))
    apart = (place[:, None] - place[None]).abs()
    apart = torch.minimum(apart, num_detectors - apart)
    return torch.stack(speeds), torch.where(apart < 2, (-apart.float()).exp(), 0.0)
