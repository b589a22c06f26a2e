"""Traffic: speeds of road detectors in 15, 30 and 60 minutes, from those of the last hour."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from rstg_pyg.datasets.los_loop import LosLoop
from rstg_pyg.models.graph_rows import GraphNetwork
from rstg_pyg.training.forecast import SequenceRecipe
from rstg_pyg.training.forecast_data import ForecastTask

HISTORY, HORIZON, SHORTEST = 12, 12, 3
TRAINED = 24
"""Frames of a training sequence; the forecasts from all that have a whole history count."""
MIN_WEIGHT = 0.5
"""Of an edge: detectors that are nearer than about this see each other."""
NEIGHBOURS, RIDGE = 8, 100.0
"""Of the linear models of each detector; chosen on validation data."""
STEPS = {15: 3, 30: 6, 60: 12}
"""Frames that are predicted, by their minutes."""


class SpeedErrors:
    """The errors of speeds in the unit of the data, over all steps up to 15, 30 and 60 minutes, each of the windows
    that have as many: ``rmse_15``, ``mae_15``, ...

    Args:
        scale: By what the speeds of a batch were divided.

    Shapes:
        - **prediction, batch.y:** ``[N, 12, 1]``. **batch.y_mask:** ``[N, 12]`` bool.
    """

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, prediction: Tensor, batch: Data) -> dict[str, Tensor]:
        error = (prediction - batch.y).squeeze(-1) * self.scale
        errors = {}
        for minutes, steps in STEPS.items():
            of_windows = error[batch.y_mask[:, :steps].all(1), :steps]
            errors |= {f"rmse_{minutes}": of_windows.square(), f"mae_{minutes}": of_windows.abs()}
        return errors


def naive_errors(train: LosLoop, test: LosLoop) -> Mapping[str, Mapping[str, float]]:
    """The errors of the last value, of the mean of what was seen, and of linear models in closed form: one for all
    detectors, and one for each, which also sees the last values of its neighbours (ridge regression).

    Args:
        train: Windows whose targets are all there.
        test: Windows to be measured on.
    """
    seen, known = (Batch.from_data_list(list(windows)) for windows in (train, test))
    nearest = train.adjacency.clone().fill_diagonal_(0).topk(min(NEIGHBOURS, len(train.adjacency) - 1)).indices
    inputs, change = _linear_inputs(seen, nearest), (seen.y - seen.x[:, -1:, :1]).squeeze(-1)
    tests, past = _linear_inputs(known, nearest), known.x[..., 0]
    own = _solve(inputs[..., : HISTORY + 1].flatten(0, 1), change.double(), 0.0)
    by_node = change.double().unflatten(0, (-1, len(nearest))).transpose(0, 1)
    ridge = _solve(inputs.transpose(0, 1), by_node, RIDGE)
    rows = {
        "last value": past[:, -1:].expand(-1, HORIZON),
        "mean of the hour before": past.mean(1, True).expand(-1, HORIZON),
        "linear autoregression, one for all": past[:, -1:] + (tests[..., : HISTORY + 1] @ own).flatten(0, 1),
        f"ridge regression of each detector and {NEIGHBOURS} neighbours": past[:, -1:]
        + (tests.transpose(0, 1) @ ridge).transpose(0, 1).flatten(0, 1),
    }
    measure, found = SpeedErrors(test.scale), {}
    for row, frames in rows.items():
        means = {name: float(entries.mean()) for name, entries in measure(frames[..., None].float(), known).items()}
        found[row] = {name: mean**0.5 if name.startswith("rmse") else mean for name, mean in means.items()}
    return found


def _linear_inputs(batch: Batch, nearest: Tensor) -> Tensor:
    """Of every window and detector the lags, a one, and how much faster its neighbours are, ``[W, N, 12 + 1 + k]``."""
    x = batch.x[..., 0].double().unflatten(0, (-1, len(nearest)))
    last = x[..., -1:]
    return torch.cat([x[..., :-1] - last, last, torch.ones_like(last), x[:, nearest, -1] - last], -1)


def _solve(inputs: Tensor, targets: Tensor, strength: float) -> Tensor:
    penalty = strength * torch.eye(inputs.size(-1), dtype=inputs.dtype)
    return torch.linalg.solve(inputs.mT @ inputs + penalty, inputs.mT @ targets)


def tasks(
    root: str | os.PathLike, data_dir: str | os.PathLike | None = None, speeds: str = "auto"
) -> dict[str, Callable[[], ForecastTask]]:
    """Return what makes the one task on traffic, by its name; see :class:`~rstg_pyg.datasets.LosLoop` for the
    arguments."""
    return {"traffic": partial(_task, root, data_dir, speeds)}


def _task(root: str | os.PathLike, data_dir: str | os.PathLike | None, speeds: str) -> ForecastTask:
    last = TRAINED - HISTORY
    long = {"history": TRAINED, "horizon": HORIZON + last, "gap": -last}
    short = {"history": HISTORY, "horizon": HORIZON, "shortest": SHORTEST}
    options = {"min_weight": MIN_WEIGHT, "data_dir": data_dir}
    train = LosLoop(root, "train", speeds=speeds, **long, **options)
    options["speeds"] = train.source
    # Windows of the same steps five minutes apart say nearly the same.
    val = LosLoop(root, "val", stride=2, **short, **options)
    test = LosLoop(root, "test", **short, **options)
    network = GraphNetwork(
        in_channels=3,
        out_channels=1,
        history=HISTORY,
        horizon=HORIZON,
        num_stages=1,
        heads=1,
        edge_dim=1,
        pe_channels=8,
        num_nodes=len(train.adjacency),
    )
    recipe = SequenceRecipe(720, loss="huber", batch_size=3, chunk=120, lr=6e-3, weight_decay=0.05)
    return ForecastTask(
        "traffic",
        "Los-loop" if train.source == "los-loop" else "a simulated road network",
        train.source,
        network,
        recipe,
        train,
        val,
        test,
        SpeedErrors(train.scale),
        naive=lambda: naive_errors(LosLoop(root, "train", HISTORY, HORIZON, **options), test),
    )
