"""Particles as a task: its naive rows by hand, its own row trained by the trainer of all rows."""

from dataclasses import replace

import lightning
import pytest
import torch
from torch_geometric.data import Batch

from rstg_pyg.models import PairForecaster
from rstg_pyg.training import run_trainer, train_and_test
from rstg_pyg.training.particles import HORIZON, STEPS, tasks, told_all

SIZES = {"train": 24, "val": 4, "test": 4}


@pytest.fixture(scope="module")
def springs(tmp_path_factory):
    return tasks(tmp_path_factory.mktemp("data"), sizes=SIZES)["particles-springs"]()


def test_naive_rows_are_those_of_a_hand(springs):
    naive = springs.naive()
    advance, drift, _ = springs.train.motion
    for step in STEPS:
        still = [(item.y[:, step - 1] - item.x[:, -1]).square().mean() for item in springs.test]
        assert naive["no motion"][f"mse_{step}"] == pytest.approx(float(sum(still) / len(still)), rel=1e-4)
    assert naive["straight on"]["mse_1"] < naive["no motion"]["mse_1"]
    # A frame is nearly the one before, moved by its velocity.
    item = springs.train[3]
    ahead = item.x[:, :-1, :2] + advance * (item.x[:, 1:, 2:] + item.x[:, :-1, 2:]) / 2 + drift
    torch.testing.assert_close(item.x[:, 1:, :2], ahead, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["springs", "charges"])
def test_who_is_told_all_and_takes_all_steps_is_right(kind, tmp_path):
    task = tasks(tmp_path, sizes=SIZES)[f"particles-{kind}"]()
    batch = Batch.from_data_list(list(task.test))
    away = (told_all(task.test, batch, 100) - batch.y).abs()
    assert away[:, 0].max() < 1e-4 and away.median() < 1e-5
    # What was seen is rounded to float32: once two charges have met, that is another way.
    assert kind == "charges" or away.max() < 1e-4
    errors = [task.naive()[f"the true laws, {steps} a frame"]["mse_20"] for steps in ("1 step", "5 steps", "20 steps")]
    assert errors == sorted(errors, reverse=True) and errors[-1] < task.naive()["straight on"]["mse_20"]


def test_the_row_of_pairs_is_trained_and_measured(springs, tmp_path):
    recipe = replace(springs.recipe, clips=8, chunk=8, batch_size=4)
    task = replace(springs, recipe=recipe, network=replace(springs.network, channels=8))
    lightning.seed_everything(0, verbose=False)
    module = task.module("pairs")
    assert isinstance(module.model, PairForecaster) and module.model.horizon == HORIZON
    trainer = run_trainer(tmp_path, recipe, "cpu")
    result = train_and_test(module, task.data(), trainer)
    assert result.finished and result.test.keys() == {"loss", "mse_1", "mse_10", "mse_20", "interactions"}
    with torch.no_grad():
        said = [module.model.measure(item)["interactions"].mean() for item in task.test]
    assert result.test["interactions"] == pytest.approx(float(torch.stack(said).mean()))
    assert module.config["row"] == "pairs" and "all-temp-stages" in task.rows


def test_there_are_no_files_of_other_people(tmp_path):
    with pytest.raises(ValueError, match="expected no folder of data, for particles are simulated, got elsewhere"):
        tasks(tmp_path, "elsewhere")
