"""The task on pedestrians: its errors, its augmentation, and that a few steps beat constant velocity."""

import pytest
import torch
from torch_geometric.loader import DataLoader

from rstg_pyg.models import constant_velocity
from rstg_pyg.training.pedestrians import NOISE, SCALES, augmented, displacement_errors, tasks


@pytest.fixture(scope="module")
def task():
    return tasks("no/such/folder", source="simulated")["pedestrians-zara1"]()


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


def test_augmented_windows_are_still_windows(task):
    batch, before = (next(iter(DataLoader(task.train, batch_size=40))) for _ in range(2))
    augmented(batch)
    source, destination, time = *batch.edge_index, batch.edge_time
    torch.testing.assert_close(batch.edge_attr, batch.x[source, time] - batch.x[destination, time], atol=1e-4, rtol=0)
    factor = (batch.y / before.y)[batch.y_mask]
    scale = factor.abs()
    assert SCALES[0] - 1e-3 <= scale.min() < 0.7 and 1.4 < scale.max() <= SCALES[1] + 1e-3
    torch.testing.assert_close(scale[:, 0], scale[:, 1])
    assert set(factor.prod(1).sign().tolist()) == {-1.0, 1.0}
    first = before.mask[:, -1] & before.y_mask[:, 0]
    noise = batch.x[first, -1] - before.x[first, -1] * (batch.y / before.y)[first, 0]
    assert 0.3 * NOISE < noise.std() < NOISE


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
