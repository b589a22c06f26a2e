"""SyncMNIST with a delay: the runs, and the table of them."""

import csv
import json

import pytest
import syncmnist_delay
from tiny_table import Table, pretend

FORMS = ["linear", "time-only, linear"]


def test_every_form_and_delay_has_its_place(tmp_path, monkeypatch):
    accuracy = {("all-temp-stages", 0): 0.75, ("time-only", 0): 0.5, ("time-only", 3): 0.25}
    table = Table(tmp_path, monkeypatch, pretend(lambda run: (1, accuracy[run.row, run.recipe.delay] + run.seed / 8)))
    first = table.start("--forms", *FORMS, "--delays", "0", "--seeds", "2", main=syncmnist_delay.main)
    assert first == [f"{form}/delay0/seed{seed}" for seed in (0, 1) for form in ("linear", "time-only-linear")]
    more = ["--forms", "time-only, linear", "--delays", "0", "3", "--seeds", "2"]
    assert table.start(*more, main=syncmnist_delay.main) == [f"time-only-linear/delay3/seed{seed}" for seed in (0, 1)]
    table.start("--report-only", main=syncmnist_delay.main)
    lines = (table.results / "syncmnist_delay.md").read_text().splitlines()
    assert lines[2:6] == [
        "| form | G = 0 | G = 3 |",
        "|---|---|---|",
        "| linear | 81.2 ± 8.8 (2) |  |",
        "| time-only, linear | 56.2 ± 8.8 (2) | 31.2 ± 8.8 (2) |",
    ]
    with (table.results / "syncmnist_delay.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 6


def test_a_run_is_trained_on_clips_with_its_delay(tmp_path, monkeypatch):
    table = Table(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=r"at least one finished run in .*delay, got none"):
        table.start("--report-only", main=syncmnist_delay.main)
    options = ["--forms", "linear", "--delays", "3", "--seeds", "1"]
    (folder,) = table.start(*options, main=syncmnist_delay.main)
    run = json.loads((tmp_path / "runs" / "delay" / folder / "run.json").read_text())
    assert (run["recipe"]["delay"], run["network"]["rnn"]) == (3, "linear")
