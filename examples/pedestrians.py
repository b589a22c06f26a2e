"""Predict where pedestrians will go in the next 4.8 seconds, from the last 3.2.

Five scenes of ETH and UCY; a network for a scene (--part pedestrians-eth, ...) learns from the other ones. Every row of
the table is a --model. Training ends with the errors on the test data, beside those of forecasts that nothing was
trained for, and pictures. A run that was stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from forecast_command import forecast  # before torch
from run_command import run_command

# isort: split
from rstg_pyg.training import ForecastTask, SequenceForecaster
from rstg_pyg.training.pedestrians import tasks
from rstg_pyg.visualize import draw_trajectories, explain_forecast


def draw(task: ForecastTask, module: SequenceForecaster, folder: Path) -> list[Path]:
    """Three windows of the test data, evenly apart."""
    numbers = [len(task.test) * part // 6 for part in (1, 3, 5)]
    shown = [explain_forecast(module.model, task.test[number]) for number in numbers]
    names = [f"window {number}" for number in numbers]
    path = folder / "trajectories.png"
    draw_trajectories(shown, names, f"{module.config['row']} on {task.title}").savefig(path, dpi=120)
    return [path]


def main(argv: list[str] | None = None) -> dict[str, float]:
    return forecast("pedestrians", __doc__, tasks, draw, argv)


if __name__ == "__main__":
    sys.exit(run_command("pedestrians.py", main))
