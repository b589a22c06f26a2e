"""Predict particles that springs or charges move, and find out who acts on whom.

Five particles in a box, seen for 49 frames: where are they in the next 20, and which of them are joined? Simulated from
the physics, with --part particles-charges for charges. Every row of the table is a --model. Training ends with the
errors on test simulations, beside those of forecasts that know nothing of forces, and an animation of what the model
believes. A run that was stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from forecast_command import forecast  # before torch
from run_command import run_command

# isort: split
import torch

from rstg_pyg.models import PairForecaster
from rstg_pyg.training import ForecastTask, SequenceForecaster
from rstg_pyg.training.particles import tasks
from rstg_pyg.visualize import animate_graph

DRAWN, EVERY = 2, 2
"""Test simulations that are drawn, and frames from one picture to the next."""


@torch.no_grad()
def draw(task: ForecastTask, module: SequenceForecaster, folder: Path) -> list[Path]:
    """Animate the first test simulations: what came, and as rings what the model predicted; of one that has beliefs
    about pairs, these."""
    model, paths = module.model.eval(), []
    for number in range(DRAWN):
        data = task.test[number]
        place, predicted = torch.cat([data.x, data.y], 1)[..., :2], model(data.x, data.edge_index)[..., :2]
        predicted = torch.cat([torch.full_like(data.x[..., :2], float("nan")), predicted], 1)
        once = data.edge_index[0] < data.edge_index[1]
        edges, beliefs = data.edge_index[:, once], {}
        if isinstance(model, PairForecaster):
            pulls = model.pulls(model.interactions(data.x, data.edge_index))[once]
            alpha = torch.cat([pulls, pulls[:, -1:].expand(-1, data.y.size(1))], 1)[:, ::EVERY, None]
            beliefs = {"alpha": alpha, "truth": data.edge_label[once].bool()}
        else:
            edges = edges[:, :0]
        paths.append(folder / f"simulation{number}.gif")
        shown = place[:, ::EVERY], edges, paths[-1]
        animate_graph(*shown, predicted=predicted[:, ::EVERY], fps=10 / EVERY, title=task.title, **beliefs)
    return paths


def main(argv: list[str] | None = None) -> dict[str, float]:
    return forecast("particles", __doc__, tasks, draw, argv, model="pairs")


if __name__ == "__main__":
    sys.exit(run_command("particles.py", main))
