"""Bad input ends the example with one sentence and code 2, and leaves what was there as it was."""

import errno
import os
import runpy
import sys

import pytest
import torch
from cases import case
from example_scripts import EXAMPLES, check_refused, end_of, load_example, run_example
from process_settings import process_settings

SMALL = ["--digits", "sklearn", "--clips", "32", "--test-clips", "4", "--val-clips", "4", "--workers", "0"]


@pytest.fixture
def run(example, tmp_path, monkeypatch, capsys):
    """Run the example in this process, in a folder of its own."""

    def command(*options):
        monkeypatch.chdir(tmp_path)
        return end_of(example, [*SMALL, "--device", "cpu", "--out", "run", *options], capsys)

    return command


def test_bad_options(run, tmp_path):
    for options, parts in [
        (["--model", "conv-ltsm"], ["'conv-ltsm' (did you mean 'conv-lstm'?)", "mean-lstm, conv-lstm, i3d"]),
        (["--batch-size", "0"], ["'batch_size' to be a positive int, got 0"]),
        (["--batch-size", "33"], ["'batch_size' to be at most 32 (clips, chunk), got 33"]),
        (["--clips", "1"], ["'clips' to be a positive int, got 0"]),
        (["--num-stages", "0"], ["'num_stages' to be a positive int, got 0"]),
        (["--delay", "-1"], ["'delay' to be an integer of at least 0, got -1"]),
        (["--preset", "large"], ["invalid choice: 'large'"]),
        (["--colour", "red"], ["unrecognized arguments: --colour red"]),
        (["--preset", "paper", "--model", "i3d"], ["--preset paper is the authors' own network"]),
        (["--authors-test"], ["--authors-test holds clips of five MNIST digits"]),
        (["--devices", "3"], ["'batch_size' to be a multiple of the 3 processes, got 16"]),
        (["--max-minutes", "-1"], ["'max_minutes' to be above 0, got -1.0"]),
        (["--weights", "none.pt"], ["none.pt"]),
        (["--mnist-dir", "none", "--digits", "auto"], ["none"]),
        (["--lr", "1e30"], ["expected a finite", "the last checkpoint is intact"]),
    ]:
        with case(options, parts):
            check_refused(run(*options), *parts)
            assert not (tmp_path / "run" / "last.ckpt").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_cuda(run, tmp_path):
    check_refused(run("--device", "cuda"), "torch sees no CUDA device (try --device cpu)")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def trained(example, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    with process_settings(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "draw_pictures", lambda *args: [])
        assert run_example(example, [*SMALL, "--device", "cpu", "--out", str(out)]) == 0
    return (out / "last.ckpt").read_bytes()


def damage(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def test_a_checkpoint_that_does_not_fit_stays_as_it_is(run, tmp_path, trained):
    for change, options, parts in [
        (damage, [], ["last.ckpt to be a whole checkpoint", "damaged or cut-off"]),
        (lambda content: content[:1000], [], ["last.ckpt to be a whole checkpoint, got 1,000 bytes"]),
        (lambda content: b"", [], ["got an empty file"]),
        (lambda content: b"a letter", [], ["got a file of another kind"]),
        (lambda content: content, ["--model", "mean-lstm"], ["model='positional' there, 'mean-lstm' now"]),
        (lambda content: content, ["--num-stages", "2"], ["num_stages=1 there, 2 now"]),
        (lambda content: content, ["--lr", "0.5"], ["lr=0.003 there, 0.5 now"]),
    ]:
        with case(change, options, parts):
            path = tmp_path / "run" / "last.ckpt"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(change(trained))
            check_refused(run(*options), *parts)
            assert path.read_bytes() == change(trained)
            assert {file.name for file in path.parent.iterdir()} == {"last.ckpt", "run.lock"}


def test_a_folder_that_cannot_be_written_to(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    check_refused(run("--out", "file/run"), "file/run to be a folder that can be written to")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(run, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    check_refused(run("--out", "locked/run"), "locked/run to be a folder that can be written to")


def test_a_worker_that_fails_is_said_with_what_helps(run, monkeypatch):
    helps = "; fewer --workers, or none (0), need less memory and fewer open files (ulimit -n)"

    def refuse(loader):
        raise OSError(errno.EMFILE, "Too many open files")

    sentence = load_example("run_command").sentence
    assert sentence(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")).endswith(f"Killed.{helps}")
    monkeypatch.setattr("torch.utils.data.DataLoader.__iter__", refuse)
    check_refused(run(), f"[Errno 24] Too many open files{helps}")


def test_the_command_itself_ends_with_code_2(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["syncmnist.py", "--mnist-dir", str(tmp_path / "none")])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        runpy.run_path(str(EXAMPLES / "syncmnist.py"), run_name="__main__")
    assert error.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("syncmnist.py: ")
    assert str(tmp_path / "none") in last
