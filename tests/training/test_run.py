"""A run in its folder: begun, stopped, gone on with, tested."""

import dataclasses
import errno
import multiprocessing
import os
import re
import shutil
import signal
import time
import warnings
from operator import attrgetter
from types import SimpleNamespace

import lightning
import pytest
import torch
from cases import case
from small_runs import PHASES, RECIPE, fit, model

from rstg_pyg import training
from rstg_pyg.training import (
    CheckpointError,
    ClipClassifier,
    ClipMetrics,
    ClipProgress,
    Phase,
    SyncMNISTData,
    open_run,
    run_trainer,
    train_and_test,
)
from rstg_pyg.training.metrics import read_rows
from rstg_pyg.training.run import SameStart, StopAfter, claim_folder

ONE = dataclasses.replace(RECIPE, chunk=30)
"""One chunk."""


class CountSteps(lightning.Callback):
    def __init__(self):
        self.steps = 0

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.steps += 1


def go(folder, recipe=RECIPE, fresh=False, **options):
    """Begin or go on with a run; return what it came to, its classifier and the steps that were taken."""
    module = ClipClassifier(model(dropout=0.3), recipe)
    checkpoint = open_run(folder, module, fresh)
    count = CountSteps()
    trainer = run_trainer(folder, recipe, "cpu", progress=False, callbacks=[count], **options)
    result = train_and_test(module, SyncMNISTData(folder, recipe, digits="sklearn"), trainer, checkpoint)
    return result, module, count.steps


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An unbroken run: its folder, what it came to, its classifier."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    result, module, steps = go(folder)
    assert steps == RECIPE.num_steps
    return folder, result, module


def assert_same_end(one, other):
    """The same weights and measures, bit for bit."""
    torch.testing.assert_close(one[1].state_dict(), other[1].state_dict(), rtol=0, atol=0)
    for name in ("clips", "finished", "test_accuracy", "val_accuracy"):
        assert getattr(one[0], name) == getattr(other[0], name)
    assert torch.equal(one[0].confusion, other[0].confusion)


def test_a_run_is_trained_and_tested(whole):
    folder, result, module = whole
    rows = read_rows(folder / "metrics.csv")
    assert (result.clips, result.finished) == (30, True)
    assert result.seconds == pytest.approx(rows[-1]["seconds"], abs=1e-3)
    assert result.val_accuracy == pytest.approx(rows[-1]["val_accuracy"])
    data = SyncMNISTData(folder, RECIPE, digits="sklearn")
    clips = [data.test_clips[i] for i in range(RECIPE.test_clips)]
    with torch.no_grad():
        answers = module.eval()(torch.cat([clip.video for clip in clips])).argmax(1)
    labels = torch.cat([clip.y for clip in clips])
    expected = torch.zeros(46, 46, dtype=torch.long)
    expected.index_put_((labels, answers), torch.tensor(1), accumulate=True)
    assert torch.equal(result.confusion, expected)
    assert result.test_accuracy == (labels == answers).double().mean().item()


def test_a_run_out_of_time_goes_on_to_where_an_unbroken_one_ends(tmp_path, whole):
    clips, seconds, steps = [], [0.0], []
    for _ in range(RECIPE.num_chunks):
        torch.manual_seed(len(clips))
        result, module, taken = go(tmp_path, max_minutes=1e-9)
        clips.append(result.clips)
        seconds.append(result.seconds)
        steps.append(taken)
        if not result.finished:
            assert (result.test_accuracy, result.val_accuracy, result.confusion) == (None, None, None)
        assert result.seconds == pytest.approx(read_rows(tmp_path / "metrics.csv")[-1]["seconds"], abs=1e-3)
    assert (clips, steps) == ([10, 20, 30], [3, 3, 3])
    assert sorted(set(seconds)) == seconds
    assert_same_end((result, module), whole[1:])


def test_a_finished_run_is_tested_again_and_trained_no_more(tmp_path, whole):
    (tmp_path / "last.ckpt").write_bytes((whole[0] / "last.ckpt").read_bytes())
    result, module, steps = go(tmp_path)
    assert steps == 0
    assert result.seconds == pytest.approx(whole[1].seconds)
    assert_same_end((result, module), whole[1:])


def test_time_that_does_not_run_out_stops_nothing(tmp_path):
    assert go(tmp_path, max_minutes=1e9, recipe=ONE)[0].finished


def test_time_that_runs_out_in_the_last_chunk_stops_nothing(tmp_path):
    assert go(tmp_path, max_minutes=1e-9, recipe=ONE)[0].confusion.sum() == RECIPE.test_clips


def test_all_processes_stop_when_one_is_out_of_time(monkeypatch):
    clock = iter([100.0, 159.0, 160.0, 100.0])
    monkeypatch.setattr("rstg_pyg.training.run.time.monotonic", lambda: next(clock))
    asked = []
    stop = StopAfter(minutes=1)
    answers = SimpleNamespace(reduce_boolean_decision=lambda decision, all: asked.append((decision, all)) or decision)
    trainer = SimpleNamespace(strategy=answers, should_stop=False)
    stop.on_train_start(trainer, None)
    for expected in (False, True):
        stop.on_train_epoch_end(trainer, None)
        assert trainer.should_stop == expected
    assert asked == [(False, False), (True, False)]


def test_processes_that_do_not_see_the_checkpoint_are_refused():
    for of_first, path, same in [(True, None, False), (False, "last.ckpt", False)]:
        with case(of_first, path, same):

            def strategy(first):
                return SimpleNamespace(
                    broadcast=lambda own: first, reduce_boolean_decision=lambda decision, all: decision
                )

            trainer = SimpleNamespace(ckpt_path=path, strategy=strategy(of_first))
            with pytest.raises(
                CheckpointError, match="all processes to go on from the same checkpoint, got some without one"
            ):
                SameStart().on_fit_start(trainer, None)
            trainer.strategy = strategy(not of_first)
            SameStart().on_fit_start(trainer, None)


# What does not go together


def test_parts_of_different_recipes_are_refused(tmp_path):
    other = dataclasses.replace(RECIPE, lr=0.1)
    module = ClipClassifier(model(), RECIPE)
    for name, clips, trainer in (("clips", other, RECIPE), ("trainer", RECIPE, other)):
        data = SyncMNISTData(tmp_path, clips, digits="sklearn")
        with pytest.raises(
            ValueError, match=rf"'{name}' to be of the module's recipe, got Recipe\(.*lr=0\.1.* instead"
        ):
            train_and_test(module, data, run_trainer(tmp_path, trainer, "cpu"))
    assert not (tmp_path / "metrics.csv").exists()


def test_bad_arguments(tmp_path):
    for options, message in [
        ({"device": "tpu"}, "'device' to be one of 'auto', 'cpu', 'cuda', got 'tpu'"),
        ({"precision": "16-true"}, "'precision' to be one of '32-true', 'bf16-mixed', got '16-true'"),
        ({"devices": 0}, "'devices' to be a positive int, got 0"),
        ({"num_nodes": 0}, "'num_nodes' to be a positive int, got 0"),
        ({"devices": 3}, "'batch_size' to be a multiple of the 3 processes, got 4"),
        ({"devices": 4, "num_nodes": 2}, "'batch_size' to be a multiple of the 8 processes, got 4"),
        ({"max_minutes": 0}, "'max_minutes' to be above 0, got 0"),
        ({"max_minutes": float("nan")}, "'max_minutes' to be above 0, got nan"),
    ]:
        with case(options, message):
            with pytest.raises(ValueError, match=message):
                run_trainer(tmp_path / "run", RECIPE, **{"device": "cpu", **options})
            assert not (tmp_path / "run").exists()


def test_every_process_needs_clips(tmp_path):
    for options, counts in [
        ({"phases": (Phase(21),)}, "1, 6 and 6"),
        ({"val_clips": 1}, "10, 1 and 6"),
        ({"test_clips": 1}, "10, 6 and 1"),
    ]:
        with case(options, counts):
            recipe = dataclasses.replace(RECIPE, **options)
            message = (
                f"a clip for each of the 2 processes in the last chunk, for validation and for tests, got {counts}$"
            )
            with pytest.raises(ValueError, match=message):
                run_trainer(tmp_path, recipe, "cpu", devices=2)
            assert run_trainer(tmp_path, recipe, "cpu").max_epochs == 3


# Where it trains


@pytest.fixture
def made(monkeypatch):
    """The options with which a trainer is made, on a machine with CUDA devices."""
    asked = {}
    monkeypatch.setattr(lightning, "Trainer", lambda **options: asked.update(options))

    def make(available, **options):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: available > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: available)
        run_trainer("run", RECIPE, **options)
        return asked

    return make


def test_a_device_is_taken_where_there_is_one(made):
    for available, options, expected in [
        (0, {}, ("cpu", 1, "auto", False)),
        (0, {"devices": 2}, ("cpu", 2, "ddp", False)),
        (2, {}, ("cuda", 1, "auto", False)),
        (2, {"device": "cpu", "devices": 4}, ("cpu", 4, "ddp", False)),
        (2, {"devices": 2}, ("cuda", 2, "ddp", True)),
        (1, {"device": "cuda", "num_nodes": 2}, ("cuda", 1, "ddp", True)),
    ]:
        with case(available, options, expected):
            asked = made(available, **options)
            assert tuple(asked[name] for name in ("accelerator", "devices", "strategy", "sync_batchnorm")) == expected
            assert any(isinstance(callback, SameStart) for callback in asked["callbacks"]) == (expected[2] == "ddp")


def test_fewer_devices_than_asked_for(made):
    for available, device in [(0, "cuda"), (1, "cuda"), (1, "auto")]:
        with (
            case(available, device),
            pytest.raises(
                ValueError, match=rf"2 CUDA device\(s\) for device='{device}', got {available} \(try 'cpu'\)"
            ),
        ):
            made(available, device=device, devices=2)


def test_a_trainer_has_what_was_asked_for(monkeypatch):
    more = CountSteps()
    trainer = run_trainer("run", RECIPE, "cpu", precision="bf16-mixed", callbacks=[more])
    kinds = [type(callback) for callback in trainer.callbacks]
    assert (trainer.precision, trainer.max_epochs, trainer.gradient_clip_val) == ("bf16-mixed", 3, 1.0)
    assert more in trainer.callbacks
    assert ClipMetrics in kinds and ClipProgress in kinds
    assert StopAfter not in kinds and SameStart not in kinds
    for lacks in (True, False):
        with case(lacks), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            monkeypatch.setattr(training.run, "onednn_lacks_bfloat16", lambda lacks=lacks: lacks)
            run_trainer("run", RECIPE, "cpu", precision="bf16-mixed")
            assert any("instructions for bfloat16" in str(one.message) for one in caught) == lacks
    quiet = run_trainer("run", RECIPE, "cpu", progress=False, max_minutes=3)
    kinds = [type(callback) for callback in quiet.callbacks]
    assert StopAfter in kinds and ClipProgress not in kinds


# Its folder


def test_a_new_folder_has_nothing_to_go_on_from(tmp_path):
    module = ClipClassifier(model(), RECIPE)
    assert open_run(tmp_path / "a" / "b", module) is None
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["run.lock"]


def test_a_folder_is_for_one_process_as_long_as_it_lives(tmp_path, monkeypatch):
    processes = multiprocessing.get_context("fork")
    ready, told = processes.Pipe(duplex=False)

    def hold():
        claim_folder(tmp_path)
        # As a data loader's worker does, one that has all that was open outlives its parent.
        processes.Process(target=time.sleep, args=(4,)).start()
        told.send(os.getpid())
        time.sleep(60)

    holder = processes.Process(target=hold)
    holder.start()
    message = f"expected one run at a time in {tmp_path}, got another one there (process {ready.recv()} on "
    (tmp_path / "last.ckpt").write_text("of the other")
    for _ in range(2):
        with pytest.raises(RuntimeError, match=re.escape(message)):
            open_run(tmp_path, ClipClassifier(model(), RECIPE), fresh=True)
    assert (tmp_path / "last.ckpt").read_text() == "of the other"
    with monkeypatch.context() as patch:
        # Not the first process of its run.
        patch.setattr("rstg_pyg.training.run.rank_zero_only.rank", 1)
        claim_folder(tmp_path)

    for name in ("last.ckpt.5eed.part", "metrics.csv.5eed.part", "video.mp4.5eed.part"):
        (tmp_path / name).touch()
    holder.kill()
    holder.join()
    for _ in range(2):
        assert open_run(tmp_path, ClipClassifier(model(), RECIPE), fresh=True) is None
        assert {path.name for path in tmp_path.iterdir()} == {"run.lock", "video.mp4.5eed.part"}


def test_a_folder_that_was_removed_is_claimed_anew(tmp_path):
    for _ in range(2):
        claim_folder(tmp_path / "run")
        assert (tmp_path / "run" / "run.lock").read_text().startswith(f"process {os.getpid()} on ")
        shutil.rmtree(tmp_path / "run")


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def refuse(file, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("rstg_pyg.training.run.fcntl.lockf", refuse)
    with pytest.warns(UserWarning, match=r"run\.lock to be a file that can be locked, got: .*No locks available"):
        claim_folder(tmp_path)


def test_a_program_that_trains_ends_with_the_code_of_its_signal(tmp_path):
    class Stop(lightning.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as end:
        fit(tmp_path, callbacks=[Stop()])
    assert end.value.code == 143


def test_a_checkpoint_of_the_same_run_is_found_or_removed(whole):
    folder, _, module = whole
    content = (folder / "last.ckpt").read_bytes()
    assert open_run(folder, module) == folder / "last.ckpt"
    assert (folder / "last.ckpt").read_bytes() == content
    (folder / "weights.pt").write_text("of the old run")
    assert open_run(folder, module, fresh=True) is None
    assert not {"last.ckpt", "weights.pt"} & {path.name for path in folder.iterdir()}
    assert not list((folder / "tensorboard").glob("events.*"))  # old curves would be drawn with the new ones
    (folder / "last.ckpt").write_bytes(content)


def test_a_checkpoint_is_read_and_checked_once(whole, tmp_path, monkeypatch):
    (tmp_path / "last.ckpt").write_bytes((whole[0] / "last.ckpt").read_bytes())
    done = []
    for place in ("weights.open_file", "checkpoint.check_weights"):
        real = attrgetter(place)(training)
        counted = lambda *args, place=place, real=real: done.append(place) or real(*args)  # noqa: E731
        monkeypatch.setattr(f"rstg_pyg.training.{place}", counted)
    module = go(tmp_path)[1]
    assert done == ["weights.open_file", "checkpoint.check_weights"]
    assert module.held_checkpoint == (None, {})


def test_a_checkpoint_of_another_run_stays_as_it_is(whole, tmp_path):
    path = tmp_path / "last.ckpt"
    advice = r"; take another folder, or begin anew \(fresh\)$"
    content = (whole[0] / "last.ckpt").read_bytes()
    path.write_bytes(content)
    other = ClipClassifier(model(), dataclasses.replace(RECIPE, lr=0.1, phases=PHASES))
    with pytest.raises(CheckpointError, match=rf"run with other settings \(lr=0\.003 there, 0\.1 now\){advice}"):
        open_run(tmp_path, other)
    assert path.read_bytes() == content
    path.write_bytes(content[:1000])
    with pytest.raises(
        CheckpointError, match=rf"whole checkpoint, got 1,000 bytes of a damaged or cut-off one{advice}"
    ):
        open_run(tmp_path, whole[2])
    assert path.read_bytes() == content[:1000]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(
            OSError, match=f"^expected {re.escape(str(folder))} to be a folder that can be written to, got"
        ):
            open_run(folder, ClipClassifier(model(), RECIPE))
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("rstg_pyg.training.run.tempfile.TemporaryFile", refuse)
    with pytest.raises(
        PermissionError, match=f"{re.escape(str(tmp_path))} to be a folder that can be written to, got: .*denied"
    ):
        open_run(tmp_path, ClipClassifier(model(), RECIPE))
