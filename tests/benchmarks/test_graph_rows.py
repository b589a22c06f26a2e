"""The tables of forecasts: what is written, going on, and what diverged."""

import csv
import re

import graph_rows
import pytest

from rstg_pyg.training import DivergenceError, traffic

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
    with pytest.raises(ValueError, match=r"belongs to a run with other settings .*clips=3 there, 6 now"):
        start("--clips", "6")


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
