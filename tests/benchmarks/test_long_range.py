"""How far a symbol is carried: the command from nothing to its tables, once and again."""

import csv
import json
from dataclasses import replace

import long_range
import pytest

FORMS = ["linear", "linear, virtual node"]


@pytest.fixture
def start(tmp_path, monkeypatch, one_thread):
    monkeypatch.setattr(long_range, "GAPS", (0, 3, 40))
    monkeypatch.setattr(long_range, "TRIAL_GAPS", (3, 5))
    monkeypatch.setattr(long_range, "num_test_clips", lambda gap: 8)
    trained, train = [], long_range.train
    monkeypatch.setattr(long_range, "train", lambda run: trained.append(run) or train(run))

    def start(*options):
        trained.clear()
        folders = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
        long_range.main(["--gaps", "3", "--seeds", "2", "--forms", *FORMS, *folders, *options])
        return list(trained)

    return start


def test_every_run_is_trained_once_and_has_its_place_in_the_tables(start, tmp_path):
    trained = start("--steps", "2")
    assert len(set(trained)) == len(trained) == 3 * 2 * 2 + 2 * (1 + 2)
    assert start("--steps", "2") == []
    with (tmp_path / "results/long_range.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1 + 2 * 3 * 3
    assert {row["seeds"] for row in rows} == {"2"}
    assert all(0 <= float(row["mean"]) <= 100 for row in rows)
    held = [json.loads(path.read_text()) for path in (tmp_path / "runs/mixed").glob("linear-0.*.json")]
    (row,) = [
        row for row in rows if (row["form"], row["part"], row["distance"], row["gap"]) == ("linear", "mixed", "6", "40")
    ]
    assert float(row["mean"]) == pytest.approx(50 * sum(run["accuracy"]["6/40"] for run in held), abs=0.06)
    text = (tmp_path / "results/long_range.md").read_text()
    assert text.count("| linear, virtual node |") == 3
    assert (tmp_path / "results/long_range.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="holds a run of other settings: choose another --runs, or remove it"):
        start("--steps", "3")


def test_without_a_finished_run_there_is_nothing_to_report(start):
    with pytest.raises(ValueError, match=r"expected at least one finished run in .*, got none"):
        start("--report-only")


def test_the_linear_recurrence_learns_what_it_is_asked(one_thread):
    """A short gap, learned in seconds: else the long ones would say nothing."""
    held = long_range.train(replace(long_range.single("linear", 3, 1e-2, 0), steps=400))
    assert held["accuracy"]["1/3"] > 0.95
