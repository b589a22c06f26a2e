"""The example from its command line: runs, resumes, lists its models, tests weights, draws."""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time

import joblib
import pytest
import torch
from cases import case
from example_scripts import EXAMPLES, check_refused, end_of, load_example
from PIL import Image

from rstg_pyg import FrameCNN, SyncMNIST
from rstg_pyg.authors import AuthorsSyncMNISTNet
from rstg_pyg.models import ROWS, build_row
from rstg_pyg.training import Phase, small_recipe
from rstg_pyg.training.metrics import read_rows

SMALL = ["--digits", "sklearn", "--clips", "96", "--test-clips", "10", "--val-clips", "16", "--workers", "0"]


@pytest.fixture
def parse(example):
    return lambda *argv: example.parse_arguments(list(argv), "")


@pytest.fixture
def arguments(tmp_path):
    return [*SMALL, "--device", "cpu", "--root", str(tmp_path / "data"), "--out", str(tmp_path / "run")]


def test_it_trains_tests_and_draws(example, arguments, tmp_path, capsys):
    result = example.main(arguments)
    text = capsys.readouterr().out
    assert "positional on 2SyncMNIST with digits of sklearn: 96 training clips in 3 phase(s)" in text
    assert "knowing which digits are there, but not which move together: 50.0 %" in text
    assert "published for 5SyncMNIST (MNIST, full size): 97.2 %" in text
    folder = tmp_path / "run"
    assert Image.open(folder / "clips.png").size[0] > 1000
    assert Image.open(folder / "clips.gif").n_frames >= 10
    assert Image.open(folder / "pairs.png").size[0] > 500
    assert json.loads((folder / "result.json").read_text())["test_accuracy"] == result["test_accuracy"]
    assert (folder / "metrics.csv").read_text().count("\n") == 2


def test_the_same_command_goes_on_from_its_own_run_alone(example, arguments, no_pictures, capsys):
    result = example.main(arguments)
    assert "going on from" not in capsys.readouterr().out
    again = example.main(arguments)
    assert "going on from" in capsys.readouterr().out
    assert again == result

    with pytest.raises(ValueError, match=r"belongs to a run with other settings \(lr=.* there, 0\.1 now\)"):
        example.main([*arguments, "--lr", "0.1"])
    example.main([*arguments, "--lr", "0.1", "--fresh"])
    assert "going on from" not in capsys.readouterr().out


def test_a_compiled_run_is_like_one_that_is_not(example, arguments, no_pictures, tmp_path, monkeypatch):
    torch._dynamo.reset()
    losses, compiled, compile_module = [], [], torch.nn.Module.compile

    def compile_without_code(module):
        compiled.append(type(module))
        compile_module(module, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_without_code)
    for options in ([], ["--compile"]):
        example.main([*arguments, "--fresh", *options])
        (row,) = read_rows(tmp_path / "run" / "metrics.csv")
        losses.append(row["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert compiled == [FrameCNN]


def test_weights_of_a_run_are_tested_without_training(example, arguments, no_pictures, tmp_path, capsys):
    trained = example.main(arguments)
    assert "training clips" in capsys.readouterr().out
    elsewhere = [*arguments[:-1], str(tmp_path / "tested")]
    tested = example.main([*elsewhere, "--weights", str(tmp_path / "run" / "weights.pt")])
    assert tested == trained and "training clips" not in capsys.readouterr().out
    assert no_pictures == [tmp_path / "run", tmp_path / "tested"]
    assert not (tmp_path / "tested" / "last.ckpt").exists()
    with pytest.raises(ValueError, match=r"weights\.pt to hold the \d+ tensors of this model, got those of another"):
        example.main([*elsewhere, "--model", "mean-lstm", "--weights", str(tmp_path / "run" / "weights.pt")])
    # The same tensors fit a network of another readout, which would be another one.
    with pytest.raises(ValueError, match="expected weights of readout='last' for block, got those of readout='mean'"):
        example.main([*elsewhere, "--readout", "last", "--weights", str(tmp_path / "run" / "weights.pt")])


def test_a_run_out_of_time_says_how_to_go_on(example, arguments, no_pictures, tmp_path, monkeypatch, capsys):
    presets = example.PRESETS
    short = presets["small"]._replace(recipe=lambda n: dataclasses.replace(small_recipe(n), chunk=32))
    monkeypatch.setitem(presets, "small", short)
    assert example.main([*arguments, "--max-minutes", "1e-9"]) == {}
    assert "stopped after 32 of 96 clips; the same command goes on from there" in capsys.readouterr().out
    assert not (tmp_path / "run" / "result.json").exists()
    assert "test_accuracy" in example.main(arguments)
    assert f"going on from {tmp_path / 'run' / 'last.ckpt'}" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "result.json").read_text())["clips"] == 96


def test_every_row_runs(example, arguments, no_pictures):
    for model in list(ROWS):
        with case(model):
            assert 0 <= example.main([*arguments, "--clips", "32", "--model", model, "--fresh"])["test_accuracy"] <= 100


def test_the_list_names_every_row_with_its_size_and_published_figures(example, capsys):
    assert example.main(["--list"]) == {}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(ROWS)
    conv_lstm = next(line for line in lines if line.startswith("conv-lstm")).split()
    assert conv_lstm[-3:] == ["344,926", "95.0", "39.7"]
    assert lines[-2].split()[-2:] == ["-", "97.2"]


def test_the_paper_preset_is_the_authors_network(example, parse):
    args = parse("--preset", "paper")
    recipe = args.recipe
    assert recipe.phases == (Phase(600_000, num_digits=5, no_sync_probability=1 / 92),)
    assert (recipe.size, recipe.batch_size) == (64, 2)
    assert (recipe.optimizer, recipe.lr, recipe.loss, recipe.raw_pixels) == ("nesterov", 1e-6, "sum", True)
    assert recipe.test_clips == 5_000
    assert sum(parameter.numel() for parameter in example.make_model(args).parameters()) > 10_000_000


def test_the_full_preset_has_the_papers_size(parse):
    args = parse("--preset", "full", "--model", "1-temp-stage")
    assert (args.network.widths, args.network.channels, args.network.num_stages) == ((512, 512, 512), 512, 3)
    assert (args.recipe.size, args.recipe.task.num_digits) == (64, 5)
    assert args.recipe.task.no_sync_probability == 1 / 92


def test_the_curriculum_leads_to_the_asked_for_task(parse):
    for num_digits, expected in [(2, [12_000, 18_000, 30_000]), (3, [12_000, 18_000, 170_000])]:
        with case(num_digits, expected):
            recipe = parse("--num-digits", str(num_digits)).recipe
            assert [phase.clips for phase in recipe.phases] == expected
            assert recipe.task.num_digits == num_digits
            assert recipe.phases[0].target == "in-step"
            assert parse("--num-digits", str(num_digits), "--clips", "1001").recipe.clips == 1001
            (phase,) = parse("--num-digits", str(num_digits), "--no-curriculum").recipe.phases
            assert (phase.clips, phase.num_digits, phase.target) == (sum(expected), num_digits, "pair")


def test_options_reach_network_and_recipe(parse):
    args = parse(
        *["--norm", "none", "--no-residual", "--num-stages", "2", "--rnn", "lstm", "--readout", "last"],
        *["--optimizer", "adamw", "--lr", "0.001", "--gradient-clip", "0", "--augment", "reverse", "--size", "48"],
    )
    network, recipe = args.network, args.recipe
    assert (network.norm, network.residual, network.num_stages) == (None, False, 2)
    assert (network.rnn, network.readout) == ("lstm", "last")
    assert (recipe.optimizer, recipe.lr, recipe.gradient_clip) == ("adamw", 0.001, None)
    assert (recipe.augment, recipe.size) == ("reverse", 48)


@pytest.mark.parametrize("model", ["authors", "mean-lstm", "i3d"])
def test_networks_of_every_kind_are_drawn(example, tmp_path, model):
    """Those that take raw pixels, have no graph, or see whole clips."""
    raw = model == "authors"
    net = AuthorsSyncMNISTNet(filters=4) if raw else build_row(model)
    clips = SyncMNIST(tmp_path, train=False, digits="sklearn", num_clips=1, size=64 if raw else 32)
    confusion = torch.eye(46, dtype=torch.long)
    for path in example.draw_pictures(net, clips, confusion, tmp_path, "title", raw_pixels=raw):
        assert path.stat().st_size > 10_000


def test_ctrl_c_ends_a_run_which_until_then_has_its_folder(example, arguments, tmp_path, capsys):
    arguments = [*arguments, "--clips", "100000", "--chunk", "16", "--workers", "1", "--fresh"]
    command = [sys.executable, str(EXAMPLES / "syncmnist.py"), *arguments]
    # Ctrl-C goes to a process and its workers.
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, **options) as process:
        try:
            for _ in range(600):
                if (tmp_path / "run" / "last.ckpt").exists() or process.poll() is not None:
                    break
                time.sleep(0.1)
            refused = end_of(example, arguments, capsys)
            os.killpg(process.pid, signal.SIGINT)
            printed, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "100,000 training clips" in printed
    assert said.splitlines()[-1] == "syncmnist.py: stopped; the same command without --fresh goes on"
    assert "Traceback" not in said
    check_refused(refused, f"expected one run at a time in {tmp_path / 'run'}, got another one there")
    assert (tmp_path / "run" / "last.ckpt").exists()


def test_threads_and_workers_do_not_exceed_the_cores(monkeypatch):
    for cores, asked, workers, processes, preset, expected in [
        (2, None, 1, 1, "small", 1),
        (2, None, 0, 1, "small", 2),
        (1, None, 4, 1, "full", 1),
        (8, None, 1, 2, "small", 3),
        (64, None, 1, 1, "small", 4),
        (64, None, 1, 1, "full", 63),
        (2, 7, 1, 1, "small", 7),
    ]:
        with case(cores, asked, workers, processes, preset, expected):
            choose = load_example("run_command").choose_threads
            monkeypatch.setattr(joblib, "cpu_count", lambda cores=cores: cores)
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
            assert choose(asked, workers, processes, preset) == expected
            monkeypatch.setenv("OMP_NUM_THREADS", "5")
            assert choose(asked, workers, processes, preset) == asked


def test_threads_do_not_spin_unless_the_environment_says_how(monkeypatch):
    others = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    importlib.reload(load_example("run_command"))
    assert "OMP_WAIT_POLICY" not in os.environ
    command = [sys.executable, EXAMPLES / "syncmnist.py", "--help"]
    settings = {**others, "OMP_DISPLAY_ENV": "verbose"}
    with subprocess.Popen(
        command, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        shown = []
        for line in process.stderr:
            shown.append(line.strip())
            if shown[-1] == "OPENMP DISPLAY ENVIRONMENT END":  # the rest of the start is of no interest
                process.kill()
                break
    if not any("GOMP" in line for line in shown):
        pytest.skip("torch has another OpenMP here than GCC's")
    assert "GOMP_SPINCOUNT = '0'" in shown
