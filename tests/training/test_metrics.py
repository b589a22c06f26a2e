"""The table of a run and its progress bar."""

import csv

import pytest
import torch
from cases import case
from lightning.pytorch.loggers import Logger
from small_runs import RECIPE, fit, model, trainer_of

from rstg_pyg.training import ClipClassifier, ClipMetrics, ClipProgress, SyncMNISTData, run_loggers
from rstg_pyg.training.metrics import COLUMNS, keep_rows, read_means, read_rows


class Notes(Logger):
    """A logger that keeps what it gets."""

    name, version = "notes", 0

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append({**metrics, "step": step})

    def log_hyperparams(self, params):
        pass


def fit_with_rows(folder, every, logger=False):
    """Train, noting every step's loss and accuracy."""
    measured = []

    class Note(ClipMetrics):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            measured.append(outputs["measured"])
            super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)

    module, trainer = ClipClassifier(model(), RECIPE), trainer_of(folder, RECIPE)
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, ClipMetrics)]
    trainer.callbacks.insert(0, Note(folder, RECIPE, every))
    trainer.loggers = [logger] if logger else []
    trainer.fit(module, SyncMNISTData(folder, RECIPE, digits="sklearn"))
    return module, torch.stack(measured).double()


def test_rows_hold_means_over_the_steps_since_the_row_before(tmp_path):
    notes = Notes()
    module, measured = fit_with_rows(tmp_path, 2, notes)
    rows = read_rows(tmp_path / "metrics.csv")
    # A chunk has three steps of 4, 4 and 2 clips; it ends with a row.
    assert [row["step"] for row in rows] == [2, 3, 4, 6, 8, 9]
    assert [row["clips"] for row in rows] == [8, 10, 14, 20, 28, 30]
    assert ["val_accuracy" in row and "val_loss" in row for row in rows] == [False, True, False, True, False, True]
    start = 0
    for row in rows:
        loss, accuracy = measured[start : row["step"]].mean(0).tolist()
        start = row["step"]
        assert row["loss"] == pytest.approx(loss, rel=1e-6)
        assert row["accuracy"] == pytest.approx(accuracy, rel=1e-6)
        assert row["lr"] == pytest.approx(RECIPE.lr * module._learning_rate_factor(row["step"] - 1))
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert rows[-1]["val_accuracy"] == pytest.approx(float(module.trainer.callback_metrics["val_accuracy"]))
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert header == "step,clips,lr,loss,accuracy,val_loss,val_accuracy,seconds,clips_per_second"
    assert [row["step"] for row in notes.rows] == [2, 3, 4, 6, 8, 9]
    for row, noted in zip(rows, notes.rows, strict=True):
        assert row == pytest.approx(noted)


def test_a_run_from_the_start_begins_a_table_of_its_own(tmp_path):
    for _ in range(2):
        fit(tmp_path)
        assert [row["step"] for row in read_rows(tmp_path / "metrics.csv")] == list(range(1, RECIPE.num_steps + 1))


def test_rows_of_later_steps_and_broken_ones_go(tmp_path):
    path = tmp_path / "metrics.csv"
    keep_rows(path, 0)
    assert path.read_text().strip() == ",".join(COLUMNS)
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        for step in range(1, 5):
            writer.writerow({"step": step, "loss": 0.1 * step})
        file.write("2,1")
    keep_rows(path, 3)
    rows = read_rows(path)
    assert rows == [{"step": step, "loss": 0.1 * step} for step in (1, 2, 3)]
    before = path.read_bytes()
    keep_rows(path, 3)
    assert path.read_bytes() == before


def test_a_file_of_another_kind_stays_as_it_is(tmp_path):
    for content in [
        b"loss\n1.0\n",
        b"epoch,step,train_loss\n0,49,0.5\n",
        b"a note\n",
        b"\x89PNG\r\n",
        b"\n",
        b'"',
        b"\0" * 5000,
    ]:
        with case(content):
            path = tmp_path / "metrics.csv"
            path.write_bytes(content)
            with pytest.raises(ValueError, match=rf"^expected {path} to be the table of a run \(move it, .*, got: "):
                fit(tmp_path)
            assert path.read_bytes() == content
            assert not (tmp_path / "last.ckpt").exists()


def test_a_damaged_row_is_named(tmp_path):
    for row in ["x,1", "\xb2,1", "1" * 5000 + ",1", ",1", "1", "1,2,3", "1,0.5.5", "\0\0", '"1,2']:
        with case(row):
            path = tmp_path / "metrics.csv"
            path.write_text(f"step,loss\n1,0.5\n\n{row}\n2,0.25\n")
            before = path.read_bytes()
            with pytest.raises(
                ValueError, match=rf"^expected {path}, line 4, to be a row of numbers \(mend it, .*, got: "
            ):
                keep_rows(path, 5)
            assert path.read_bytes() == before


def test_an_empty_table_and_one_broken_off_are_gone_on_with(tmp_path):
    for text in ["", "step,loss\n", "step,loss\n1,0.5\n\n2,"]:
        with case(text):
            path = tmp_path / "metrics.csv"
            path.write_text(text)
            keep_rows(path, 5)
            assert read_rows(path) == [{"step": 1, "loss": 0.5}] * ("0.5" in text)
            assert path.read_text().splitlines()[0] == ",".join(COLUMNS)


def test_rows_need_a_distance():
    with pytest.raises(ValueError, match="'every_n_steps' to be a positive int, got 0"):
        ClipMetrics("runs", RECIPE, 0)


def test_tensorboard_is_silent_where_it_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr("rstg_pyg.training.metrics.find_spec", lambda name: None)
    assert run_loggers(tmp_path) == []


def test_tensorboard_writes_into_the_folder_of_the_run(tmp_path):
    pytest.importorskip("tensorboard")
    (logger,) = run_loggers(tmp_path)
    fit_with_rows(tmp_path, 2, logger)
    (written,) = (tmp_path / "tensorboard").glob("events*")
    assert b"clips_per_second" in written.read_bytes()


def test_means_are_those_of_the_steps_since_the_last_look():
    measured = [torch.tensor([1.0, 0.1], dtype=torch.bfloat16)] * 700
    assert read_means(measured) == pytest.approx([1.0, 0.1], rel=1e-2)
    measured += [torch.tensor([5.0, 6.0]), torch.tensor([7.0, 8.0])]
    assert read_means(measured) == [6.0, 7.0]


def test_the_bar_counts_clips_and_goes_on_where_the_run_does(tmp_path, capsys):
    fit(tmp_path, max_epochs=1)
    capsys.readouterr()
    fit(tmp_path, checkpoint=tmp_path / "last.ckpt")
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "training:" in line]
    assert " 10/30 " in lines[0]
    assert " 30/30 " in lines[-1]
    assert "loss=" in lines[-1] and "accuracy=" in lines[-1] and "clip/s" in lines[-1]


def test_the_bar_reads_once_per_interval(tmp_path, monkeypatch):
    reads = []
    read = read_means
    monkeypatch.setattr(
        "rstg_pyg.training.metrics.read_means", lambda measured: reads.append(len(measured)) or read(measured)
    )

    module, trainer = ClipClassifier(model(), RECIPE), trainer_of(tmp_path, RECIPE)
    trainer.callbacks = [ClipProgress(RECIPE, interval=1e9)]
    trainer.fit(module, SyncMNISTData(tmp_path, RECIPE, digits="sklearn"))
    # At the first step and at the end.
    assert reads == [1, RECIPE.num_steps - 1]
