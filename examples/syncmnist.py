"""Train a network on SyncMNIST: which two digits of a clip move in step?

Clips of several handwritten digits that wander over a black canvas; in most clips two of them make the same moves. The
network has to name that pair (46 classes: 45 pairs and "none"). Every row of the paper's table is a --model. Training
ends with the accuracy on test clips, beside what the paper reports, and pictures of what the graph looks at. A run that
was stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from math import comb
from pathlib import Path
from typing import NamedTuple

from run_command import (  # before torch
    NETWORK_CHOICES,
    add_machine_options,
    add_options,
    add_result_options,
    add_training_options,
    check_cuda,
    chosen,
    folder_of,
    prepare_machine,
    run_command,
    run_or_test,
    script_parser,
)

# isort: split
import torch
from torch import Tensor

from rstg_pyg.authors import AuthorsSyncMNISTNet
from rstg_pyg.datasets import NUM_CLASSES, SyncMNIST
from rstg_pyg.files import naming, replace_file
from rstg_pyg.models import PAPER_SIZE, ROWS, SMALL, Network, build_row, describe_rows
from rstg_pyg.training import (
    ClipClassifier,
    Recipe,
    RunResult,
    SyncMNISTData,
    full_recipe,
    paper_recipe,
    small_recipe,
)
from rstg_pyg.visualize import (
    PairAccuracy,
    animate_clips,
    digits_in_step,
    draw_clips,
    draw_pair_accuracy,
    explain_clips,
    pair_names,
)


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
NETWORK_OPTIONS = ("num_stages", "rnn", "chrono", "norm", "residual", "readout", "input_norm")


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
    add_options(data, Recipe, ["size", "test_clips", "val_clips", "delay", "num_frames"])
    data.add_argument(
        "--authors-test",
        nargs="?",
        const="authors",
        metavar="FILE",
        help="test on the authors' own 10,000 clips of 5SyncMNIST (downloaded, or from the file named)",
    )
    data.add_argument("--workers", type=int, default=1, help="processes that make clips on a CPU (default: 1)")
    network = parser.add_argument_group("network (default: the preset's)")
    add_options(network, Network, NETWORK_OPTIONS, NETWORK_CHOICES)
    add_training_options(parser, Recipe, ["augment"])
    add_machine_options(parser).set_defaults(precision="32-true")
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
        check_cuda(args)
        if args.authors_test and (args.recipe.task.num_digits != 5 or args.digits == "sklearn"):
            raise ValueError("--authors-test holds clips of five MNIST digits (--num-digits 5)")
    except ValueError as error:
        parser.error(str(error))
    args.out = args.out or folder_of(args.weights, f"syncmnist-{args.preset}-{args.model}")
    return args


def choose_network(args: argparse.Namespace, network: Network | None) -> Network | None:
    options = chosen(args, Network)
    if network is not None:
        return replace(network, **options)
    if options or args.model != "positional":
        raise ValueError("--preset paper is the authors' own network: it takes no --model and no network options")
    return None


def choose_recipe(args: argparse.Namespace, preset: Preset) -> Recipe:
    recipe = preset.recipe(preset.num_digits if args.num_digits is None else args.num_digits)
    if args.no_curriculum:
        recipe = replace(recipe, phases=(replace(recipe.task, clips=recipe.clips),))
    recipe = replace(recipe, **chosen(args, Recipe))
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


def draw_pictures(
    model: torch.nn.Module,
    clips: SyncMNIST,
    confusion: Tensor,
    folder: Path,
    title: str,
    raw_pixels: bool = False,
    count: int = 4,
) -> list[Path]:
    """Save a still and an animation of the first test clips, and the accuracy by pair."""
    items = [clips[i] for i in range(min(count, len(clips)))]
    video = torch.cat([item.video for item in items])
    seen = explain_clips(model, video.float() if raw_pixels else video, every_frame=True)
    shown = {
        "marks": torch.cat([digits_in_step(item.path, item.sync, clips.size) for item in items]),
        "labels": [int(item.y) for item in items],
        "classes": pair_names(),
        "title": title,
    }
    paths = [folder / name for name in ("clips.png", "clips.gif", "pairs.png")]
    draw_clips(seen.video, seen.graph, seen.alpha, probabilities=seen.probabilities, **shown).savefig(paths[0], dpi=120)
    animate_clips(seen.video, seen.graph, seen.alpha, paths[1], probabilities=seen.frame_probabilities, **shown)
    pairs = PairAccuracy.of_counts(confusion.sum(1), confusion.diagonal())
    draw_pair_accuracy(pairs, title).savefig(paths[2], dpi=120)
    return paths


def report(recipe: Recipe, result: RunResult, test_clips: int, model: str, official: bool) -> list[str]:
    """The accuracy, beside what it should be held against."""
    task = recipe.task
    in_step = 1 - task.no_sync_probability
    digits_known = 100 * max(task.no_sync_probability, in_step / comb(task.num_digits, 2))
    source = "of the authors' test clips" if official else "test clips"
    lines = [
        f"test accuracy on {test_clips:,} {source}: {100 * result.test_accuracy:.1f} %",
        f"  a guess among {NUM_CLASSES} classes: {100 / NUM_CLASSES:.1f} %",
        f"  knowing which digits are there, but not which move together: {digits_known:.1f} %",
    ]
    for num_digits, published in ROWS[model].published.items():
        if published is not None:
            lines.append(f"  published for {num_digits}SyncMNIST (MNIST, full size): {published} %")
    return lines


def main(argv: list[str] | None = None) -> dict[str, float]:
    args = parse_arguments(argv, __doc__)
    if args.list:
        print(list_models(args.network or PAPER_SIZE))
        return {}
    recipe: Recipe = args.recipe
    prepare_machine(args)

    data = SyncMNISTData(
        args.root, recipe, args.seed, args.digits, args.mnist_dir, args.workers, test_paths=args.authors_test
    )
    model = make_model(args)
    config = {
        "model": args.model,
        "network": "authors" if args.network is None else asdict(args.network),
        "seed": args.seed,
        "digits": data.source,
        "precision": args.precision,
    }
    module = ClipClassifier(model, recipe, config)
    if args.compile:
        # The graph gains nothing: its kernels stay what they are.
        getattr(model, "backbone", model).compile()
    task = recipe.task
    print(
        f"{args.model} on {task.num_digits}SyncMNIST with digits of {data.source}: "
        + (f"{recipe.clips:,} training clips in {len(recipe.phases)} phase(s), " if args.weights is None else "")
        + f"{sum(p.numel() for p in model.parameters()):,} parameters"
    )
    ended = run_or_test(args, module, data)
    if ended is None:
        return {}
    result, held = ended
    lines = report(recipe, result, len(data.test_clips), args.model, args.authors_test is not None)
    if args.weights is None:
        lines.append(f"trained in {result.seconds / 60:.1f} min, {result.clips / result.seconds:.0f} clips/s")
        lines.append(f"weights: {args.out / 'weights.pt'}")
    title = f"{args.model} on {task.num_digits}SyncMNIST, test accuracy {100 * result.test_accuracy:.1f} %"
    with naming(args.out):
        pictures = draw_pictures(model, data.test_clips, result.confusion, args.out, title, recipe.raw_pixels)
    lines.append(f"pictures: {', '.join(map(str, pictures))}")
    print("\n".join(lines))
    accuracy = {"test_accuracy": round(100 * result.test_accuracy, 2)}
    replace_file(args.out / "result.json", f"{json.dumps({**accuracy, **held})}\n".encode())
    return accuracy


if __name__ == "__main__":
    sys.exit(run_command("syncmnist.py", main))
