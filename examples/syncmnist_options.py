"""The command line of ``syncmnist.py``: which model, which recipe, and what they are by default."""

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

from rstg_pyg.authors import AuthorsSyncMNISTNet
from rstg_pyg.models import PAPER_SIZE, ROWS, SMALL, Network, build_row, describe_rows
from rstg_pyg.training import Recipe, full_recipe, paper_recipe, small_recipe


class Preset(NamedTuple):
    """A network, a recipe and a number of digits that go together; without a network, the authors' own program."""

    network: Network | None
    recipe: Callable[[int], Recipe]
    num_digits: int


PRESETS = {
    "small": Preset(SMALL, small_recipe, 2),
    "full": Preset(PAPER_SIZE, full_recipe, 5),
    "paper": Preset(None, paper_recipe, 5),
}
RECIPE_OPTIONS = ("size", "test_clips", "val_clips", "augment", *TRAINING_OPTIONS)
NETWORK_OPTIONS = ("num_stages", "rnn", "norm", "residual", "readout", "input_norm")


def make_parser(description: str) -> argparse.ArgumentParser:
    parser = script_parser("syncmnist.py", description)
    parser.add_argument("--model", default="positional", metavar="NAME", help="row of the table (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="name the models, their sizes and the published figures")
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="small",
        help="small: learns in minutes on a CPU (default). full: the paper's size (512 filters, 64 x 64, 5 digits) for "
        "one GPU. paper: the authors' network and optimiser exactly, 600,000 clips; wants a GPU and days",
    )
    data = parser.add_argument_group("data")
    data.add_argument("--root", default="data/SyncMNIST", help="where MNIST is downloaded to (default: %(default)s)")
    data.add_argument("--mnist-dir", help="a folder that holds the four MNIST files (default: $RSTG_PYG_MNIST)")
    data.add_argument(
        "--digits",
        choices=["auto", "mnist", "sklearn"],
        default="auto",
        help="auto: MNIST, or scikit-learn's digits where MNIST cannot be had (default: %(default)s)",
    )
    data.add_argument(
        "--num-digits",
        type=int,
        help="digits per clip, 3 or 5 in the paper (default: 5; 2 for small, in half of whose clips no pair moves in "
        "step, so that classes alone do not tell)",
    )
    data.add_argument("--clips", type=int, help="number of training clips, all phases of the curriculum together")
    data.add_argument("--no-curriculum", action="store_true", help="the last phase's kind of clips from the start")
    data.add_argument("--size", type=int, help="height and width of the frames")
    data.add_argument("--test-clips", type=int, help="number of test clips")
    data.add_argument("--val-clips", type=int, help="number of validation clips, looked at after every chunk")
    data.add_argument(
        "--authors-test",
        nargs="?",
        const="authors",
        metavar="FILE",
        help="test on the authors' own 10,000 clips of 5SyncMNIST (downloaded, or from the file named)",
    )
    data.add_argument("--workers", type=int, default=1, help="processes that make clips on a CPU (default: 1)")
    network = parser.add_argument_group("network (default: the preset's)")
    network.add_argument("--num-stages", type=int, help="number K of space stages")
    network.add_argument("--rnn", choices=["lstm", "gru"], help="cell of the time stages")
    network.add_argument("--norm", choices=["layer_norm", "batch_norm", "none"], help="of every stage's input")
    network.add_argument("--no-residual", dest="residual", action="store_false", default=None, help="plain stages")
    network.add_argument("--readout", choices=["last", "mean"], help="over time")
    network.add_argument("--input-norm", choices=["layer_norm", "batch_norm", "none"], help="of the node features")
    training = add_training_options(parser)
    training.add_argument("--augment", choices=["none", "reverse"], help="reverse: run clips backwards at random")
    machine = add_machine_options(parser)
    machine.set_defaults(precision="32-true")
    results = add_result_options(parser)
    results.add_argument("--weights", type=Path, help="do not train: test and draw the model of this file")
    return parser


def parse_arguments(argv: list[str] | None, description: str) -> argparse.Namespace:
    """Read the command line; ``args.network``, ``args.recipe`` and ``args.out`` are what it amounts to."""
    parser = make_parser(description)
    args = parser.parse_args(argv)
    preset = PRESETS[args.preset]
    try:
        if args.model not in ROWS:
            build_row(args.model)
        args.network = choose_network(args, preset.network)
        args.recipe = choose_recipe(args, preset)
        if args.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda was asked for, but torch sees no CUDA device (try --device cpu)")
        if args.authors_test and (args.recipe.task.num_digits != 5 or args.digits == "sklearn"):
            raise ValueError("--authors-test holds clips of five MNIST digits (--num-digits 5)")
    except ValueError as error:
        parser.error(str(error))
    args.out = args.out or Path("runs") / f"syncmnist-{args.preset}-{args.model}"
    return args


def choose_network(args: argparse.Namespace, network: Network | None) -> Network | None:
    options = {name: None if value == "none" else value for name, value in chosen(args, NETWORK_OPTIONS).items()}
    if network is not None:
        return dataclasses.replace(network, **options)
    if options or args.model != "positional":
        raise ValueError("--preset paper is the authors' own network: it takes no --model and no network options")
    return None


def choose_recipe(args: argparse.Namespace, preset: Preset) -> Recipe:
    recipe = preset.recipe(preset.num_digits if args.num_digits is None else args.num_digits)
    options = chosen(args, RECIPE_OPTIONS)
    if args.no_curriculum:
        recipe = dataclasses.replace(recipe, phases=(dataclasses.replace(recipe.task, clips=recipe.clips),))
    recipe = dataclasses.replace(recipe, **options)
    return recipe if args.clips is None else recipe.with_clips(args.clips)


def make_model(args: argparse.Namespace) -> torch.nn.Module:
    return AuthorsSyncMNISTNet(filters=512) if args.network is None else build_row(args.model, args.network)


def list_models(network: Network) -> str:
    """The models as a table, at the sizes of a preset."""
    lines = [f"{'--model':<18}{'in the paper':<34}{'parameters':>12}{'3Sync %':>9}{'5Sync %':>9}"]
    for name, title, parameters, published in describe_rows(network):
        figures = "".join(f"{'-' if published[n] is None else published[n]:>9}" for n in (3, 5))
        lines.append(f"{name:<18}{title:<34}{parameters:>12,}{figures}")
    return "\n".join([*lines, "The figures are the published ones, of networks of --preset full's size."])
