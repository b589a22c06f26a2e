"""The task on pedestrians: its errors, its augmentation, and that a few steps beat constant velocity."""

import pytest
import torch
from torch_geometric.loader import DataLoader

from rstg_pyg.models import constant_velocity
from rstg_pyg.training.pedestrians import SCALES, displacement_errors, mirrored_and_scaled, tasks


@pytest.fixture(scope="module")
def task():
    return tasks("no/such/folder", source="simulated")[3]


def test_errors_are_of_those_who_are_there_throughout(task):
    batch = next(iter(DataLoader(task.test, batch_size=3)))
    prediction = constant_velocity(batch.x, 12, batch.mask)
    errors = displacement_errors(prediction, batch)
    ade, fde = [], []
    for i in range(batch.num_nodes):
        if batch.mask[i].all() and batch.y_mask[i].all():
            distances = [(prediction[i, k] - batch.y[i, k]).square().sum().sqrt() for k in range(12)]
            ade.append(sum(distances) / 12)
            fde.append(distances[-1])
    torch.testing.assert_close(errors["ade"], torch.stack(ade))
    torch.testing.assert_close(errors["fde"], torch.stack(fde))
    assert 0 < len(ade) < batch.num_nodes and errors["all"].numel() == batch.y_mask.sum()
    naive = task.naive()
    assert naive["constant velocity"]["ade"] < naive["no motion"]["ade"]


def test_mirrored_and_scaled_windows_are_still_windows(task):
    batch, before = (next(iter(DataLoader(task.train, batch_size=40))) for _ in range(2))
    mirrored_and_scaled(batch)
    source, destination, time = *batch.edge_index, batch.edge_time
    torch.testing.assert_close(batch.edge_attr, batch.x[source, time] - batch.x[destination, time], atol=1e-4, rtol=0)
    scale = (batch.x[batch.mask] / before.x[before.mask])[:, 0]
    assert SCALES[0] <= scale.min() < 0.7 and 1.4 < scale.max() <= SCALES[1]
    came = (batch.y / before.y).abs()[batch.y_mask].nan_to_num(1)
    assert SCALES[0] - 1e-3 <= came.min() and came.max() <= SCALES[1] + 1e-3
    side = (batch.x / before.x)[before.mask].prod(1).sign()
    assert set(side.tolist()) == {-1.0, 1.0}


def test_a_few_steps_beat_constant_velocity(task):
    batch = next(iter(DataLoader(task.train, batch_size=40, shuffle=True)))
    module = task.module("1-temp-stage")
    optimizer = torch.optim.AdamW(module.parameters(), task.recipe.lr)
    for _ in range(40):
        optimizer.zero_grad()
        displacement_errors(module(batch), batch)["all"].mean().backward()
        optimizer.step()
    learned, naive = (
        displacement_errors(prediction, batch)["all"].mean()
        for prediction in (module(batch), constant_velocity(batch.x, 12, batch.mask))
    )
    assert learned < 0.9 * naive
