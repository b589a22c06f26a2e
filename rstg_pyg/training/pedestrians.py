"""Forecasts of pedestrians: the task of every scene, the recipe and the errors that papers report."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from rstg_pyg.datasets import Pedestrians
from rstg_pyg.datasets.pedestrians import SCENES, SPLITS
from rstg_pyg.models.graph_rows import GRAPH_ROWS, GraphNetwork
from rstg_pyg.models.motion import MotionForecaster, constant_velocity
from rstg_pyg.training.forecast import SequenceRecipe
from rstg_pyg.training.forecast_data import ForecastTask

HISTORY, HORIZON = 8, 12
"""Frames of 0.4 s that are seen, and that are predicted."""

SCALES = 0.5, 1.6
"""Bounds of the size of the world in training."""
PACES = 1, 2
"""At eth people walk twice as fast as elsewhere, by the clock of its file."""
NOISE = 0.03
"""Metres: UCY was annotated by splines, ETH frame by frame."""

WORTH = "all-temp-stages"
"""The row that is trained without people who are there only in part, too."""


def displacement_errors(prediction: Tensor, batch: Data) -> dict[str, Tensor]:
    """The displacement errors in metres of the people who count, average (``ade``) and at the end (``fde``), and the
    average one of everybody, as far as they are there (``all``).

    Shapes:
        - **prediction:** ``[N, H, 2]``. **output:** ``[S]`` and ``[S]`` of S people, ``[M]`` of M places.
    """
    error = (prediction - batch.y).norm(dim=-1)
    of_scored = error[batch.scored]
    return {"ade": of_scored.mean(1), "fde": of_scored[:, -1], "all": error[batch.y_mask]}


def augmented(batch: Data) -> Data:
    """A batch whose windows are mirrored, every second one, larger or smaller within the bounds of :data:`SCALES`, and
    seen, every second one, with an error of up to :data:`NOISE` metres (standard deviation), so that a forecaster
    learns how far the last step of a way that trembles can be trusted."""
    x, (source, destination), windows = batch.x, batch.edge_index, batch.num_graphs
    scale = SCALES[0] + (SCALES[1] - SCALES[0]) * torch.rand(windows, 1, device=x.device)
    mirror = torch.where(torch.rand(windows, 1, device=x.device) < 0.5, -1.0, 1.0)
    # Which of the axes is of no account: forecasts turn with the scene.
    of_node = torch.cat([scale, mirror * scale], 1)[batch.batch, None]
    deviation = NOISE * (2 * torch.rand(windows, 1, 1, device=x.device) - 1).relu()
    noise = deviation[batch.batch] * torch.randn_like(x)
    batch.x, batch.y = x * of_node + noise, batch.y * of_node
    batch.edge_attr = batch.x[source, batch.edge_time] - batch.x[destination, batch.edge_time]
    return batch


def naive_errors(windows: Pedestrians) -> dict[str, dict[str, float]]:
    """The errors of going on with the last velocity, and of standing still."""
    rows: dict[str, list[dict[str, Tensor]]] = {"constant velocity": [], "no motion": []}
    for batch in DataLoader(windows, batch_size=256):
        going = constant_velocity(batch.x, HORIZON, batch.mask)
        standing = constant_velocity(batch.x[:, -1:], HORIZON, batch.mask[:, -1:])
        for parts, prediction in zip(rows.values(), (going, standing), strict=True):
            parts.append(displacement_errors(prediction, batch))
    return {
        row: {name: float(torch.cat([part[name] for part in parts]).mean()) for name in parts[0]}
        for row, parts in rows.items()
    }


def tasks(
    root: str | os.PathLike, data_dir: str | os.PathLike | None = None, source: str = "auto"
) -> dict[str, Callable[[], ForecastTask]]:
    """Return what makes the task of each scene, by its name: predict the next 4.8 s of everyone from 3.2 s, having
    learned from the other scenes; see :class:`~rstg_pyg.datasets.Pedestrians` for the arguments.

    A task whose name ends in "-throughout" has the same scene without the people who are there only in part. One row
    tells what they are worth.

    Example:
        >>> from rstg_pyg.training.pedestrians import tasks
        >>> tasks("data", source="simulated")["pedestrians-eth"]().title
        'eth, of simulated walkers'
    """
    make = partial(_task, root, data_dir, source)
    found = {f"pedestrians-{scene}": partial(make, scene) for scene in SCENES}
    return found | {f"{name}-throughout": partial(one, throughout_only=True) for name, one in found.items()}


def _task(
    root: str | os.PathLike, data_dir: str | os.PathLike | None, source: str, scene: str, throughout_only: bool = False
) -> ForecastTask:
    parts = []
    name, title, rows = f"pedestrians-{scene}", scene, GRAPH_ROWS
    if throughout_only:
        name, title, rows = f"{name}-throughout", f"{scene}, people there throughout alone", {WORTH: GRAPH_ROWS[WORTH]}
    for split in SPLITS:
        options = {"paces": PACES, "throughout_only": throughout_only, "source": source, "data_dir": data_dir}
        parts.append(Pedestrians(root, scene, split, HISTORY, HORIZON, **options))
        source = parts[0].source
    network = GraphNetwork(
        MotionForecaster.in_channels,
        HISTORY,
        HORIZON,
        out_channels=MotionForecaster.out_channels,
        num_stages=1,
        edge_dim=MotionForecaster.edge_dim,
        norm=None,
        from_last=False,
    )
    return ForecastTask(
        name,
        title if source == "files" else f"{title}, of simulated walkers",
        {"files": "ETH and UCY", "simulated": "simulated walkers"}[source],
        network,
        SequenceRecipe(60_000, batch_size=32, lr=1e-2, loss="distance", chunk=4_000),
        *parts,
        measure=displacement_errors,
        augment=augmented,
        around=partial(MotionForecaster, horizon=HORIZON),
        naive=partial(naive_errors, parts[2]),
        rows=rows,
    )
