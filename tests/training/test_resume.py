"""A run that was stopped goes on to where an unbroken one ends, bit for bit."""

import dataclasses
from pathlib import Path

import lightning
import pytest
import torch
from small_runs import LONG, RECIPE, KillAt, Record, fit, fit_long, model, run_until_killed

from rstg_pyg.training.metrics import read_rows


class Stop(lightning.Callback):
    """Break a run off in the middle of a chunk."""

    def __init__(self, at):
        self.at = at

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.at:
            raise RuntimeError("stopped")


def assert_same_weights(one, other):
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def losses(folder):
    return Path(folder, "steps.txt").read_text().splitlines()


def table(folder):
    rows = read_rows(Path(folder, "metrics.csv"))
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


@pytest.mark.parametrize(
    ("options", "stop"),
    [
        ({}, 4),
        ({"optimizer": "adamw"}, 8),
        ({"optimizer": "nesterov", "schedule": "constant", "loss": "sum"}, 4),
    ],
    ids=str,
)
def test_a_run_that_was_broken_off_goes_on_to_where_an_unbroken_one_ends(tmp_path, options, stop):
    recipe = dataclasses.replace(RECIPE, **options)
    unbroken = fit(tmp_path / "a", recipe)
    with pytest.raises(RuntimeError, match="stopped"):
        fit(tmp_path / "b", recipe, callbacks=[Stop(stop)])
    assert [path.name for path in (tmp_path / "b").glob("*.ckpt*")] == ["last.ckpt"]
    resumed = fit(tmp_path / "b", recipe, checkpoint=tmp_path / "b" / "last.ckpt")
    assert resumed.global_step == unbroken.global_step == recipe.num_steps == 9
    assert_same_weights(unbroken, resumed)
    assert table(tmp_path / "a") == table(tmp_path / "b")


def test_a_run_that_was_killed_takes_every_later_step_as_an_unbroken_one(tmp_path, one_thread):
    optimizer = "muon-hidden"
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    unbroken = fit_long(whole, optimizer)
    assert len(set(losses(whole))) == LONG.num_steps == 20

    run_until_killed(fit_long, broken, optimizer, callbacks=[KillAt(13)])
    assert losses(broken) == losses(whole)[:13]
    assert len(table(broken)) == 13

    resumed = fit_long(broken, optimizer, checkpoint=broken / "last.ckpt", seed=99)
    assert losses(broken)[13:] == losses(whole)[12:]
    assert_same_weights(unbroken, resumed)
    assert table(broken) == table(whole)


def test_random_numbers_differ_between_chunks_and_between_seeds(tmp_path):
    recipe = dataclasses.replace(RECIPE, optimizer="adamw", chunk=4)

    class Draw(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(46))
            self.drawn = []

        def forward(self, video):
            if self.training:
                self.drawn.append(torch.rand(()).item())
            return self.weight.expand(len(video), 46)

    drawn = []
    for seed in (0, 0, 1):
        net = Draw()
        torch.manual_seed(seed)
        fit(tmp_path / str(len(drawn)), recipe, net=net)
        drawn.append(net.drawn)
    assert drawn[0] == drawn[1]
    assert len({*drawn[0], *drawn[2]}) == 2 * recipe.num_steps


def test_a_finished_run_stays_as_it_is(tmp_path):
    done = fit(tmp_path)
    rows = (tmp_path / "metrics.csv").read_bytes()
    again = fit(tmp_path, checkpoint=tmp_path / "last.ckpt", callbacks=[Record(tmp_path)])
    assert_same_weights(done, again)
    assert not (tmp_path / "steps.txt").exists()
    assert (tmp_path / "metrics.csv").read_bytes() == rows


def test_a_run_that_was_compiled_goes_on_from_one_that_was_not(tmp_path):
    with pytest.raises(RuntimeError, match="stopped"):
        fit(tmp_path, callbacks=[Stop(5)])
    net = model()
    names = list(net.state_dict())
    net.backbone.compile(backend="eager")
    resumed = fit(tmp_path, checkpoint=tmp_path / "last.ckpt", net=net)
    assert list(net.state_dict()) == names
    assert resumed.global_step == RECIPE.num_steps
