"""The command line of ``something_something.py``: which network, which recipe, and what they are by default."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from run_options import (
    TRAINING_OPTIONS,
    add_machine_options,
    add_result_options,
    add_training_options,
    chosen,
    script_parser,
)

from rstg_pyg.arguments import check_name, check_positive
from rstg_pyg.datasets.video import FLIPS, VIEWS, read_annotations
from rstg_pyg.models import VIDEO_PAPER_SIZE, VIDEO_ROWS, VIDEO_SMALL, VideoNetwork, describe_video_rows
from rstg_pyg.predict.checkpoint import from_settings, read_settings
from rstg_pyg.training import VideoRecipe, full_video_recipe, small_video_recipe

MADE_CLIPS = 2_400


class Preset(NamedTuple):
    """A network, a recipe and a precision that go together."""

    network: VideoNetwork
    recipe: Callable[[], VideoRecipe]
    precision: str


PRESETS = {
    "small": Preset(VIDEO_SMALL, small_video_recipe, "32-true"),
    "full": Preset(VIDEO_PAPER_SIZE, full_video_recipe, "bf16-mixed"),
}
RECIPE_OPTIONS = (
    "num_frames",
    "size",
    "test_size",
    "scale",
    "colour_jitter",
    "flip",
    "accumulate",
    "val_clips",
    "test_clips",
    *TRAINING_OPTIONS,
)
NETWORK_OPTIONS = (
    "depth",
    "width",
    "dropout",
    "frozen_bn",
    "channels",
    "num_stages",
    "rnn",
    "norm",
    "residual",
    "readout",
    "input_norm",
    "checkpoint_graph",
)


def make_parser(description: str) -> argparse.ArgumentParser:
    parser = script_parser("something_something.py", description)
    parser.add_argument("--model", metavar="NAME", help="row of the table (default: c2d+rstg:vec)")
    parser.add_argument("--list", action="store_true", help="name the networks, their sizes and the published figures")
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="small",
        help="small: learns made videos in minutes on a CPU (default). full: the paper's size (ResNet-50, 32 frames of "
        "224 x 224, bf16) for one GPU",
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="do not train: test the network of this weights.pt, as it is there"
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--root", type=Path, default=Path("data/something-something"), help="the data set (default: %(default)s)"
    )
    data.add_argument(
        "--make",
        type=int,
        nargs="?",
        const=MADE_CLIPS,
        metavar="N",
        help="where --root holds none, make a small data set of N training videos first (default: %(const)s), of "
        "classes that only motion tells apart",
    )
    data.add_argument("--video-dir", type=Path, help="its folder of videos, if that lies elsewhere")
    data.add_argument("--version", choices=["v1", "v2"], help="of the data set (default: v1)")
    amount = data.add_mutually_exclusive_group()
    amount.add_argument("--clips", type=int, help="number of training clips, all epochs together")
    amount.add_argument("--epochs", type=int, help="the same in rounds through the training videos")
    data.add_argument("--num-frames", type=int, help="frames of a clip, even")
    data.add_argument("--size", type=int, help="height and width of training clips")
    data.add_argument("--test-size", type=int, help="height and width of the clips of validation and tests")
    data.add_argument(
        "--scale", type=float, nargs=2, metavar=("LOW", "HIGH"), help="shorter side of training videos, by the size"
    )
    data.add_argument("--colour-jitter", type=float, metavar="X", help="change of colours in training, 0 to 1")
    data.add_argument("--flip", choices=FLIPS, help="which training clips are flipped left to right")
    data.add_argument("--val-clips", type=int, help="number of validation videos, looked at after every chunk")
    data.add_argument("--test-clips", type=int, help="number of test videos (default: the whole validation split)")
    data.add_argument(
        "--views",
        choices=[name for name, view in VIEWS.items() if not view.random],
        default="centre",
        help="clips per test video, whose logits are averaged: centre (1) or 22 (default: %(default)s)",
    )
    data.add_argument("--max-damaged", type=int, default=10, help="videos per split that may be damaged or missing")
    data.add_argument("--workers", type=int, default=1, help="processes that read videos (default: %(default)s)")
    network = parser.add_argument_group("network (default: the preset's)")
    network.add_argument("--depth", type=int, choices=[18, 50], help="of the ResNet")
    network.add_argument("--width", type=int, help="channels of the ResNet's first layer")
    network.add_argument("--dropout", type=float, help="of the clip's vector")
    network.add_argument(
        "--frozen-bn", action="store_true", default=None, help="keep the statistics of --image-weights"
    )
    network.add_argument("--channels", type=int, help="size of the graph's nodes")
    network.add_argument("--num-stages", type=int, help="number K of space stages")
    network.add_argument("--rnn", choices=["lstm", "gru"], help="cell of the time stages")
    network.add_argument("--norm", choices=["layer_norm", "batch_norm", "none"], help="of every stage's input")
    network.add_argument("--no-residual", dest="residual", action="store_false", default=None, help="plain stages")
    network.add_argument("--readout", choices=["last", "mean"], help="over time")
    network.add_argument("--input-norm", choices=["layer_norm", "batch_norm", "none"], help="of the graph's input")
    network.add_argument(
        "--image-weights",
        type=Path,
        metavar="FILE",
        help="start from a ResNet for images, a state_dict as torchvision's",
    )
    training = add_training_options(parser)
    training.add_argument("--accumulate", type=int, help="batches per step of the optimiser")
    machine = add_machine_options(parser)
    machine.add_argument(
        "--checkpoint-graph", action="store_true", default=None, help="compute graphs twice, to need less memory"
    )
    add_result_options(parser)
    return parser


def parse_arguments(argv: list[str] | None, description: str) -> argparse.Namespace:
    """Read the command line; ``args.network``, ``args.recipe``, ``args.settings`` (those of a file of weights) and the
    options without a default of their own are what it amounts to."""
    parser = make_parser(description)
    args = parser.parse_args(argv)
    preset = PRESETS[args.preset]
    try:
        args.settings = None if args.weights is None else read_settings(args.weights)
        held = args.settings or {}
        args.model = args.model or held.get("model", "c2d+rstg:vec")
        check_name("--model", args.model, VIDEO_ROWS)
        if args.model != held.get("model", args.model):
            raise ValueError(f"{args.weights} holds the network {held['model']}, not {args.model}")
        args.version = args.version or held.get("version", "v1")
        args.precision = args.precision or held.get("precision", preset.precision)
        network = from_settings(args.weights, VideoNetwork, held, "network") if held else preset.network
        options = chosen(args, NETWORK_OPTIONS)
        options = {name: None if value == "none" else value for name, value in options.items()}
        args.network = dataclasses.replace(network, **options)
        recipe = from_settings(args.weights, VideoRecipe, held, "recipe") if held else preset.recipe()
        args.recipe = choose_recipe(args, recipe)
        if args.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda was asked for, but torch sees no CUDA device (try --device cpu)")
        if args.make is not None:
            check_positive(**{"--make": args.make})
        if args.workers < 0:
            raise ValueError(f"expected --workers to be at least 0, got {args.workers}")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if args.out is None:
        name = f"something-something-{args.preset}-{args.model.replace(':', '-')}"
        args.out = args.weights.parent / f"views-{args.views}" if args.weights else Path("runs") / name
    return args


def choose_recipe(args: argparse.Namespace, recipe: VideoRecipe) -> VideoRecipe:
    options = chosen(args, RECIPE_OPTIONS)
    if args.epochs is not None:
        check_positive(epochs=args.epochs)
        options["clips"] = args.epochs * number_of_videos(args)
    if args.clips is not None:
        options["clips"] = args.clips
    # A short run is one chunk.
    if "clips" in options and "chunk" not in options and isinstance(options["clips"], int):
        options["chunk"] = max(1, min(recipe.chunk, options["clips"]))
    return dataclasses.replace(recipe, **options)


def number_of_videos(args: argparse.Namespace) -> int:
    """How many training videos there are, or will be."""
    try:
        return len(read_annotations(args.root, args.version, "train").labels)
    except FileNotFoundError:
        if args.make is None:
            raise
        return args.make


def list_networks(network: VideoNetwork) -> str:
    """The networks as a table, at the sizes of a preset."""
    lines = [f"{'--model':<18}{'in the paper':<20}{'parameters':>12}{'top-1 %':>9}{'top-5 %':>9}"]
    for name, title, parameters, published in describe_video_rows(network):
        lines.append(f"{name:<18}{title:<20}{parameters:>12,}{published[1]:>9}{published[5]:>9}")
    return "\n".join(
        [*lines, "The figures are the published ones on version 1, of networks of --preset full's size, from Kinetics."]
    )
