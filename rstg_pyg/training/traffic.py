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
TRAINED = 72
"""Frames of a training sequence; the forecasts from all that have a whole history count."""
MIN_WEIGHT = 0.5
"""Of an edge: detectors that are nearer than about this see each other."""
STEPS = {15: 3, 30: 6, 60: 12}
"""Frames that are foretold, by their minutes."""


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
    measure = SpeedErrors(test.scale)
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
    recipe = SequenceRecipe(240, loss="huber", batch_size=1, chunk=40, lr=6e-3, weight_decay=0.05)
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
            SpeedErrors(train.scale),
            naive=lambda: naive_errors(LosLoop(root, "train", **short, **options), test),
        )
    ]
