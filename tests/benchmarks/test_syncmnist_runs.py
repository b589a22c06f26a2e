"""Runs of SyncMNIST networks: which are read, gone on with or trained, and the queue of them."""

import json
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
from syncmnist_runs import WEIGHTS, Run, read_result, run_all
from syncmnist_table import TABLES
from tiny_table import ROWS, pretend, train_here

from rstg_pyg.training import DivergenceError, Phase, Recipe
from rstg_pyg.training.weights import read_file

RUN = ROWS.run("positional", 0, "sklearn")


@pytest.fixture
def args(tmp_path):
    """The options of the machine."""
    places = {"runs": tmp_path / "runs", "root": tmp_path / "data", "mnist_dir": None}
    return Namespace(**places, device="cpu", precision="bf16-mixed", jobs=1, threads=1, compile=False)


@pytest.fixture
def trained(monkeypatch):
    """Names and seeds of the runs that were trained, without training: a test accuracy of 0.4."""
    found = []
    train = pretend(lambda run: 0.4)
    monkeypatch.setattr(
        syncmnist_runs, "train_in_process", lambda run, args: found.append((run.name, run.seed)) or train(run, args)
    )
    return found


def changed(args, **options):
    return Namespace(**{**vars(args), **options})


# Which results are taken


def test_a_finished_run_is_read_and_not_trained(args, trained):
    run_all([RUN], args)
    first = read_result(RUN, args.runs)
    run_all([RUN, replace(RUN, seed=3)], args)
    assert trained == [("positional", 0), ("positional", 3)]
    assert (first["name"], first["test_accuracy"]) == ("positional", 0.4)
    assert read_result(RUN, args.runs) == first


def test_a_kept_backbone_stays_as_it_is(args):
    run = TABLES["delay"].run("GRU, chrono, G = 3", 0, "sklearn")
    run = replace(run, recipe=replace(RUN.recipe, phases=(Phase(16, 2),), size=32))
    assert train_here(run, args) is None
    before, after = (
        read_file(path)["state_dict"] for path in (WEIGHTS / run.backbone, args.runs / run.folder / "weights.pt")
    )
    kept = [name for name in before if name.startswith("backbone.")]
    assert any("running_mean" in name for name in kept)
    for name in kept:
        assert torch.equal(before[name], after[name.replace("backbone.", "backbone.0.")]), name
    assert len(after["block.input_norm.running_mean"].unique()) > 1, "the graph's norm has not learned"


def test_runs_on_other_weights_of_a_backbone_are_others(tmp_path, monkeypatch):
    run = TABLES["delay"].run("GRU, G = 3", 0)
    before = run.settings
    (tmp_path / run.backbone).write_bytes(b"others")
    monkeypatch.setattr(syncmnist_runs, "WEIGHTS", tmp_path)
    assert run.settings != before


def test_a_run_of_other_settings_has_a_folder_of_its_own(args, trained):
    others = [
        replace(RUN, recipe=RUN.recipe.with_clips(48)),
        replace(RUN, seed=1),
        replace(RUN, network=replace(RUN.network, channels=5)),
        replace(RUN, digits="mnist"),
        replace(RUN, row="all-temp-stages"),
    ]
    run_all([RUN], args)
    assert [read_result(other, args.runs) for other in others] == [None] * 5
    run_all([*others, RUN], args)
    assert len(trained) == 1 + len(others)
    # What a table calls it is no setting.
    assert replace(RUN, name="another").settings == RUN.settings


def test_a_begun_run_of_another_precision_is_not_gone_on_with(args):
    assert train_here(RUN, args) is None
    checkpoint = (args.runs / RUN.folder / "last.ckpt").read_bytes()
    (args.runs / RUN.folder / "result.json").unlink()
    failure = train_here(RUN, changed(args, precision="32-true"))
    assert "last.ckpt belongs to a run with other settings (precision='bf16-mixed' there, '32-true' now)" in failure
    assert (args.runs / RUN.folder / "last.ckpt").read_bytes() == checkpoint
    assert read_result(RUN, args.runs) is None


def test_a_description_says_everything():
    other = replace(RUN, recipe=RUN.recipe.with_clips(48))
    assert Run.from_json(RUN.to_json()) == RUN
    assert Run.from_json(other.to_json()) == other != RUN
    held = json.loads(RUN.to_json())
    del held["recipe"]["augment"]
    assert Run.from_json(json.dumps(held)).recipe.augment == Recipe.augment


# The queue


def test_runs_that_fail_are_named_after_the_others_have_ended(args, monkeypatch):
    train = pretend(lambda run: 0.4)
    monkeypatch.setattr(
        syncmnist_runs,
        "train_in_process",
        lambda run, args: f"{run.name}: no luck" if "bad" in run.name else train(run, args),
    )
    runs = [replace(RUN, name=name, seed=seed) for seed, name in enumerate(("bad1", "good1", "bad2", "good2"))]
    with pytest.raises(RuntimeError, match=r"^bad1: no luck; bad2: no luck$"):
        run_all(runs, changed(args, jobs=2))
    assert [read_result(run, args.runs) is not None for run in runs] == [False, True, False, True]


def test_a_run_that_diverges_is_a_result_and_is_not_trained_again(args, trained, monkeypatch):
    def diverge(module, clips, trainer, checkpoint):
        raise DivergenceError("expected a finite loss, got nan at step 7")

    monkeypatch.setattr(syncmnist_runs, "train_and_test", diverge)
    monkeypatch.setattr(syncmnist_runs, "train_in_process", train_here)
    run_all([RUN], args)
    held = read_result(RUN, args.runs)
    assert held["diverged"] == "expected a finite loss, got nan at step 7"
    assert "test_accuracy" not in held
    assert not (args.runs / RUN.folder / "weights.pt").exists()
    monkeypatch.undo()
    run_all([RUN], args)
    assert read_result(RUN, args.runs) == held


def test_a_run_in_a_process_of_its_own(args):
    run = replace(RUN, row="mean-lstm")
    run_all([run], args)
    held = read_result(run, args.runs)
    assert (held["clips"], held["digits"], held["settings"]) == (32, "sklearn", run.settings)
    assert 0 <= held["test_accuracy"] <= 1
    files = {path.name for path in (args.runs / run.folder).iterdir()}
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
        *["--root", str(args.root), "--device", "cpu", "--precision", "bf16-mixed"],
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
        run_all([replace(RUN, seed=seed) for seed in range(5)], args)
    assert begun in ([0], [0, 1])


def test_how_many_runs_at_a_time(monkeypatch):
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
    script, places = "syncmnist_table.py", ["--runs", tmp_path / "runs", "--results", tmp_path / "results"]
    for option in ("--jobs", "--threads", "--clips"):
        code, said = command(monkeypatch, capsys, script, "rows", option, "0")
        assert (code, said) == (2, f"{script}: error: argument {option}: expected a positive int, got '0'")
    code, said = command(monkeypatch, capsys, script, "rows", "--mnist-dir", tmp_path / "none", *places)
    assert (code, said.startswith(f"{script}: "), str(tmp_path / "none") in said) == (2, True, True)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_run_ends_its_process_with_one_sentence(args, monkeypatch, capsys):
    path = syncmnist_runs.begin(replace(RUN, row="conv-ltsm"), args.runs)
    options = ["--runs", args.runs, "--root", args.root, "--device", "cpu"]
    code, said = command(monkeypatch, capsys, "syncmnist_runs.py", path, *options)
    assert (code, said.endswith("got 'conv-ltsm' (did you mean 'conv-lstm'?)")) == (2, True)
