"""The SyncMNIST table: which runs it makes, how it goes on, and what it writes."""

import csv
import json
import shutil
import statistics
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import syncmnist_runs
import syncmnist_table
import torch
from PIL import Image
from syncmnist_table import BUDGETS, MARKS, QUESTIONS, put_between, questions
from tiny_table import BUDGET, Table, pretend

from rstg_pyg.models import ROWS
from rstg_pyg.training import ClipClassifier, full_recipe
from rstg_pyg.training.metrics import read_rows

PAGE = f"before\n\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n"
TWO = ("--rows", "mean-lstm", "positional", "--seeds", "0", "1")


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def accuracies(table):
    """What every run of a table came to."""
    rows = [*read(table.results / "syncmnist_cpu.csv"), *read(table.results / "syncmnist_cpu_trials.csv")]
    return {tuple(row[name] for name in ("row", "trial", "seed", "val_accuracy", "test_accuracy")) for row in rows}


def cells(table, row):
    """The cells of a row of the Markdown table."""
    text = (table.results / "syncmnist_cpu.md").read_text()
    (line,) = (line for line in text.splitlines() if f"(`{row}`)" in line)
    return [cell.strip() for cell in line[1:-1].split("|")]


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A table of two rows that was trained without a break."""
    with pytest.MonkeyPatch.context() as patch:
        table = Table(tmp_path_factory.mktemp("whole"), patch)
        table.start(*TWO)
    return table


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table whose runs are not trained: of each, validation accuracy 0.5 and test accuracy 0.4."""
    return Table(tmp_path, monkeypatch, pretend(lambda run: (0.5, 0.4)))


@pytest.fixture
def copied(whole, tmp_path, monkeypatch):
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    return Table(tmp_path, monkeypatch)


# What it trains and writes


def test_a_table_of_trained_runs(whole):
    runs, trials = (read(whole.results / f"syncmnist_cpu{end}.csv") for end in ("", "_trials"))
    rows = ("mean-lstm", "positional")
    assert [(run["row"], run["trial"], run["seed"]) for run in trials] == [
        (row, trial, "0") for row in rows for trial in ("muon", "adamw")
    ]
    assert [(run["row"], run["seed"]) for run in runs] == [(row, seed) for row in rows for seed in "01"]
    assert sorted(whole.trained) == sorted({f"{r['row']}/{r['trial']}/seed{r['seed']}" for r in (*trials, *runs)})
    for run in (*runs, *trials):
        folder = whole.runs / run["row"] / run["trial"] / f"seed{run['seed']}"
        held = json.loads((folder / "result.json").read_text())
        assert all(str(held.get(name, "")) == value for name, value in run.items() if name not in ("trial", *QUESTIONS))
        assert sum(map(sum, held["confusion"])) == held["test_clips"] == 16
        assert held["test_accuracy"] * 16 == pytest.approx(sum(held["confusion"][i][i] for i in range(46)))
        assert (held["digits"], held["precision"], held["clips"]) == ("sklearn", "bf16-mixed", 32)
        last = read_rows(folder / "metrics.csv")[-1]
        assert held["val_accuracy"] == pytest.approx(last["val_accuracy"])
        assert held["seconds"] == pytest.approx(last["seconds"], abs=0.06)
    assert Image.open(whole.results / "syncmnist_cpu.png").size[0] > 500


def test_the_table_has_every_row_with_its_published_figures(whole):
    for name, row in ROWS.items():
        title, three, five, here, seeds, *_ = cells(whole, name)
        assert title == f"{row.title} (`{name}`)"
        assert [three, five] == ["" if row.published[n] is None else str(row.published[n]) for n in (3, 5)]
        assert len(cells(whole, name)) == 11
        if name in ("mean-lstm", "positional"):
            results = [r for r in read(whole.results / "syncmnist_cpu.csv") if r["row"] == name]
            values = [100 * float(r["test_accuracy"]) for r in results]
            assert here == f"**{statistics.mean(values):.1f}** ± {statistics.stdev(values):.1f}"
            assert (seeds, cells(whole, name)[5]) == ("2", "32")
            assert cells(whole, name)[8] == results[0]["trial"]
        else:
            assert (here, seeds) == ("not run", "")
    text = (whole.results / "syncmnist_cpu.md").read_text()
    assert 'budget "cpu"' in text
    assert "Here: a tiny task. Accuracy in % on 16 test clips. " in text
    assert " Digits of sklearn; torch " in text


def test_the_trial_with_the_best_validation_accuracy_counts(tmp_path, monkeypatch):
    def measures(run):
        good = {"mean-lstm": "muon", "positional": "adamw"}.get(run.row)
        # What it does on test clips is no reason to choose it.
        return (0.6, 0.3) if run.recipe.optimizer == good else (0.5, 0.9)

    table = Table(tmp_path, monkeypatch, pretend(measures))
    trained = table.start("--rows", "mean-lstm", "positional", "i3d", "--seeds", "5", "0", "5", "7")
    assert len(trained) == len(set(trained)) == 3 * 2 + 3 * 2
    assert set(trained[6:]) == {
        f"{row}/seed{seed}" for row in ("mean-lstm/muon", "positional/adamw", "i3d/muon") for seed in (0, 7)
    }
    assert [table_row.count("seed0") for table_row in trained[6:]] == [1, 1, 1, 0, 0, 0]
    assert {cells(table, row)[8] for row in ("mean-lstm", "i3d")} == {"muon"}
    assert cells(table, "positional")[3:9] == ["**30.0** ± 0.0", "3", "32", "1.5", "1,234", "adamw"]
    # A trial of which more seeds are finished is still not the best one.
    (table.runs / "positional" / "adamw" / "seed7" / "result.json").unlink()
    for seed in (0, 7):
        run = replace(BUDGET.run("positional", "muon", seed))
        pretend(measures)(run, Namespace(runs=table.runs, digits="sklearn", precision="bf16-mixed"))
    assert table.start("--report-only", "--seeds", "5", "0", "7") == []
    assert cells(table, "positional")[4:9:4] == ["2", "adamw"]
    # Without all trials nobody knows which is.
    (table.runs / "positional" / "muon" / "seed5" / "result.json").unlink()
    table.start("--report-only", "--seeds", "5", "0", "7")
    assert cells(table, "positional")[3] == "not run"


def test_runs_that_diverge_are_named_and_leave_the_table_whole(tmp_path, monkeypatch):
    def measures(run):
        if run.row == "i3d" or (run.row == "positional" and (run.recipe.optimizer == "muon" or run.seed == 1)):
            return None
        return (0.5, 0.4)

    table = Table(tmp_path, monkeypatch, pretend(measures))
    table.start("--rows", "i3d", "positional", "mean-lstm", "--seeds", "0", "1", "2")
    assert cells(table, "i3d")[3:] == ["diverged", "3", "", "", "", "", "", ""]
    assert cells(table, "positional")[3:5] == ["**40.0** ± 0.0", "2 (1 diverged)"]
    assert cells(table, "positional")[8] == "adamw"
    assert cells(table, "mean-lstm")[3:5] == ["**40.0** ± 0.0", "3"]
    named = [row["diverged"] for row in read(table.results / "syncmnist_cpu.csv") if row["row"] == "i3d"]
    assert named == ["a loss that is not finite"] * 3


def test_the_two_parts_of_an_answer():
    confusion = torch.zeros(46, 46, dtype=torch.long)
    confusion[3, 3], confusion[3, 5], confusion[7, 45], confusion[45, 45], confusion[45, 1] = 6, 2, 4, 7, 1
    parts = questions({"confusion": confusion.tolist()})
    assert parts == {"in_step_accuracy": pytest.approx(15 / 20), "digits_accuracy": pytest.approx(6 / 8)}
    # Where no pair was found, nothing can be said of digits.
    confusion[:45] = 0
    assert list(questions({"confusion": confusion.tolist()})) == ["in_step_accuracy"]


def test_rows_differ_in_their_method_alone():
    for budget in BUDGETS:
        runs = [
            BUDGETS[budget].run(row, trial, seed) for trial in BUDGETS[budget].trials for row in ROWS for seed in (0, 1)
        ]
        assert len({run.folder for run in runs}) == len(runs)
        for trial in BUDGETS[budget].trials:
            alike = [run for run in runs if f"/{trial}/" in run.folder]
            assert len({str(replace(run, folder="", row="", seed=0)) for run in alike}) == 1
        assert all(syncmnist_runs.Run.from_json(run.to_json()) == run for run in runs)
    gpu = BUDGETS["gpu"]
    assert gpu.recipe.clips == 1_625_000
    assert gpu.run("positional", "muon-hidden", 0).recipe == full_recipe(5).with_clips(1_625_000)


def test_the_picture_shows_validation_accuracy_over_clips(copied, monkeypatch):
    drawn = {}
    draw = syncmnist_table.draw_learning_curves

    def note(curves, title, published):
        drawn.update(curves=curves, title=title, published=published)
        return draw(curves, title, published=published)

    monkeypatch.setattr(syncmnist_table, "draw_learning_curves", note)
    copied.start("--report-only", *TWO)
    assert list(drawn["curves"]) == [ROWS["mean-lstm"].title, ROWS["positional"].title]
    for run in read(copied.results / "syncmnist_cpu.csv"):
        rows = read_rows(copied.runs / run["row"] / run["trial"] / f"seed{run['seed']}" / "metrics.csv")
        assert drawn["curves"][ROWS[run["row"]].title][int(run["seed"])] == (
            [16, 32],
            [row["val_accuracy"] for row in rows if "val_accuracy" in row],
        )
    # The paper has no figure for two digits.
    assert drawn["title"] == "Validation accuracy, a tiny task"
    assert drawn["published"] == {}


def test_the_picture_of_a_published_task_shows_what_is_published(table, monkeypatch):
    five = replace(BUDGET, recipe=replace(BUDGET.recipe, phases=(replace(BUDGET.recipe.task, num_digits=5),)))
    monkeypatch.setitem(BUDGETS, "cpu", five)
    drawn = []
    draw = syncmnist_table.draw_learning_curves
    monkeypatch.setattr(syncmnist_table, "draw_learning_curves", lambda *a, **k: drawn.append(k) or draw(*a, **k))
    table.start("--rows", "i3d", "positional", "--seeds", "0")
    (options,) = drawn
    assert options["published"][ROWS["positional"].title] == pytest.approx(0.972)
    assert ROWS["space-only"].title not in options["published"]


def test_the_table_goes_between_the_marks_of_a_page(table):
    path = table.folder / "page.md"
    path.write_text(PAGE)
    table.start("--rows", "i3d", "--seeds", "0", "--readme", str(path))
    # One seed has no spread.
    assert cells(table, "i3d")[3:5] == ["**40.0**", "1"]
    text = (table.results / "syncmnist_cpu.md").read_text().split("\n\n", 1)[1]
    assert path.read_text() == f"before\n\n{MARKS[0]}\n{text}{MARKS[1]}\nafter\n"
    table.start("--report-only", "--rows", "i3d", "--seeds", "0", "--readme", str(path))
    assert path.read_text() == f"before\n\n{MARKS[0]}\n{text}{MARKS[1]}\nafter\n"


def test_a_page_without_the_marks_is_refused_before_anything_is_trained(table):
    for text in ["", MARKS[0], f"{MARKS[1]} {MARKS[0]}", PAGE + MARKS[0]]:
        with pytest.raises(ValueError, match="expected the page to hold <!-- syncmnist table --> and then "):
            put_between(text, "table")
        (table.folder / "page.md").write_text(text)
        with pytest.raises(ValueError, match="expected the page to hold"):
            table.start("--readme", str(table.folder / "page.md"))
        assert table.trained == []


def test_the_page_of_results_holds_the_table_of_the_results():
    root = Path(__file__).parents[2]
    page, table = ((root / path).read_text() for path in ("docs/results.md", "results/syncmnist_cpu.md"))
    assert put_between(page, table.split("\n\n", 1)[1]) == page


# Going on


def test_a_stopped_table_in_another_order_ends_as_an_unbroken_one(tmp_path, monkeypatch, whole):
    table = Table(tmp_path, monkeypatch)
    options = ("--rows", "positional", "mean-lstm", "--seeds", "0", "1")
    step, steps = ClipClassifier.training_step, []

    def stop(module, batch, batch_idx):
        steps.append(module.global_step)
        # In the second chunk of the second run.
        if len(steps) == 4 + 3:
            raise RuntimeError("the machine was switched off")
        return step(module, batch, batch_idx)

    monkeypatch.setattr(ClipClassifier, "training_step", stop)
    with pytest.raises(RuntimeError, match=r"^mean-lstm/muon/seed0: the machine was switched off$"):
        table.start(*options)
    assert table.trained == [f"{row}/{trial}/seed0" for trial in BUDGET.trials for row in ("positional", "mean-lstm")]
    assert not table.results.exists()
    assert (table.runs / "mean-lstm" / "muon" / "seed0" / "last.ckpt").exists()

    steps.clear()
    monkeypatch.setattr(ClipClassifier, "training_step", lambda *a: steps.append(a[0].global_step) or step(*a))
    again = table.start(*options)
    assert again[0] == "mean-lstm/muon/seed0"
    assert len(again) == 1 + 2
    assert steps == [2, 3, *2 * [0, 1, 2, 3]]
    assert accuracies(table) == accuracies(whole)
    assert table.start(*options) == []


def test_report_only_writes_what_is_finished(copied, whole):
    shutil.rmtree(copied.results)
    shutil.rmtree(copied.runs / "mean-lstm")
    assert copied.start("--report-only", *TWO) == []
    assert accuracies(copied) == {run for run in accuracies(whole) if run[0] == "positional"}
    assert cells(copied, "positional") == cells(whole, "positional")
    assert cells(copied, "mean-lstm")[3] == "not run"


def test_runs_of_other_settings_are_not_reported(copied):
    for options in [["--clips", "48"], ["--precision", "32-true"], ["--digits", "mnist"]]:
        copied.start("--report-only", *TWO, *options)
        assert {cells(copied, row)[3] for row in ROWS} == {"not run"}


def test_a_report_of_nothing(table):
    table.start("--report-only")
    assert {cells(table, row)[3] for row in ROWS} == {"not run"}
    assert "a tiny task: not run." in (table.results / "syncmnist_cpu.md").read_text()
    assert read(table.results / "syncmnist_cpu.csv") == []
    assert not (table.results / "syncmnist_cpu.png").exists()


def test_trials_of_another_budget_are_refused(table, capsys):
    with pytest.raises(SystemExit, match="2"):
        syncmnist_table.main(["--budget", "gpu", "--trials", "muon"])
    assert "--trials muon: expected one of muon-hidden with --budget gpu" in capsys.readouterr().err
    assert table.trained == []
