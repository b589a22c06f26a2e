"""The tables of forecasts: what is written, going on, and what diverged."""

import csv
import importlib
import os
import re
import shutil
from pathlib import Path

import graph_rows
import pytest

from rstg_pyg.training import DivergenceError, traffic

DATA = os.environ.get("RSTG_PYG_DATA")
RESULTS = Path(__file__).parents[2] / "results"
ROWS = ["gru", "autoregression"]


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Runs the command on simulated roads; returns the table's lines by the name of the row."""
    make = traffic.tasks
    monkeypatch.setattr(traffic, "tasks", lambda root: make(root, speeds="simulated"))

    def run(*argv):
        folders = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results"), "--clips", "3"]
        graph_rows.main(["traffic", "--rows", *ROWS, "--seeds", "0", "1", *folders, *argv])
        text = (tmp_path / "results" / "traffic.md").read_text()
        assert "a simulated road network" in text and "simulated" in text.rpartition("Data:")[2]
        return {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}

    return run


def test_a_table_has_naive_rows_and_trained_ones_and_goes_on(start, tmp_path, monkeypatch):
    lines = start()
    assert [name for name in lines if name.startswith("last")] == ["last value"]
    (gru,) = (line for name, line in lines.items() if "(`gru`)" in name)
    assert gru.count("±") == 6 and "| 2 |" in gru
    with (tmp_path / "results" / "traffic.csv").open(newline="") as file:
        runs = list(csv.DictReader(file))
    assert [(run["row"], run["seed"]) for run in runs] == [(row, seed) for seed in "01" for row in ROWS]
    mean = sum(float(run["test_mae_60"]) for run in runs if run["row"] == "gru") / 2
    assert re.search(rf"\| {mean:.3f} ± ", gru)

    def nothing(*args):
        raise AssertionError("trained again")

    monkeypatch.setattr(graph_rows, "train_and_test", nothing)
    assert start() == lines
    # Another machine has no folder of runs, but the CSV.
    shutil.rmtree(tmp_path / "runs")
    assert start() == lines
    with pytest.raises(ValueError, match=r"--rows to be one of .*, got 'grue' .did you mean 'gru'"):
        start("--rows", "grue")
    before = (tmp_path / "results" / "traffic.csv").read_bytes()
    with pytest.raises(ValueError, match=r"traffic.csv to have these settings, which traffic, gru with seed 0 has not"):
        start("--clips", "6")
    assert (tmp_path / "results" / "traffic.csv").read_bytes() == before


@pytest.mark.skipif(not DATA, reason="RSTG_PYG_DATA does not name a folder with traffic/ and pedestrians/")
@pytest.mark.parametrize("data", ["traffic", "pedestrians"])
def test_the_results_that_are_kept_are_of_the_tasks(data, tmp_path):
    tasks = [make() for make in importlib.import_module(f"rstg_pyg.training.{data}").tasks(tmp_path).values()]
    kept = graph_rows.read_kept(RESULTS / f"{data}.csv", tasks)
    assert {held["task"] for held in kept} == {task.name for task in tasks}


def test_a_run_that_diverges_is_a_result(start, monkeypatch):
    train = graph_rows.train_and_test

    def diverge(module, *rest):
        if module.config["row"] == "gru":
            raise DivergenceError("expected a finite loss, got nan")
        return train(module, *rest)

    monkeypatch.setattr(graph_rows, "train_and_test", diverge)
    lines = start("--seeds", "0")
    (gru,) = (line for name, line in lines.items() if "(`gru`)" in name)
    assert gru.count("diverged") == 7
