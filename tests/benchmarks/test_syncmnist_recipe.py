"""What each choice of the recipe is worth: the runs, and the table of them."""

import csv
import json
from dataclasses import asdict, replace

import pytest
import syncmnist_recipe
from syncmnist_recipe import BASE, CHANGES, make_run
from syncmnist_table import BUDGETS
from tiny_table import RECIPE, Table, pretend

from rstg_pyg.training.metrics import read_rows

NAMES = [BASE, "AdamW, 0.001", "no curriculum"]


def test_every_change_changes_what_it_says_alone():
    base = make_run(BASE, None)
    budget = BUDGETS["cpu"]
    assert base == budget.run("positional", "muon", 0)
    runs = {change: make_run(change, None) for change in CHANGES}
    assert len({run.folder for run in runs.values()}) == len(CHANGES)
    for change, (network, options) in CHANGES.items():
        run, network = runs[change], dict(network)
        expected = (network.pop("row", base.row), base.seed, base.recipe.clips)
        assert (run.row, run.seed, run.recipe.clips) == expected
        assert run.network == replace(base.network, **network)
        differs = {name for name, value in asdict(run.recipe).items() if value != asdict(base.recipe)[name]}
        assert differs == set(options)
        assert (run == base) == (change == BASE)
    (phase,) = runs["no curriculum"].recipe.phases
    assert phase == replace(base.recipe.task, clips=base.recipe.clips)
    assert runs["Muon for all hidden layers, 0.003"] == budget.run("positional", "muon-hidden", 0)


def test_with_other_clips_every_run_has_them():
    for change in CHANGES:
        run = make_run(change, 1600)
        assert run.recipe.clips == 1600
        assert run.folder.startswith("recipe/")


@pytest.fixture
def table(tmp_path, monkeypatch):
    accuracy = {"muon": 0.5, "adamw": 0.375}
    measures = pretend(lambda run: (0.9, accuracy[run.recipe.optimizer] + 0.25 * (len(run.recipe.phases) == 1)))
    return Table(tmp_path, monkeypatch, measures)


def test_runs_of_the_table_are_taken_from_there(table):
    assert "positional/muon/seed0" in table.start("--rows", "positional", "--seeds", "0")
    trained = table.start("--changes", *NAMES, main=syncmnist_recipe.main)
    assert trained == ["recipe/adamw-0-001", "recipe/no-curriculum"]
    assert table.start("--changes", *NAMES, main=syncmnist_recipe.main) == []


def test_a_change_that_diverges_is_named(tmp_path, monkeypatch):
    for base in (True, False):
        measures = pretend(lambda run, base=base: (0.9, 0.5) if (run.recipe.optimizer == "muon") == base else None)
        table = Table(tmp_path / str(base), monkeypatch, measures)
        table.start("--changes", *NAMES[:2], main=syncmnist_recipe.main)
        lines = (table.results / "syncmnist_recipe.md").read_text().splitlines()
        ended, ending = NAMES[:2] if base else reversed(NAMES[:2])
        assert f"| {ended} | 50.0 |  | 1.5 |" in lines
        assert f"| {ending} | diverged | | |" in lines


def test_the_table_has_the_difference_of_every_change(table):
    table.start("--changes", *NAMES, main=syncmnist_recipe.main)
    lines = (table.results / "syncmnist_recipe.md").read_text().splitlines()
    assert lines[4:7] == [
        f"| {BASE} | 50.0 |  | 1.5 |",
        "| AdamW, 0.001 | 37.5 | -12.5 | 1.5 |",
        "| no curriculum | 75.0 | +25.0 | 1.5 |",
    ]
    assert lines[8].startswith("`positional`, a tiny task, 32 clips, seed 0, accuracy (%) on 16 test clips; digits of")
    with (table.results / "syncmnist_recipe.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["test_accuracy"]) for row in rows] == list(
        zip(NAMES, ["0.5", "0.375", "0.75"], strict=True)
    )


def test_report_only_writes_what_is_finished(table):
    with pytest.raises(ValueError, match=r"at least one finished run in .*cpu, got none"):
        table.start("--report-only", main=syncmnist_recipe.main)
    table.start("--changes", NAMES[2], main=syncmnist_recipe.main)
    assert table.start("--report-only", main=syncmnist_recipe.main) == []
    lines = (table.results / "syncmnist_recipe.md").read_text().splitlines()
    assert lines[4:6] == ["| no curriculum | 75.0 |  | 1.5 |", ""]


def test_changes_are_trained(tmp_path, monkeypatch):
    table = Table(tmp_path, monkeypatch)
    changes = ["no norm, no residual (the text's plain stages)", "clips reversed in time at random"]
    table.start("--changes", *changes, main=syncmnist_recipe.main)
    plain, backwards = (table.runs / folder for folder in table.trained)
    assert json.loads((plain / "run.json").read_text())["network"]["residual"] is False
    assert json.loads((backwards / "run.json").read_text())["recipe"]["augment"] == "reverse"
    for folder in (plain, backwards):
        assert read_rows(folder / "metrics.csv")[-1]["clips"] == RECIPE.clips
        assert (folder / "weights.pt").exists()
