"""Forecasts of pedestrians: the task of every scene, the recipe and the errors that papers report."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from rstg_pyg.datasets import Pedestrians
from rstg_pyg.models.graph_rows import GraphNetwork
from rstg_pyg.models.motion import MotionForecaster, constant_velocity
from rstg_pyg.training.forecast import SequenceRecipe
from rstg_pyg.training.forecast_data import ForecastTask

HISTORY, HORIZON = 8, 12
"""Frames of 0.4 s that are seen, and that are foretold."""

SCALES = 0.5, 1.6
"""Bounds of the size of the world in training."""


def pedestrians_recipe(clips: int = 60_000) -> SequenceRecipe:
    """A minute or two a scene on a CPU: windows in batches of 64, and the distance in metres as the loss."""
    return SequenceRecipe(clips, batch_size=64, lr=1e-2, loss="distance", chunk=clips // 10)


def pedestrians_network() -> GraphNetwork:
    """The sizes of all rows."""
    made = MotionForecaster
    return GraphNetwork(
        made.in_channels,
        HISTORY,
        HORIZON,
        out_channels=made.out_channels,
        channels=32,
        num_stages=1,
        edge_dim=made.edge_dim,
        norm=None,
        from_last=False,
    )


def pedestrians_task(
    scene: str,
    root: str | os.PathLike = "data/Pedestrians",
    recipe: SequenceRecipe | None = None,
    network: GraphNetwork | None = None,
    **kwargs: Any,
) -> ForecastTask:
    r"""Foretell the next 4.8 s of everyone in a scene from 3.2 s, having learned from the other scenes.

    Args:
        scene: The scene that is left out, see :class:`~rstg_pyg.datasets.Pedestrians`.
        root: Where downloads go.
        recipe: How every row is trained (default: :func:`pedestrians_recipe`).
        network: Sizes of all rows (default: :func:`pedestrians_network`).
        **kwargs: Further arguments of :class:`~rstg_pyg.datasets.Pedestrians`.

    Raises:
        As :class:`~rstg_pyg.datasets.Pedestrians`.

    Example:
        >>> from rstg_pyg.training import pedestrians_task
        >>> task = pedestrians_task("zara1", source="simulated")
        >>> task.name, sorted(task.naive())
        ('pedestrians-zara1', ['constant velocity', 'no motion'])
    """
    parts = [Pedestrians(root, scene, split, HISTORY, HORIZON, **kwargs) for split in ("train", "val", "test")]
    source = {"files": "ETH and UCY", "simulated": "simulated walkers"}[parts[0].source]
    return ForecastTask(
        f"pedestrians-{scene}",
        scene,
        source,
        pedestrians_network() if network is None else network,
        pedestrians_recipe() if recipe is None else recipe,
        *parts,
        measure=displacement_errors,
        augment=mirrored_and_scaled,
        around=partial(MotionForecaster, horizon=HORIZON),
        naive=partial(naive_errors, parts[2]),
    )


def displacement_errors(prediction: Tensor, batch: Data) -> dict[str, Tensor]:
    """The displacement errors in metres of the people who count, average (``ade``) and at the end (``fde``), and the
    average one of everybody, as far as they are there (``all``).

    Shapes:
        - **prediction:** ``[N, H, 2]``. **output:** ``[S]`` and ``[S]`` of S people, ``[M]`` of M places.
    """
    error = (prediction - batch.y).norm(dim=-1)
    of_scored = error[batch.scored]
    return {"ade": of_scored.mean(1), "fde": of_scored[:, -1], "all": error[batch.y_mask]}


def mirrored_and_scaled(batch: Data) -> Data:
    """A batch whose windows are mirrored, every second one, and as large as the bounds of :data:`SCALES` allow."""
    windows = batch.num_graphs
    scale = SCALES[0] + (SCALES[1] - SCALES[0]) * torch.rand(windows, 1, device=batch.x.device)
    mirror = torch.where(torch.rand(windows, 1, device=batch.x.device) < 0.5, -1.0, 1.0)
    # Which of the axes is of no account: forecasts turn with the scene.
    of_node = torch.cat([scale, mirror * scale], 1)[batch.batch]
    batch.x, batch.y = batch.x * of_node[:, None], batch.y * of_node[:, None]
    batch.edge_attr = batch.edge_attr * of_node[batch.edge_index[1]]
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
