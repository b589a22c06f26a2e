"""Two processes train as one does: gradients, measures, tests, going on, and stopping together."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import shared_runs
import torch
from cases import case
from small_runs import RECIPE

from rstg_pyg.training.metrics import read_rows


def read(path):
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The folder that two processes wrote, and what they said, until one was killed."""
    folder = tmp_path_factory.mktemp("shared")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, shared_runs.__file__, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 137, done.stderr
    return folder, done.stdout, done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    shared_runs.fit_and_test(folder / "mean", RECIPE)
    shared_runs.fit_and_test(folder / "sum", shared_runs.SUM)
    shared_runs.run_in_folder(folder / "run", 1)
    shared_runs.forecast_in_folder(folder / "forecast", 1)
    return folder


def test_gradients_are_those_of_the_whole_batch(shared, alone):
    for loss in ["mean", "sum"]:
        with case(loss):
            one, two = (read(Path(folder, loss, "gradients.pt")) for folder in (alone, shared[0]))
            assert max(value.abs().max() for value in one.values()) > 0.01
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)


def test_measures_are_those_of_the_whole_batch(shared, alone):
    for loss in ["mean", "sum"]:
        with case(loss):
            one, two = (read_rows(Path(folder, loss, "metrics.csv")) for folder in (alone, shared[0]))
            assert [row["clips"] for row in two] == [row["clips"] for row in one]
            assert len(one) == RECIPE.num_steps
            for name in ("loss", "accuracy", "lr"):
                assert [row[name] for row in two] == pytest.approx([row[name] for row in one], rel=1e-3)
            for name in ("val_loss", "val_accuracy"):
                expected = [row[name] for row in one if name in row]
                assert len(expected) == RECIPE.num_chunks
                assert [row[name] for row in two if name in row] == pytest.approx(expected, rel=1e-3)


def test_every_process_gets_the_test_of_all_clips(shared, alone):
    one = read(alone / "mean" / "tested-0.pt")
    for rank in (0, 1):
        two = read(shared[0] / "mean" / f"tested-{rank}.pt")
        assert two["confusion"].sum() == RECIPE.test_clips
        torch.testing.assert_close(two["confusion"], one["confusion"])
        assert two["test_loss"] == pytest.approx(one["test_loss"], rel=1e-3)
        assert two["test_accuracy"] == pytest.approx(one["test_accuracy"])


def test_two_processes_go_on_to_where_unbroken_ones_end(shared):
    whole, broken = (read(shared[0] / name / "last.ckpt") for name in ("whole", "broken"))
    assert broken["global_step"] == RECIPE.num_steps
    torch.testing.assert_close(broken["state_dict"], whole["state_dict"], rtol=0, atol=0)


def test_a_run_in_a_folder_is_that_of_one_process(shared, alone):
    one = read(alone / "run" / "result-0.pt")
    first, second = (read(shared[0] / "run" / f"result-{rank}.pt") for rank in (0, 1))
    assert first["seconds"] == second["seconds"] > 0
    for two in (first, second):
        assert (two["clips"], two["finished"]) == (one["clips"], one["finished"]) == (RECIPE.clips, True)
        torch.testing.assert_close(two["confusion"], one["confusion"])
        for name in ("test", "val"):
            assert two[name]["accuracy"] == pytest.approx(one[name]["accuracy"])


def test_forecasts_count_what_is_there_in_all_processes(shared, alone):
    """Their shares of who is there differ."""
    one, two = (read(folder / "forecast" / "gradients.pt") for folder in (alone, shared[0]))
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)
    one, *both = (
        read(folder / "forecast" / f"result-{n}.pt") for folder, n in ((alone, 0), (shared[0], 0), (shared[0], 1))
    )
    for two in both:
        assert two["val"] == pytest.approx(one["val"], rel=1e-3) and two["test"] == pytest.approx(one["test"], rel=1e-3)


def test_processes_that_do_not_see_the_same_checkpoint_are_refused(shared):
    for rank in (0, 1):
        text = (shared[0] / "run" / f"refused-{rank}.txt").read_text()
        assert "expected all processes to go on from the same checkpoint, got some without one" in text


def test_processes_draw_random_numbers_of_their_own(shared):
    seeds = [seed for rank in (0, 1) for seed in read(shared[0] / f"seeds-{rank}.pt")]
    assert len(seeds) == 2 * RECIPE.num_steps
    assert len(set(seeds)) == 2 * RECIPE.num_chunks


def test_a_loss_of_one_process_that_is_not_finite_stops_all(shared):
    assert "expected a finite loss, got nan at step 4" in shared[1]
    assert read(shared[0] / "spoiled" / "last.ckpt")["global_step"] == 3


def test_all_processes_end_when_one_is_killed(shared):
    assert shared[2].splitlines()[-1] == "process 1 of the run ended by signal 9 (Killed); the same command goes on"
    assert read(shared[0] / "killed" / "last.ckpt")["global_step"] == 3
