"""The SyncMNIST tables: which runs they make, how they go on, and what they write."""

import json
import shutil
import statistics
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import syncmnist_table
from PIL import Image
from syncmnist_table import MARKS, TABLES, put_between
from tiny_table import CHANGES, Place, pretend
from tiny_table import ROWS as TINY

from rstg_pyg.models import ROWS
from rstg_pyg.training import ClipClassifier
from rstg_pyg.training.metrics import read_rows

PAGE = f"before\n\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n"
TWO = ("--only", "mean-lstm", "positional", "--seeds", "0", "1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A table of two rows that was trained without a break."""
    with pytest.MonkeyPatch.context() as patch:
        place = Place(tmp_path_factory.mktemp("whole"), patch)
        place.start("rows", *TWO)
    return place


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Tables whose runs are not trained: each has a test accuracy of 0.4."""
    return Place(tmp_path, monkeypatch, pretend(lambda run: 0.4))


# What they train and write


def test_a_table_of_trained_runs(whole):
    runs = whole.read("rows")
    assert [(run["name"], run["seed"]) for run in runs] == [
        (row, s) for row in ("mean-lstm", "positional") for s in "01"
    ]
    assert whole.trained == [(row, seed) for seed in (0, 1) for row in ("mean-lstm", "positional")]
    for run in runs:
        made = TINY.run(run["name"], int(run["seed"]), "sklearn")
        held = json.loads((whole.runs / made.folder / "result.json").read_text())
        assert {name: str(value) for name, value in held.items()} == {name: text for name, text in run.items() if text}
        assert (run["digits"], run["precision"], run["clips"]) == ("sklearn", "bf16-mixed", "32")
        last = read_rows(whole.runs / made.folder / "metrics.csv")[-1]
        assert run["curve"].split()[-1] == f"32:{last['val_accuracy']:.4f}"
    assert Image.open(whole.results / "syncmnist_rows.png").size[0] > 500


def test_the_table_has_every_row_with_its_published_figures(whole):
    for name, row in ROWS.items():
        published, here, seeds, parameters, minutes = whole.line("rows", name)
        assert published == str(row.published[3] or "")
        if name in ("mean-lstm", "positional"):
            values = [100 * float(run["test_accuracy"]) for run in whole.read("rows") if run["name"] == name]
            assert here == f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
            assert (seeds, minutes) == ("2", "0")
        else:
            assert (here, seeds, parameters, minutes) == ("not run", "", "", "")
    text = (whole.results / "syncmnist_rows.md").read_text()
    assert (
        "a tiny task. Accuracy in % on 16 test clips. Every run saw 32 clips. Digits of sklearn; bf16-mixed; " in text
    )


def test_a_grid_has_a_line_per_form_and_a_column_per_value(tmp_path, monkeypatch):
    place = Place(tmp_path, monkeypatch, pretend(lambda run: (90 - run.recipe.delay - run.seed) / 100))
    place.start("delay", "--only", *(f"{form}, G = {delay}" for form in ("GRU", "GRU, chrono") for delay in (0, 30)))
    for form in ("GRU", "GRU, chrono"):
        assert place.line("delay", form) == ["89.0 ± 1.0", "not run", "not run", "59.0 ± 1.0", "3", "1,234"]
    assert place.line("delay", "linear") == ["not run"] * 4 + [""] * 2
    assert Image.open(place.results / "syncmnist_delay.png").size[0] > 500


def test_runs_that_diverge_are_named_and_leave_the_table_whole(tmp_path, monkeypatch):
    place = Place(tmp_path, monkeypatch, pretend(lambda run: None if run.row == "i3d" or run.seed == 1 else 0.4))
    place.start("rows", "--only", "i3d", "positional")
    assert place.line("rows", "i3d")[1:] == ["diverged", "3", "", ""]
    assert place.line("rows", "positional")[1:3] == ["40.0 ± 0.0", "2 (1 diverged)"]
    assert [run["diverged"] for run in place.read("rows")[:3]] == ["a loss that is not finite"] * 3


def test_lines_differ_in_what_they_say_alone():
    for table in (*TABLES.values(), CHANGES):
        for name, variant in table.variants.items():
            run = table.run(name, 1)
            assert run.backbone == table.backbone
            network = {key: value for key, value in asdict(run.network).items() if value != asdict(table.network)[key]}
            recipe = {key for key, value in asdict(run.recipe).items() if value != asdict(table.recipe)[key]}
            assert (run.row, run.seed, run.recipe.clips) == (variant.row, 1, table.recipe.clips)
            assert network.items() <= dict(variant.network).items()
            assert recipe <= set(variant.recipe)
        settings = {table.run(name, seed).settings for name in table.variants for seed in (0, 1)}
        assert len(settings) == 2 * len(table.variants), "two lines that are one"


def test_a_line_is_trained_as_it_says(tmp_path, monkeypatch):
    place = Place(tmp_path, monkeypatch)
    place.start("recipe", "--only", "GRU, G = 3", "--seeds", "5", "--clips", "16")
    (path,) = place.runs.glob("gru-g-3-seed5-*/run.json")
    run = json.loads(path.read_text())
    assert (run["row"], run["network"]["rnn"], run["recipe"]["delay"]) == ("all-temp-stages", "gru", 3)
    assert read_rows(path.with_name("metrics.csv"))[-1]["clips"] == 16
    # One seed has no spread, and lines of no published table have no figures of it.
    accuracy, seeds, *_ = place.line("recipe", "GRU, G = 3")
    assert (seeds, "±" in accuracy) == ("1", False)


def test_the_picture_shows_validation_accuracy_over_clips(place, monkeypatch):
    drawn = []
    draw = syncmnist_table.draw_learning_curves
    monkeypatch.setattr(syncmnist_table, "draw_learning_curves", lambda *a, **k: drawn.append((a, k)) or draw(*a, **k))
    place.start("rows", "--only", "i3d", "time-only", "--seeds", "0", "1")
    place.start("recipe", "--only", "AdamW, 0.001", "--seeds", "0")
    ((rows, title), options), ((changes, _), others) = drawn
    curve = ([16, 32], [0.25, 0.5])
    assert rows == {ROWS["i3d"].title: [curve] * 2, ROWS["time-only"].title: [curve] * 2}
    assert (title, changes) == ("Validation accuracy, a tiny task", {"AdamW, 0.001": [curve]})
    # The paper has no figure of I3D on three digits.
    assert options["published"] == {ROWS["time-only"].title: pytest.approx(0.897)}
    assert others["published"] == {}


def test_the_table_goes_between_the_marks_of_a_page(place):
    path = place.folder / "page.md"
    path.write_text(PAGE)
    for option in ((), ("--report-only",)):
        place.start("rows", "--only", "i3d", "--seeds", "0", "--page", str(path), *option)
        text = (place.results / "syncmnist_rows.md").read_text().split("\n\n", 1)[1]
        assert path.read_text() == f"before\n\n{MARKS[0]}\n{text}{MARKS[1]}\nafter\n"
    for text in ["", MARKS[0], f"{MARKS[1]} {MARKS[0]}", PAGE + MARKS[0]]:
        path.write_text(text)
        with pytest.raises(ValueError, match="expected the page to hold <!-- syncmnist table --> and then "):
            place.start("rows", "--page", str(path))
        assert place.trained == []


@pytest.mark.parametrize(("page", "name"), [("results", "rows"), ("long_range", "delay")])
def test_a_page_holds_the_table_of_the_results(page, name):
    root = Path(__file__).parents[2]
    page, table = ((root / path).read_text() for path in (f"docs/{page}.md", f"results/syncmnist_{name}.md"))
    assert put_between(page, table.split("\n\n", 1)[1]) == page


@pytest.mark.parametrize("name", TABLES)
def test_the_results_that_are_kept_are_of_the_tables(name):
    path = Path(__file__).parents[2] / "results" / f"syncmnist_{name}.csv"
    assert all(
        run["test_clips"] == TABLES[name].recipe.test_clips for run in syncmnist_table.read_kept(path, TABLES[name])
    )


# Going on


def test_what_stands_in_the_table_is_not_trained_again(place):
    """Another machine has no folder of runs, but the CSV."""
    assert place.start("rows", *TWO) == [(row, seed) for seed in (0, 1) for row in ("mean-lstm", "positional")]
    before = place.read("rows")
    shutil.rmtree(place.runs)
    more = ("--only", "i3d", "positional", "--seeds", "1", "2", "--precision", "32-true")
    assert place.start("rows", *more) == [("i3d", 1), ("i3d", 2), ("positional", 2)]
    after = place.read("rows")
    assert [run for run in after if run in before] == before
    assert [(run["name"], run["seed"]) for run in after] == [
        *[("mean-lstm", "0"), ("mean-lstm", "1"), ("i3d", "1"), ("i3d", "2")],
        *[("positional", "0"), ("positional", "1"), ("positional", "2")],
    ]
    assert "; 32-true and bf16-mixed; " in (place.results / "syncmnist_rows.md").read_text()


@pytest.mark.parametrize("other", [["--clips", "48"], "digits", "recipe"])
def test_results_of_other_settings_are_neither_taken_nor_lost(place, monkeypatch, other):
    place.start("rows", *TWO)
    path = place.results / "syncmnist_rows.csv"
    before = path.read_bytes()
    if other == "digits":
        path.write_bytes(before.replace(b"sklearn", b"mnist"))
        before = path.read_bytes()
    if other == "recipe":
        changed = replace(TINY, recipe=replace(TINY.recipe, muon_lr=0.5))
        monkeypatch.setitem(TABLES, "rows", changed)
    with pytest.raises(ValueError, match=r"syncmnist_rows.csv to have this table's settings, which 'mean-lstm' with"):
        place.start("rows", "--only", "i3d", *(other if isinstance(other, list) else ()))
    assert (path.read_bytes(), place.trained) == (before, [])


def test_a_damaged_table_is_named_and_stays(place):
    place.start("rows", "--only", "i3d", "--seeds", "0")
    path = place.results / "syncmnist_rows.csv"
    whole = path.read_text()
    for damaged in (whole.replace("0.4", "0.4x"), whole[: whole.index("sklearn")], whole.replace(",settings", ",set")):
        path.write_text(damaged)
        with pytest.raises(ValueError, match=r"expected .*syncmnist_rows.csv to be a table of runs, got: "):
            place.start("rows", "--only", "i3d")
        assert path.read_text() == damaged


def test_a_stopped_table_ends_as_an_unbroken_one(tmp_path, monkeypatch, whole):
    place = Place(tmp_path, monkeypatch)
    step, steps = ClipClassifier.training_step, []

    def stop(module, batch, batch_idx):
        steps.append(module.global_step)
        # In the second chunk of the second run.
        if len(steps) == 4 + 3:
            raise RuntimeError("the machine was switched off")
        return step(module, batch, batch_idx)

    monkeypatch.setattr(ClipClassifier, "training_step", stop)
    with pytest.raises(RuntimeError, match=r"positional-seed0-\w+: the machine was switched off$"):
        place.start("rows", *TWO)
    assert not place.results.exists()
    steps.clear()
    monkeypatch.setattr(ClipClassifier, "training_step", lambda *a: steps.append(a[0].global_step) or step(*a))
    assert place.start("rows", *TWO) == [("positional", 0)]
    assert steps == [2, 3]
    alike = ("name", "seed", "test_accuracy", "val_accuracy", "curve", "settings")
    assert [[run[key] for key in alike] for run in place.read("rows")] == [
        [run[key] for key in alike] for run in whole.read("rows")
    ]
    assert place.start("rows", *TWO) == []


def test_report_only_writes_what_is_finished(place):
    place.start("rows", "--report-only")
    assert {place.line("rows", row)[1] for row in ROWS} == {"not run"}
    assert [path.name for path in place.results.iterdir()] == ["syncmnist_rows.md"]
    place.start("rows", "--only", "i3d", "--seeds", "0")
    assert place.start("rows", "--report-only") == []
    assert [run["name"] for run in place.read("rows")] == ["i3d"]


def test_a_line_that_is_not_of_the_table_is_refused(place):
    with pytest.raises(ValueError, match=r"expected --only to be one of .* 'positonal' \(did you mean 'positional'"):
        place.start("rows", "--only", "positonal")
    assert place.trained == []
