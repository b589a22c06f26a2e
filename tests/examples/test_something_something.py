"""The example for videos from its command line: trains, goes on, lists its networks, tests weights."""

import json
from dataclasses import asdict
from functools import partial

import pytest
import torch
from cases import case
from example_scripts import load_example
from small_runs import KillAt, run_until_killed
from small_videos import VALIDATION, damage, make_small_videos

from rstg_pyg.datasets.video import DamagedVideoWarning, class_of_template
from rstg_pyg.datasets.video.moving_shapes import TEMPLATES
from rstg_pyg.models import VIDEO_PAPER_SIZE, VIDEO_ROWS, VIDEO_SMALL, VideoNetwork, VideoResNet
from rstg_pyg.training import VideoRecipe, full_video_recipe, small_video_recipe
from rstg_pyg.training.weights import read_file

CLASSES = sorted(map(class_of_template, TEMPLATES))
TINY = [
    *["--clips", "12", "--chunk", "6", "--batch-size", "4", "--num-frames", "4", "--size", "32", "--val-clips", "3"],
    *["--width", "4", "--channels", "8", "--workers", "0", "--device", "cpu"],
]


@pytest.fixture(scope="module")
def example():
    return load_example("something_something")


@pytest.fixture
def parse(example):
    return lambda *argv: example.parse_arguments(list(argv), "")


@pytest.fixture
def arguments(root, tmp_path):
    return [*TINY, "--root", str(root), "--out", str(tmp_path / "run")]


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def test_one_command_makes_a_data_set_trains_and_tests(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(example, "MADE_HEIGHT", 32)
    arguments = [*TINY, "--root", str(tmp_path / "made"), "--out", str(tmp_path / "run"), "--make", "6"]
    assert 0 <= example.main(arguments)["top1"] <= 100
    assert "making 6 training videos in" in capsys.readouterr().out
    assert len(list((tmp_path / "made" / "20bn-something-something-v1").iterdir())) == 6 + 1
    # What is there is taken.
    example.main([*arguments, "--fresh"])
    assert "making" not in capsys.readouterr().out


def test_epochs_of_a_data_set_that_is_not_made_yet(parse, tmp_path):
    assert parse("--root", str(tmp_path), "--make", "50", "--epochs", "3").recipe.clips == 150
    assert parse("--make").make == 2_400


def test_it_trains_stops_goes_on_and_tests_by_22_views(example, arguments, root, tmp_path, capsys):
    assert example.main([*arguments, "--max-minutes", "1e-9"]) == {}
    text = capsys.readouterr().out
    assert "c2d+rstg:vec on Something-Something v1: 12 training clips of 10 videos of 6 classes" in text
    assert "stopped after 6 of 12 clips; the same command goes on from there" in text
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} >= {"last.ckpt", "metrics.csv"}
    assert not (folder / "weights.pt").exists()

    trained = example.main(arguments)
    text = capsys.readouterr().out
    assert f"going on from {folder / 'last.ckpt'}" in text
    assert f"accuracy on {VALIDATION} validation videos by the centre clip: top-1 {trained['top1']:.1f} %" in text
    assert "a guess among 6 classes: 16.7 %" in text
    assert "published for version 1, full size: top-1 42.8 %, top-5 73.6 %" in text
    held = result_of(folder)
    assert (held["top1"], held["views"], held["clips"]) == (trained["top1"], "centre", 12)
    assert held["parameters"] > 10_000
    assert sum(figures["videos"] for figures in held["by_class"].values()) == held["test_videos"] == VALIDATION
    assert list(held["by_class"]) == CLASSES
    assert (folder / "metrics.csv").read_text().count("\n") == 3

    tested = example.main(["--root", str(root), "--weights", str(folder / "weights.pt"), "--workers", "0"])
    assert {name: tested[name] for name in ("top1", "top5", "by_class")} == {
        name: trained[name] for name in ("top1", "top5", "by_class")
    }
    views = [*("--weights", str(folder / "weights.pt")), "--views", "22", "--root", str(root), "--workers", "0"]
    many = example.main(views)
    assert f"accuracy on {VALIDATION} validation videos by 22 clips" in capsys.readouterr().out
    assert result_of(folder / "views-22")["top5"] == many["top5"]
    assert result_of(folder)["views"] == "centre"
    assert not (folder / "views-22" / "last.ckpt").exists()


def test_weights_say_what_they_are(example, arguments, tmp_path):
    example.main([*arguments, "--model", "i3d+rstg:res3", "--seed", "3", "--accumulate", "2", "--checkpoint-graph"])
    config = read_file(tmp_path / "run" / "weights.pt")["config"]
    network, recipe = VideoNetwork(**config.pop("network")), VideoRecipe(**config.pop("recipe"))
    assert (network.width, network.channels, network.num_classes, network.checkpoint_graph) == (4, 8, 6, True)
    assert (recipe.clips, recipe.batch_size, recipe.accumulate) == (12, 4, 2)
    assert config == {
        "task": "something-something",
        "model": "i3d+rstg:res3",
        "classes": CLASSES,
        "num_frames": 4,
        "size": 32,
        "version": "v1",
        "seed": 3,
        "precision": "32-true",
    }


def test_a_run_that_was_killed_goes_on_to_where_an_unbroken_one_ends(example, arguments, tmp_path, one_thread):
    whole = example.main([*arguments[:-1], str(tmp_path / "whole")])

    def begin():
        example.run_trainer = partial(example.run_trainer, callbacks=[KillAt(3)])
        example.main(arguments)

    run_until_killed(begin)
    again = example.main(arguments)
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}
    one, two = (read_file(tmp_path / name / "weights.pt")["state_dict"] for name in ("whole", "run"))
    torch.testing.assert_close(two, one, rtol=0, atol=0)


def test_damaged_videos_are_named_at_the_end(example, arguments, tmp_path, capsys):
    root = make_small_videos(tmp_path / "videos")
    damage(root, 13)
    with pytest.warns(DamagedVideoWarning, match="video 13 is skipped"):
        result = example.main([*arguments, "--root", str(root), "--clips", "4", "--val-clips", "7"])
    assert result["test_videos"] == VALIDATION - 1
    assert result["damaged"] == {"train": [], "validation": ["13 (unreadable)"]}
    assert "damaged validation videos, which do not count: 13 (unreadable)" in capsys.readouterr().out


def test_every_row_runs(example, arguments):
    for model in list(VIDEO_ROWS):
        with case(model):
            assert 0 <= example.main([*arguments, "--clips", "4", "--model", model, "--fresh"])["top1"] <= 100


def test_bfloat16_trains(example, arguments):
    assert 0 <= example.main([*arguments, "--clips", "4", "--precision", "bf16-mixed"])["top1"] <= 100


def test_a_network_begins_with_the_weights_of_one_for_images(example, parse, tmp_path):
    torch.manual_seed(5)
    named = {}
    for name, value in VideoResNet("c2d", depth=18, width=4).state_dict().items():
        if name.startswith(("conv1.", "res")):
            named[to_torchvision(name)] = value.squeeze(2) if value.dim() == 5 else value
    path = tmp_path / "images.pth"
    torch.save(named, path)
    args = parse(*TINY, "--image-weights", str(path))
    model = example.make_model(args, 6)
    assert torch.equal(model.conv1.conv.weight.squeeze(2), named["conv1.weight"])
    assert model.classifier.out_features == args.network.num_classes == 6


def to_torchvision(name):
    """The name in a ResNet for images of a weight of C2D."""
    if name.startswith("conv1."):
        return name.replace("conv1.conv", "conv1").replace("conv1.norm", "bn1")
    stage, block, layer, kind, what = name.split(".")
    if layer == "shortcut":
        place = f"downsample.{int(kind == 'norm')}"
    else:
        place = f"{'conv' if kind == 'conv' else 'bn'}{'abc'.index(layer) + 1}"
    return f"layer{int(stage[3:]) - 1}.{block}.{place}.{what}"


def test_the_list_names_every_row_with_its_size_and_published_figures(example, capsys):
    assert example.main(["--list"]) == {}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(VIDEO_ROWS)
    assert lines[1].split()[1:] == ["C2D", "724,542", "31.7", "64.7"]
    assert lines[-2].split()[-2:] == ["49.2", "78.8"]


def test_presets(parse):
    small, full = parse(), parse("--preset", "full")
    assert (small.network, small.recipe, small.precision) == (VIDEO_SMALL, small_video_recipe(), "32-true")
    assert (full.network, full.recipe, full.precision) == (VIDEO_PAPER_SIZE, full_video_recipe(), "bf16-mixed")
    assert str(full.out) == "runs/something-something-full-c2d+rstg-vec"


def test_options_reach_network_and_recipe(parse, root):
    args = parse(
        *["--norm", "none", "--no-residual", "--num-stages", "2", "--rnn", "lstm", "--frozen-bn", "--depth", "50"],
        *["--optimizer", "adamw", "--lr", "0.001", "--gradient-clip", "0", "--scale", "1.1", "1.4", "--flip", "swap"],
        *["--epochs", "7", "--root", str(root), "--batch-size", "8", "--test-size", "48", "--colour-jitter", "0"],
    )
    assert (args.network.norm, args.network.residual, args.network.num_stages) == (None, False, 2)
    assert (args.network.rnn, args.network.frozen_bn, args.network.depth) == ("lstm", True, 50)
    recipe = asdict(args.recipe)
    assert (recipe["clips"], recipe["chunk"], recipe["gradient_clip"], recipe["scale"]) == (70, 70, None, (1.1, 1.4))
    assert (recipe["flip"], recipe["test_size"], recipe["colour_jitter"], recipe["lr"]) == ("swap", 48, 0.0, 0.001)
