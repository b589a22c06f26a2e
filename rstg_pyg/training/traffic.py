"""Traffic: speeds of road detectors in 15, 30 and 60 minutes, from those of the last hour."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from rstg_pyg.datasets.los_loop import LosLoop
from rstg_pyg.models.graph_rows import GraphNetwork
from rstg_pyg.training.forecast import SequenceRecipe
from rstg_pyg.training.forecast_data import ForecastTask

HISTORY, HORIZON, SHORTEST = 12, 12, 3
STEPS = {15: 3, 30: 6, 60: 12}
"""Frames that are foretold, by their minutes."""


class SpeedErrors:
    """The errors of speeds in the unit of the data, over all steps up to 15, 30 and 60 minutes, each of the windows
    that have as many: ``rmse_15``, ``mae_15``, ...

    Args:
        max_speed: By what the speeds of a batch were divided.

    Shapes:
        - **prediction, batch.y:** ``[N, 12, 1]``. **batch.y_mask:** ``[N, 12]`` bool.
    """

    def __init__(self, max_speed: float) -> None:
        self.max_speed = max_speed

    def __call__(self, prediction: Tensor, batch: Data) -> dict[str, Tensor]:
        error = (prediction - batch.y).squeeze(-1) * self.max_speed
        errors = {}
        for minutes, steps in STEPS.items():
            of_windows = error[batch.y_mask[:, :steps].all(1), :steps]
            errors |= {f"rmse_{minutes}": of_windows.square(), f"mae_{minutes}": of_windows.abs()}
        return errors


def naive_errors(train: LosLoop, test: LosLoop) -> Mapping[str, Mapping[str, float]]:
    """The errors of forecasts that need no training: the last value, the mean of what was seen, and the linear
    autoregression of all detectors, by least squares for each horizon on the windows that have as many steps."""
    seen, known = (Batch.from_data_list(list(windows)) for windows in (train, test))
    past = known.x[..., 0]
    rows = {
        "last value": past[:, -1:].expand(-1, HORIZON),
        "mean of the hour before": past.mean(1, True).expand(-1, HORIZON),
    }
    found = {}
    for steps in STEPS.values():
        whole = seen.y_mask[:, :steps].all(1)
        lags = torch.cat([seen.x[whole, :, 0], torch.ones(int(whole.sum()), 1)], 1).double()
        weights = torch.linalg.lstsq(lags, seen.y[whole, :steps, 0].double()).solution.float()
        found[steps] = past @ weights[:-1] + weights[-1]
    measure = SpeedErrors(test.max_speed)
    errors = {name: measure(frames[..., None], known) for name, frames in rows.items()}
    linear = {}
    for minutes, steps in STEPS.items():
        frames = torch.nn.functional.pad(found[steps], (0, HORIZON - steps))
        linear |= {
            name: value for name, value in measure(frames[..., None], known).items() if name.endswith(f"_{minutes}")
        }
    errors["linear autoregression, least squares"] = linear
    return {
        row: {name: float(v.mean() ** 0.5 if name.startswith("rmse") else v.mean()) for name, v in values.items()}
        for row, values in errors.items()
    }


def tasks(
    root: str | os.PathLike, data_dir: str | os.PathLike | None = None, speeds: str = "auto"
) -> list[ForecastTask]:
    """Return the one task on traffic; see :class:`~rstg_pyg.datasets.LosLoop` for the arguments."""
    options = {"history": HISTORY, "horizon": HORIZON, "shortest": SHORTEST, "data_dir": data_dir}
    train = LosLoop(root, "train", speeds=speeds, **options)
    val, test = (LosLoop(root, split, speeds=train.source, **options) for split in ("val", "test"))
    network = GraphNetwork(in_channels=3, out_channels=1, history=HISTORY, horizon=HORIZON, edge_dim=1)
    recipe = SequenceRecipe(30 * len(train), batch_size=16, chunk=len(train))
    return [
        ForecastTask(
            "traffic",
            "Los-loop" if train.source == "los-loop" else "a simulated road network",
            train.source,
            network,
            recipe,
            train,
            val,
            test,
            SpeedErrors(train.max_speed),
            naive=lambda: naive_errors(train, test),
        )
    ]
