"""Particles: where springs or charges take them in 20 frames, from 49 frames that were seen; and who acts on whom."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from rstg_pyg.datasets.particle_motion import KINDS, simulate
from rstg_pyg.datasets.particles import Particles
from rstg_pyg.models.graph_rows import GRAPH_ROWS, GraphNetwork, GraphRow
from rstg_pyg.models.pair_forecaster import PairForecaster
from rstg_pyg.training.forecast import SequenceRecipe
from rstg_pyg.training.forecast_data import ForecastTask

HORIZON = 20
STEPS = (1, 10, 20)
"""After how many frames errors are measured."""

SIMULATIONS = {"train": 10_000, "val": 200, "test": 500}
OPTIONS = {"springs": {}, "charges": {"opposites": True, "field": True}}
"""Of the row of pairs. Charges attract or repel, and many meet a wall within 20 frames; few springs do."""


def particle_errors(prediction: Tensor, batch: Data) -> dict[str, Tensor]:
    """The squared errors after 1, 10 and 20 frames, as scaled: ``mse_1``, ``mse_10``, ``mse_20``."""
    return {f"mse_{step}": (prediction[:, step - 1] - batch.y[:, step - 1]).square() for step in STEPS}


def naive_errors(test: Particles) -> Mapping[str, Mapping[str, float]]:
    """The errors of forecasts that know nothing of forces: nothing moves, or everything goes straight on; and of one
    that is told all, who acts on whom and the laws, and takes a few steps in a frame."""
    batch, (advance, drift, _) = Batch.from_data_list(list(test)), test.motion
    place, velocity = batch.x[:, -1:].split(2, -1)
    steps = torch.arange(1.0, HORIZON + 1)[:, None]
    straight = torch.cat([place + steps * (advance * velocity + drift), velocity.expand(-1, HORIZON, -1)], -1)
    rows = {"no motion": batch.x[:, -1:].expand(-1, HORIZON, -1), "straight on": straight}
    for steps in (1, 5, 20):
        rows[f"the true laws, {steps} step{'s' * (steps > 1)} a frame"] = told_all(test, batch, steps)
    return {
        row: {name: float(value.mean()) for name, value in particle_errors(frames, batch).items()}
        for row, frames in rows.items()
    }


def told_all(test: Particles, batch: Data, steps: int) -> Tensor:
    """The frames ``[M, H, 4]`` that follow from the last one seen by the true laws, in so many steps a frame."""
    low, high = (bound.repeat_interleave(2).double() for bound in test.scale.unbind(1))
    unit, number = (high - low) / 2, batch.num_graphs
    last = ((batch.x[:, -1] + 1) * unit + low).unflatten(0, (number, -1)).mT
    label, (source, destination) = batch.edge_label.view(number, -1), test[0].edge_index
    interaction = last.new_zeros(number, last.size(2), last.size(2))
    interaction[:, source, destination] = (label if test.kind == "springs" else 1 - 2 * label).double()
    frames = simulate(test.kind, last.numpy(), interaction.numpy(), HORIZON + 1, steps)
    return ((torch.from_numpy(frames)[:, :, 1:] - low) / unit - 1).flatten(0, 1).float()


def tasks(
    root: str | os.PathLike, data_dir: str | os.PathLike | None = None, sizes: Mapping[str, int] | None = None
) -> dict[str, Callable[[], ForecastTask]]:
    """Return what makes the tasks on springs and on charges, by their names.

    Args:
        root: Where simulations are kept.
        data_dir: None: there are no files of other people's.
        sizes: Numbers of simulations by split (default: :data:`SIMULATIONS`).
    """
    if data_dir is not None:
        raise ValueError(f"expected no folder of data, for particles are simulated, got {data_dir}")
    sizes = {**SIMULATIONS, **(sizes or {})}
    return {f"particles-{kind}": partial(_task, os.path.join(root, "Particles"), kind, sizes) for kind in KINDS}


def _task(root: str, kind: str, sizes: Mapping[str, int]) -> ForecastTask:
    train = Particles(root, kind, num_simulations=sizes["train"])
    val, test = (Particles(root, kind, split, sizes[split], scale=train.scale) for split in ("val", "test"))

    def pairs(passes: int) -> Callable[[GraphNetwork], PairForecaster]:
        options = {**OPTIONS[kind], "passes": passes}
        return lambda network: PairForecaster(
            network.horizon, train.motion, network.channels, rnn=network.rnn, **options
        )

    own = (
        GraphRow("pairs", "RSTG on particles and pairs", pairs(3)),
        GraphRow("pairs-one-pass", "the same with one pass", pairs(1)),
    )
    return ForecastTask(
        f"particles-{kind}",
        f"Particles, {kind}",
        f"simulations with seed {train.seed}",
        GraphNetwork(in_channels=4, history=train.history, horizon=HORIZON, feed_back=True),
        SequenceRecipe(9_600, batch_size=16, chunk=1_600, loss="mse"),
        train,
        val,
        test,
        particle_errors,
        naive=lambda: naive_errors(test),
        rows={**GRAPH_ROWS, **{row.name: row for row in own}},
    )
