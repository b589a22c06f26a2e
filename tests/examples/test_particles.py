"""The example of particles: trains, goes on, draws, and says in one sentence what was wrong."""

import json
from functools import partial
from pathlib import Path

import pytest
from example_scripts import load_example, run_example
from PIL import Image

SHORT = ["--clips", "16", "--batch-size", "8", "--channels", "8", "--threads", "1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture
def particles(monkeypatch):
    example = load_example("particles")
    monkeypatch.setattr(example, "tasks", partial(example.tasks, sizes={"train": 16, "val": 4, "test": 3}))
    monkeypatch.setattr(example, "DRAWN", 1)
    monkeypatch.setattr(example, "EVERY", 17)
    return example


def test_it_trains_draws_and_tests_its_weights(particles, tmp_path, capsys):
    root = str(tmp_path / "data")
    command = ["--root", root, "--out", str(tmp_path / "run"), *SHORT]
    measured = particles.main(command)
    assert {"mse_1", "mse_20", "interactions"} <= measured.keys()
    out = capsys.readouterr().out
    assert "no motion" in out and "straight on" in out
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test"] == measured
    with Image.open(tmp_path / "run" / "simulation0.gif") as image:
        assert image.n_frames == 5
    weights = ["--weights", str(tmp_path / "run" / "weights.pt"), "--out", str(tmp_path / "again")]
    assert particles.main(["--root", root, *weights, *SHORT]) == pytest.approx(measured, rel=1e-5)
    # No part is made that was not asked for.
    assert {path.name.split("_")[0] for path in Path(root).rglob("*.npz")} == {"springs"}


def test_charges_by_a_row_without_beliefs(particles, root, tmp_path):
    command = ["--root", root, "--out", str(tmp_path), "--part", "particles-charges", "--model", "gru", *SHORT]
    assert "interactions" not in particles.main(command)
    assert (tmp_path / "simulation0.gif").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--part", "particles-magnets"], "--part: expected one of particles-springs, particles-charges, got"),
        (["--data-dir", "somewhere"], "expected no folder of data, for particles are simulated, got somewhere"),
        (["--model", "pears"], "did you mean 'pairs'?"),
    ],
)
def test_bad_input_is_one_sentence(particles, root, options, sentence, capsys):
    assert run_example(particles, ["--root", root, *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("particles.py: ") and sentence in error
