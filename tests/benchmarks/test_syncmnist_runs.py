"""Runs of SyncMNIST networks: which are taken as they are, gone on with or refused, and the queue of them."""

import json
import re
import runpy
import sys
import threading
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import syncmnist_runs
import torch
from syncmnist_runs import Run, read_result, run_all
from tiny_table import BUDGET, pretend, train_here

from rstg_pyg.training import CheckpointError, DivergenceError, Recipe

RUN = BUDGET.run("positional", "muon", 0)
OTHER = replace(RUN, recipe=RUN.recipe.with_clips(48))


@pytest.fixture
def args(tmp_path):
    """The options of the machine."""
    places = {"runs": tmp_path / "runs", "root": tmp_path / "data", "mnist_dir": None}
    return Namespace(**places, digits="sklearn", device="cpu", precision="bf16-mixed", jobs=1, threads=1, compile=False)


@pytest.fixture
def trained(monkeypatch):
    """The folders of the runs that were trained, without training: validation accuracy 0.5, test accuracy 0.4."""
    folders = []
    train = pretend(lambda run: (0.5, 0.4))
    monkeypatch.setattr(
        syncmnist_runs, "train_in_process", lambda run, args: folders.append(run.folder) or train(run, args)
    )
    return folders


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed(args, **options):
    return Namespace(**{**vars(args), **options})


def result_of(args):
    return args.runs / RUN.folder / "result.json"


# Which results are taken


def test_a_finished_run_is_read_and_not_trained(args, trained):
    (first,) = run_all([RUN], args, "title")
    assert run_all([RUN], args, "title") == [first] == [read_result(RUN, args)]
    assert trained == [RUN.folder]
    assert (first["row"], first["test_accuracy"]) == ("positional", 0.4)
    # Results come in the order of the runs.
    trained.clear()
    runs = [replace(RUN, folder=str(seed), seed=seed) for seed in (3, 1, 2)]
    run_all(runs[1:2], args, "title")
    assert [held["seed"] for held in run_all(runs, args, "title")] == [3, 1, 2]
    assert trained == ["1", "3", "2"]


SETTINGS = [
    (OTHER, {}, r"phases=\(.* there, \(.* now"),
    (replace(RUN, seed=1), {}, "seed=0 there, 1 now"),
    (replace(RUN, network=replace(RUN.network, channels=5)), {}, r"network\.channels=4 there, 5 now"),
    (RUN, {"digits": "mnist"}, "digits='sklearn' there, 'mnist' now"),
    (RUN, {"precision": "32-true"}, "precision='bf16-mixed' there, '32-true' now"),
]


def test_a_result_of_other_settings_is_neither_taken_nor_lost(args, trained):
    run_all([RUN], args, "title")
    before, folder = content(args.runs), re.escape(str(args.runs / RUN.folder))
    for run, options, difference in SETTINGS:
        other = changed(args, **options)
        assert read_result(run, other) is None
        message = rf"^{folder} belongs to a run with other settings \({difference}\); choose another --runs, or remove"
        with pytest.raises(CheckpointError, match=message):
            run_all([replace(RUN, folder="new"), run], other, "title")
        assert content(args.runs) == before
    assert trained == [RUN.folder]


def test_a_checkpoint_of_other_settings_is_not_lost(args, trained):
    run_all([RUN], args, "title")
    result_of(args).replace(args.runs / RUN.folder / "last.ckpt")
    before = content(args.runs)
    with pytest.raises(CheckpointError, match="belongs to a run with other settings"):
        run_all([OTHER], args, "title")
    assert content(args.runs) == before
    (args.runs / RUN.folder / "last.ckpt").unlink()
    assert run_all([OTHER], args, "title")[0]["clips"] == 48


def test_a_begun_run_of_another_precision_is_not_gone_on_with(args):
    assert train_here(RUN, args) is None
    checkpoint = (args.runs / RUN.folder / "last.ckpt").read_bytes()
    result_of(args).unlink()
    failure = train_here(RUN, changed(args, precision="32-true"))
    assert "last.ckpt belongs to a run with other settings (precision='bf16-mixed' there, '32-true' now)" in failure
    assert (args.runs / RUN.folder / "last.ckpt").read_bytes() == checkpoint
    assert read_result(RUN, args) is None


def test_any_digits_and_results_that_do_not_say_their_precision(args, trained):
    run_all([RUN], args, "title")
    assert read_result(RUN, changed(args, digits="auto"))["digits"] == "sklearn"
    held = json.loads(result_of(args).read_text())
    del held["precision"]
    result_of(args).write_text(json.dumps(held))
    assert read_result(RUN, changed(args, precision="32-true")) == held


def test_a_description_says_everything_and_a_damaged_one_is_named(args, trained):
    assert Run.from_json(RUN.to_json()) == RUN
    assert Run.from_json(OTHER.to_json()) == OTHER != RUN
    held = json.loads(RUN.to_json())
    del held["recipe"]["augment"]
    assert Run.from_json(json.dumps(held)).recipe.augment == Recipe.augment
    run_all([RUN], args, "title")
    path = args.runs / RUN.folder / "run.json"
    text = path.read_text()
    for damaged in (text[:50], text.replace('"seed"', '"speed"'), "{}", "3", text.replace('"muon"', '"none"')):
        path.write_text(damaged)
        with pytest.raises(ValueError, match=f"^expected {re.escape(str(path))} to describe a run, got: "):
            read_result(RUN, args)


# The queue


def test_runs_that_fail_are_named_after_the_others_have_ended(args, monkeypatch):
    train = pretend(lambda run: (0.5, 0.4))
    monkeypatch.setattr(
        syncmnist_runs,
        "train_in_process",
        lambda run, args: f"{run.folder}: no luck" if "bad" in run.folder else train(run, args),
    )
    runs = [replace(RUN, folder=folder) for folder in ("bad1", "good1", "bad2", "good2")]
    with pytest.raises(RuntimeError, match=r"^bad1: no luck; bad2: no luck$"):
        run_all(runs, changed(args, jobs=2), "title")
    assert [read_result(run, args) is not None for run in runs] == [False, True, False, True]


def test_a_run_that_diverges_is_a_result_and_is_not_trained_again(args, trained, monkeypatch):
    def diverge(module, clips, trainer, checkpoint):
        raise DivergenceError("expected a finite loss, got nan at step 7")

    monkeypatch.setattr(syncmnist_runs, "train_and_test", diverge)
    monkeypatch.setattr(syncmnist_runs, "train_in_process", train_here)
    (held,) = run_all([RUN], args, "title")
    assert held["diverged"] == "expected a finite loss, got nan at step 7"
    assert "test_accuracy" not in held
    assert not (args.runs / RUN.folder / "weights.pt").exists()
    monkeypatch.undo()
    assert run_all([RUN], args, "title") == [held]


def test_a_run_in_a_process_of_its_own(args):
    run = replace(RUN, row="mean-lstm")
    (held,) = run_all([run], args, "title")
    assert (held["row"], held["clips"], held["digits"]) == ("mean-lstm", 32, "sklearn")
    assert 0 <= held["test_accuracy"] <= 1
    files = {path.name for path in (args.runs / RUN.folder).iterdir()}
    assert {"run.json", "result.json", "last.ckpt", "weights.pt", "metrics.csv"} <= files


def test_how_a_process_ended(args, monkeypatch):
    commands = []
    args = changed(args, threads=3, compile=True)
    for code, text, message in [
        (0, "a note", None),
        (-9, "", f"{RUN.folder}: ended by signal 9"),
        (1, "", f"{RUN.folder}: no message"),
        (2, "a note\nexpected 3, got 4\n", f"{RUN.folder}: expected 3, got 4"),
    ]:
        done = Namespace(returncode=code, stderr=text, stdout="")
        run = Mock(return_value=done)
        monkeypatch.setattr(syncmnist_runs.subprocess, "run", run)
        assert syncmnist_runs.train_in_process(RUN, args) == message
        (command,), options = run.call_args
        assert options["env"]["OMP_NUM_THREADS"] == "3"
        commands.append(command)
    assert commands[0][1:3] == [syncmnist_runs.__file__, str(args.runs / RUN.folder / "run.json")]
    assert commands[0][3:] == [
        *["--root", str(args.root), "--digits", "sklearn", "--device", "cpu", "--precision", "bf16-mixed"],
        *["--runs", str(args.runs), "--threads", "3", "--compile"],
    ]
    assert commands == [commands[0]] * 4


def test_an_interrupt_begins_no_more_runs(args, monkeypatch):
    begun, cancelled = [], threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait=True, cancel_futures=False):
            super().shutdown(wait=wait, cancel_futures=cancel_futures)
            if cancel_futures:
                cancelled.set()

    def train(run, args):
        begun.append(run.seed)
        if run.seed == 0:
            raise KeyboardInterrupt
        cancelled.wait(10)

    monkeypatch.setattr(syncmnist_runs, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(syncmnist_runs, "train_in_process", train)
    with pytest.raises(KeyboardInterrupt):
        run_all([replace(RUN, folder=str(seed), seed=seed) for seed in range(5)], args, "title")
    assert begun in ([0], [0, 1])


def test_how_many_runs_at_a_time(monkeypatch):
    monkeypatch.setattr(syncmnist_runs.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(syncmnist_runs.os, "cpu_count", lambda: 8)
    for cuda, options, jobs in [
        (False, {}, 8),
        (False, {"threads": 3}, 2),
        (False, {"threads": 9}, 1),
        (True, {}, 1),
        (True, {"device": "cpu"}, 8),
        (True, {"jobs": 4}, 4),
    ]:
        monkeypatch.setattr(torch.cuda, "is_available", Mock(return_value=cuda))
        given = Namespace(**{"jobs": None, "device": "auto", "threads": 1, **options})
        assert syncmnist_runs.choose_jobs(given) == jobs


# The commands


def command(monkeypatch, capsys, script, *options):
    """Run a script as the command line does; return its exit code and the last line of stderr."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, options)])
    with pytest.raises(SystemExit) as error:
        runpy.run_path(str(Path(syncmnist_runs.__file__).with_name(script)), run_name="__main__")
    return error.value.code, capsys.readouterr().err.strip().splitlines()[-1]


def test_bad_input_ends_the_commands_with_one_sentence(tmp_path, monkeypatch, capsys):
    for script in ["syncmnist_table.py", "syncmnist_recipe.py"]:
        for option in ("--jobs", "--threads", "--clips"):
            code, said = command(monkeypatch, capsys, script, option, "0")
            assert (code, said) == (2, f"{script}: error: argument {option}: expected a positive int, got '0'")
        code, said = command(monkeypatch, capsys, script, "--mnist-dir", tmp_path / "none", "--runs", tmp_path / "runs")
        assert code == 2
        assert said.startswith(f"{script}: ")
        assert str(tmp_path / "none") in said
        assert list(tmp_path.iterdir()) == []


def test_a_bad_run_ends_its_process_with_one_sentence(args, monkeypatch, capsys):
    path = syncmnist_runs.begin(replace(RUN, row="conv-ltsm"), args)
    options = ["--runs", args.runs, "--root", args.root, "--digits", "sklearn", "--device", "cpu"]
    code, said = command(monkeypatch, capsys, "syncmnist_runs.py", path, *options)
    assert (code, said.endswith("got 'conv-ltsm' (did you mean 'conv-lstm'?)")) == (2, True)
