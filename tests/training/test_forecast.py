"""Training forecasters: what counts, which weights are tested, and going on from a checkpoint."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from small_forecasts import RECIPE, H, T, make_task
from torch_geometric.data import Batch, Data

from rstg_pyg.models import Forecaster, masked_error
from rstg_pyg.models.graph_rows import LinearAutoregression
from rstg_pyg.training import (
    CheckpointError,
    SequenceForecaster,
    forecast_errors,
    open_run,
    run_trainer,
    train_and_test,
)
from rstg_pyg.training.forecast import LOSSES
from rstg_pyg.training.forecast_data import SequenceBatches
from rstg_pyg.training.metrics import read_rows


def train(folder, task, callbacks=(), minutes=None, row="all-temp-stages"):
    torch.manual_seed(0)
    module = task.module(row)
    trainer = run_trainer(folder, task.recipe, "cpu", max_minutes=minutes, progress=False, callbacks=callbacks)
    return module, train_and_test(module, task.data(), trainer, open_run(folder, module))


def test_it_learns_and_the_best_weights_are_tested(tmp_path):
    task = make_task(replace(RECIPE, clips=480))
    before = train(tmp_path / "untrained", make_task(replace(RECIPE, clips=24, lr=1e-9)))[1]
    module, result = train(tmp_path / "trained", task)
    assert result.finished and result.test["rmse"] < 0.5 * before.test["rmse"]
    rows = [row["val_loss"] for row in read_rows(tmp_path / "trained" / "metrics.csv") if "val_loss" in row]
    assert len(rows) == 20 and "accuracy" not in read_rows(tmp_path / "trained" / "metrics.csv")[0]
    assert result.val["loss"] == pytest.approx(min(rows), rel=1e-5)
    batch = Batch.from_data_list(list(task.test))
    error = masked_error(module.eval()(batch), batch.y, batch.y_mask)
    assert result.test["mae"] == pytest.approx(float(error), rel=1e-5)
    squares = forecast_errors(module(batch), batch)["rmse"]
    assert result.test["rmse"] == pytest.approx(float(squares.mean().sqrt()), rel=1e-5)


def test_a_second_run_of_a_module_has_a_best_of_its_own(tmp_path):
    """Its data may be harder, and then none of its losses is below the least one of the first."""
    task = make_task()
    module, _ = train(tmp_path / "first", task)
    first = module._best["loss"]
    harder = replace(task, val=[item.update({"y": 9 * item.y}) for item in task.val])
    trainer = run_trainer(tmp_path / "second", task.recipe, "cpu", progress=False)
    result = train_and_test(module, harder.data(), trainer)
    assert module._best["loss"] == pytest.approx(result.val["loss"], rel=1e-5) and module._best["loss"] > first


def test_a_run_that_was_stopped_ends_like_an_unbroken_one(tmp_path):
    task = make_task(augment=lambda batch: batch.update({"x": batch.x * (0.9 + 0.2 * torch.rand(1))}))
    whole, expected = train(tmp_path / "whole", task)
    stopped = [train(tmp_path / "parts", task, minutes=1e-9)[1] for _ in range(3)]
    assert [result.clips for result in stopped] == [24, 48, 72] and not stopped[-1].finished
    module, result = train(tmp_path / "parts", task)
    assert (result.val, result.test) == (expected.val, expected.test)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(module.model.state_dict()[name], value)
    again = train(tmp_path / "parts", task)[1]
    assert again.test == expected.test
    short = replace(task, train=torch.utils.data.Subset(task.train, range(10)))
    with pytest.raises(CheckpointError, match="the 31 training sequences that the run began with, got 10"):
        train(tmp_path / "parts", short)
    with pytest.raises(CheckpointError, match="row='all-temp-stages' there, 'gru' now"):
        train(tmp_path / "parts", task, row="gru")


def test_every_epoch_has_every_sequence_once_in_an_order_of_its_own():
    items = [Data(x=torch.full((1, 1, 1), i)) for i in range(7)]
    one, other = ([int(v) for v in SequenceBatches(items, seed)[range(21)].x.flatten()] for seed in (0, 1))
    epochs = [one[i : i + 7] for i in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs) and epochs[0] != epochs[1] and one != other
    assert [int(v) for v in SequenceBatches(items, 0)[range(5, 9)].x.flatten()] == one[5:9]
    assert SequenceBatches(items)[range(2, 4)].x.flatten().tolist() == [2, 3]


@pytest.mark.parametrize("loss", ["mae", "mse", "huber"])
@pytest.mark.parametrize("extra", [0, 2])
def test_a_mask_of_the_targets_channels_masks_them(extra, loss):
    channels = H  # as many as frames of a forecast: entries that change places would not be noticed
    module = SequenceForecaster(Forecaster(channels, horizon=H, channels=8), replace(RECIPE, loss=loss))
    module._trainer = SimpleNamespace(world_size=1)
    x, edges = torch.randn(3, T + extra, channels), torch.tensor([[0, 1], [1, 2]])
    y, mask = torch.randn(3, H + extra, channels), torch.rand(3, H + extra, channels) < 0.5
    total, count = 0.0, 0
    for shift in range(extra + 1):
        predicted = module(Data(x=x[:, : T + shift], edge_index=edges))
        there = mask[:, shift : shift + H]
        total += LOSSES[loss]((predicted - y[:, shift : shift + H])[there]).sum()
        count += there.sum()
    found, _ = module.step_loss(Data(x=x, y=y, y_mask=mask, edge_index=edges), 0)
    torch.testing.assert_close(found, total / count)


class Once(torch.nn.Module):
    """Says what is no number in its first validation."""

    horizon = H

    def __init__(self):
        super().__init__()
        self.lin, self.asked = torch.nn.Linear(1, 1), 0

    def forward(self, x, *args, **kwargs):
        self.asked += not self.training
        out = self.lin(x[:, -1:].nan_to_num()).expand(-1, H, -1)
        return out * torch.nan if not self.training and self.asked == 1 else out


def test_a_validation_loss_that_is_no_number_is_not_the_best(tmp_path):
    task = make_task(replace(RECIPE, val_clips=7))
    module = SequenceForecaster(Once(), task.recipe, measure=lambda prediction, batch: {"none": prediction[:0]})
    trainer = run_trainer(tmp_path, task.recipe, "cpu", progress=False)
    result = train_and_test(module, task.data(), trainer, None)
    assert module._best["loss"] < 10 and module._best["step"] > 3
    assert set(result.test) == {"loss"}  # nothing counted for the other


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="'val' to hold at least 99, got 7"):
        make_task(replace(RECIPE, val_clips=99)).data()
    far = SequenceForecaster(Forecaster(2, horizon=H, channels=8), replace(RECIPE, loss="distance"))
    batch = Data(x=torch.zeros(2, T, 2), y=torch.zeros(2, H, 2), y_mask=torch.ones(2, H, 2).bool())
    batch.edge_index = torch.empty(2, 0, dtype=torch.long)
    with pytest.raises(ValueError, match=r"'y_mask' of shape \[2, 2\] with loss='distance', got .*\[2, 2, 2\]"):
        far.step_loss(batch, 0)
    with pytest.raises(ValueError, match="'loss' to be one of 'mae', 'mse', 'distance', 'huber', got 'sum'"):
        replace(RECIPE, loss="sum")
    module = SequenceForecaster(LinearAutoregression(1, T, H), RECIPE, measure=lambda prediction, batch: {})
    nobody = Data(x=torch.zeros(2, T, 1), y=torch.zeros(2, H, 1), y_mask=torch.zeros(2, H, dtype=torch.bool))
    nobody.edge_index = torch.empty(2, 0, dtype=torch.long)
    trainer = run_trainer(tmp_path, RECIPE, "cpu", progress=False)
    with pytest.raises(ValueError, match="at least one frame of a node to count, got none"):
        trainer.test(module, torch.utils.data.DataLoader([nobody], batch_size=None), verbose=False)
