"""Predict the speeds of road detectors: in 15, 30 and 60 minutes, from those of the last hour.

Los-loop: 207 detectors on the highways of Los Angeles, every 5 minutes for a week. Every row of the table is a --model.
Training ends with the errors on the test data, beside those of forecasts that nothing was trained for, and pictures: a
map of the errors, and a day of one detector. A run that was stopped goes on where it was when the same command is given
again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from forecast_command import forecast  # before torch
from run_command import run_command

# isort: split
import torch
from torch import Tensor

from rstg_pyg.training import ForecastTask, SequenceForecaster
from rstg_pyg.training.forecast_data import SequenceBatches
from rstg_pyg.training.traffic import HISTORY, STEPS, tasks
from rstg_pyg.visualize import draw_forecasts, draw_node_errors, place_nodes

AT_ONCE, DAY = 32, 288


def speeds(module: SequenceForecaster, task: ForecastTask) -> tuple[Tensor, Tensor]:
    """What came in the test data, ``[N, T]``, and what was predicted of it, ``[N, steps, T]``: the forecast a number of
    steps before; NaN where there is none."""
    windows = task.test
    batches, (num_nodes, num_frames) = SequenceBatches(windows), windows.series.data.y.shape[:2]
    device = next(module.parameters()).device
    found = torch.full((num_nodes, max(STEPS.values()), num_frames), torch.nan)
    with torch.no_grad():
        for start in range(0, len(windows), AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, len(windows)))
            parts = module.eval()(batches[numbers].to(device)).cpu().squeeze(-1).unflatten(0, (-1, num_nodes))
            for number, part in zip(numbers, parts, strict=True):
                for step in range(part.size(1)):
                    found[:, step, number + HISTORY + step] = part[:, step]
    there = windows.series.data.y_mask.all(0)
    truth = windows.series.data.y[:, there, 0]
    return truth * windows.scale + windows.mean, found[..., there] * windows.scale + windows.mean


def draw(task: ForecastTask, module: SequenceForecaster, folder: Path) -> list[Path]:
    """Save a map of the errors an hour ahead, and a day of the detector whose speed changes most."""
    truth, found = speeds(module, task)
    paths = [folder / "map.png", folder / "day.png"]
    adjacency = task.test.adjacency
    edge_index = adjacency.nonzero().T
    # The adjacency is exp(-d^2) of the distance d.
    length = (-adjacency[tuple(edge_index)].log()).clamp(min=0).sqrt()
    place = place_nodes(edge_index, length, len(truth))
    hour_before = found[:, STEPS[60] - 1]
    error = (hour_before - truth).abs().nanmean(1)
    title = f"{task.title}: mean absolute error an hour ahead, by detector"
    draw_node_errors(error, place, edge_index, title, "miles per hour").savefig(paths[0], dpi=120)
    day = slice(max(0, truth.size(1) - DAY), None)
    one = int(truth[:, day].std(1).argmax())
    hours = torch.arange(truth.size(1))[day] / 12
    lines = {
        f"predicted {minutes} minutes before": found[one, steps - 1, day]
        for minutes, steps in STEPS.items()
        if minutes != 30
    }
    title = f"{task.title}: the last day of the tests at the detector whose speed changes most (number {one})"
    figure = draw_forecasts(hours - hours[0], truth[one, day], lines, title, "hours", "miles per hour")
    figure.savefig(paths[1], dpi=120)
    return paths


def main(argv: list[str] | None = None) -> dict[str, float]:
    return forecast("traffic", __doc__, tasks, draw, argv)


if __name__ == "__main__":
    sys.exit(run_command("traffic.py", main))
