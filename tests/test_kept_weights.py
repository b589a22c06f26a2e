"""The weights that the repository holds: of the networks that they say, and as good as is said of them."""

import os
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch

from rstg_pyg import SomethingSomething
from rstg_pyg.datasets import ClipGenerator, Particles, SyncMNIST
from rstg_pyg.datasets.made_videos import make_videos
from rstg_pyg.models import SMALL, Network, PairForecaster, build_row
from rstg_pyg.predict import Predictor
from rstg_pyg.training import evaluate, load_model_weights, pedestrians, traffic
from rstg_pyg.training.particles import OPTIONS

MNIST = os.environ.get("RSTG_PYG_MNIST")
DATA = os.environ.get("RSTG_PYG_DATA")
WEIGHTS = Path(__file__).parents[1] / "weights"


def test_syncmnist_weights_are_those_of_the_small_preset(tmp_path):
    model = build_row("positional")
    settings = load_model_weights(WEIGHTS / "syncmnist_small.pt", model)
    assert settings["model"] == "positional"
    assert Network(**{**settings["network"], "widths": tuple(settings["network"]["widths"])}) == SMALL
    if not MNIST:
        pytest.skip("RSTG_PYG_MNIST does not name a folder with the files of MNIST")
    kind = {"num_digits": 3, "size": 32, "num_clips": 200}
    clips = SyncMNIST(tmp_path, train=False, digits="mnist", mnist_dir=MNIST, **kind)
    batch = ClipGenerator(clips, "cpu")(range(200))
    with torch.no_grad():
        answers = model.eval()(batch.video).argmax(1)
    assert (answers == batch.y).float().mean() > 0.8


def test_video_weights_tell_motion(tmp_path):
    """24 videos that it was not trained on; a network that sees no motion gets half of them at the most."""
    make_videos(tmp_path, clips=1, validation_clips=24, height=72, seed=7)
    predictor = Predictor.from_checkpoint(WEIGHTS / "made_videos_small.pt")
    videos = SomethingSomething(
        tmp_path, split="validation", num_frames=predictor.num_frames, size=predictor.size, views="centre"
    )
    assert videos.classes == predictor.classes
    right = [predictor.clip(item.video[0])[0].argmax() == item.y for item in videos]
    assert sum(map(int, right)) >= 16


@pytest.mark.skipif(not DATA, reason="RSTG_PYG_DATA does not name a folder with traffic/")
def test_traffic_weights_predict_speeds():
    """Better than every linear model of all detectors, by every eighth window of the tests."""
    task = traffic.tasks("unused", Path(DATA or "", "traffic"))["traffic"]()
    module = task.module("all-temp-stages")
    settings = load_model_weights(WEIGHTS / "traffic.pt", module.model)
    assert settings["row"] == "all-temp-stages" and settings["network"] == module.config["network"]
    batch = Batch.from_data_list([task.test[i] for i in range(0, len(task.test), 8)])
    with torch.no_grad():
        errors = task.measure(module.eval()(batch), batch)
    assert errors["mae_15"].mean() < 3.0 and errors["mae_60"].mean() < 4.2


def test_pedestrian_weights_are_better_than_constant_velocity():
    """At the two scenes where they are, of which they have seen nothing."""
    tasks = pedestrians.tasks("no/such/folder", source="files" if DATA else "simulated")
    for name in ("pedestrians-eth", "pedestrians-hotel"):
        task = tasks[name]()
        module = task.module("all-temp-stages")
        settings = load_model_weights(WEIGHTS / f"{task.name.replace('-', '_')}.pt", module.model)
        assert settings["network"] == module.config["network"] and settings["task"] == task.name
        if DATA:
            ade = evaluate(module, task.data(), "cpu").test["ade"]
            assert ade < 0.95 * task.naive()["constant velocity"]["ade"]
    if not DATA:
        pytest.skip("RSTG_PYG_DATA does not name a folder with pedestrians/")


@pytest.mark.parametrize(("kind", "right", "error"), [("springs", 0.95, 2e-4), ("charges", 0.75, 6e-2)])
def test_particle_weights_tell_who_acts_on_whom(kind, right, error, tmp_path):
    """50 simulations that it was not trained on."""
    model = PairForecaster(20, **OPTIONS[kind])
    settings = load_model_weights(WEIGHTS / f"particles_{kind}.pt", model)
    assert settings["task"] == f"particles-{kind}" and settings["row"] == "pairs"
    test = Particles(tmp_path, kind, "test", 50, scale=torch.tensor(settings["scale"]), log=False)
    batch = Batch.from_data_list(list(test))
    with torch.no_grad():
        assert model.measure(batch)["interactions"].mean() > right
        assert (model(batch.x, batch.edge_index) - batch.y)[:, -1].square().mean() < error
