"""Train a network on Something-Something: what does the hand do with the thing?

Classes such as "moving something up" and "moving something down", which only motion tells apart. Every row of the
paper's table is a --model (see --list). Training ends with the accuracy on the validation videos, in one clip each or
22, beside what the paper reports. A run that was stopped goes on where it was when the same command is given again.

From a clean clone, this makes a small data set of the same form, trains on it and evaluates:

  pip install -e ".[examples,video]"
  python examples/something_something.py --root data/made --make --model c2d+rstg:vec --out runs/made

What was trained, once more by 22 clips of each video:

  python examples/something_something.py --root data/made --weights runs/made/weights.pt --views 22

The published videos, in the folder that --root names, and a GPU:

  python examples/something_something.py --root data/something --preset full --model i3d+rstg:res3-4 --workers 12
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
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
    goes_on,
    prepare_machine,
    run_command,
    script_parser,
)

# isort: split
import torch
from torch import Tensor

from rstg_pyg.arguments import check_name, check_positive
from rstg_pyg.blocks.insertion import dry_run
from rstg_pyg.datasets.made_videos import make_videos
from rstg_pyg.datasets.video import VIEWS, read_annotations
from rstg_pyg.files import FileError, open_file, reading, replace_file
from rstg_pyg.models import (
    VIDEO_PAPER_SIZE,
    VIDEO_ROWS,
    VIDEO_SMALL,
    VideoNetwork,
    VideoResNet,
    build_video_row,
    describe_video_rows,
    load_image_weights,
)
from rstg_pyg.predict.predictor import TASK, check_task
from rstg_pyg.training import (
    CheckpointError,
    ClipClassifier,
    RunResult,
    VideoData,
    VideoRecipe,
    evaluate,
    full_video_recipe,
    open_run,
    run_trainer,
    save_weights,
    small_video_recipe,
    train_and_test,
)
from rstg_pyg.training.run import claim_folder
from rstg_pyg.training.video_data import describe_damage
from rstg_pyg.training.weights import SavedWeights

MADE_CLIPS, MADE_HEIGHT = 2_400, 72
LISTED = 12
"""How many classes are printed one by one."""


class Preset(NamedTuple):
    """A network, a recipe and a precision that go together."""

    network: VideoNetwork
    recipe: Callable[[], VideoRecipe]
    precision: str


PRESETS = {
    "small": Preset(VIDEO_SMALL, small_video_recipe, "32-true"),
    "full": Preset(VIDEO_PAPER_SIZE, full_video_recipe, "bf16-mixed"),
}
NETWORK_OPTIONS = ["depth", "width", "dropout", "frozen_bn", "channels", "num_stages", "rnn", "norm", "residual"]
NETWORK_OPTIONS += ["readout", "input_norm"]


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
    sizes = ["num_frames", "size", "test_size", "scale", "colour_jitter", "flip", "val_clips", "test_clips"]
    add_options(data, VideoRecipe, sizes)
    data.add_argument(
        "--views",
        choices=[name for name, view in VIEWS.items() if not view.random],
        default="centre",
        help="clips per test video, whose logits are averaged: centre (1) or 22 (default: %(default)s)",
    )
    data.add_argument("--max-damaged", type=int, default=10, help="videos per split that may be damaged or missing")
    data.add_argument("--workers", type=int, default=1, help="processes that read videos (default: %(default)s)")
    network = parser.add_argument_group("network (default: the preset's)")
    add_options(network, VideoNetwork, NETWORK_OPTIONS, {**NETWORK_CHOICES, "depth": [18, 50]})
    network.add_argument(
        "--image-weights",
        type=Path,
        metavar="FILE",
        help="start from a ResNet for images, a state_dict as torchvision's",
    )
    add_training_options(parser, VideoRecipe, ["accumulate"])
    add_options(add_machine_options(parser), VideoNetwork, ["checkpoint_graph"])
    add_result_options(parser)
    return parser


def parse_arguments(argv: list[str] | None, description: str) -> argparse.Namespace:
    """Read the command line; ``args.network``, ``args.recipe``, ``args.saved`` (what a file of weights holds) and the
    options without a default of their own are what it amounts to."""
    parser = make_parser(description)
    args = parser.parse_args(argv)
    preset = PRESETS[args.preset]
    try:
        args.saved = saved = SavedWeights(args.weights) if args.weights else None
        held = check_task(saved) if saved else {}
        args.model = args.model or held.get("model", "c2d+rstg:vec")
        check_name("--model", args.model, VIDEO_ROWS)
        if args.model != held.get("model", args.model):
            raise ValueError(f"{args.weights} holds the network {held['model']}, not {args.model}")
        args.version = args.version or held.get("version", "v1")
        args.precision = args.precision or held.get("precision", preset.precision)
        network = saved.made("network", VideoNetwork) if saved else preset.network
        args.network = replace(network, **chosen(args, VideoNetwork))
        recipe = saved.made("recipe", VideoRecipe) if saved else preset.recipe()
        args.recipe = choose_recipe(args, recipe)
        check_cuda(args)
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
    options = chosen(args, VideoRecipe)
    if args.epochs is not None:
        check_positive(epochs=args.epochs)
        options["clips"] = args.epochs * number_of_videos(args)
    # A short run is one chunk.
    if "clips" in options and "chunk" not in options and isinstance(options["clips"], int):
        options["chunk"] = max(1, min(recipe.chunk, options["clips"]))
    return replace(recipe, **options)


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


def open_videos(args: argparse.Namespace) -> VideoData:
    """The data set; where there is none, make a small one if that was asked for, or say how to get one."""
    if args.make is not None:
        try:
            read_annotations(args.root, args.version, "train")
        except FileNotFoundError:
            print(f"making {args.make:,} training videos in {args.root}")
            make_videos(args.root, args.version, args.make, height=MADE_HEIGHT)
    try:
        return VideoData(
            args.root,
            args.recipe,
            args.version,
            args.seed,
            args.views,
            args.workers,
            args.max_damaged,
            args.video_dir,
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; --make makes a small data set of this form there") from None


def read_image_weights(path: Path) -> dict[str, Tensor]:
    """A ``state_dict`` as torchvision saves it, or one within a dict."""
    with reading(path, FileError, "a state_dict of tensors"), open_file(path) as file:
        held = torch.load(file, map_location="cpu", weights_only=True)
    for name in ("state_dict", "model"):
        held = held.get(name, held) if isinstance(held, dict) else held
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise FileError(f"expected {path} to be a state_dict of tensors, got a {type(held).__name__}")
    return held


def make_model(args: argparse.Namespace, num_classes: int) -> VideoResNet:
    """The network, run once, so that sizes that do not fit are met before anything is written."""
    args.network = replace(args.network, num_classes=num_classes)
    model = build_video_row(args.model, args.network)
    if args.image_weights is not None:
        load_image_weights(model, read_image_weights(args.image_weights))
    for size in {args.recipe.size, args.recipe.clip_size}:
        dry_run(model, {"res5": model.res5}, torch.zeros(1, 3, 4, size, size, dtype=torch.uint8))
    return model


def by_class(confusion: Tensor, classes: tuple[str, ...]) -> dict[str, dict]:
    """Number of test videos and accuracy (%) of every class that has some."""
    counts, right = confusion.sum(1).tolist(), confusion.diagonal().tolist()
    figures = zip(classes, counts, right, strict=True)
    return {name: {"videos": n, "accuracy": round(100 * hits / n, 2)} for name, n, hits in figures if n}


def report(args: argparse.Namespace, held: dict, num_classes: int) -> list[str]:
    """The accuracy, beside what it should be held against."""
    views = "the centre clip" if args.views == "centre" else f"{args.views} clips"
    lines = [
        f"accuracy on {held['test_videos']:,} validation videos by {views}: top-1 {held['top1']:.1f} %, "
        f"top-5 {held['top5']:.1f} %",
        f"  a guess among {num_classes} classes: {100 / num_classes:.1f} %",
    ]
    published = VIDEO_ROWS[args.model].published
    lines.append(f"  published for version 1, full size: top-1 {published[1]} %, top-5 {published[5]} %")
    ranked = sorted(held["by_class"].items(), key=lambda item: item[1]["accuracy"])
    if len(ranked) > LISTED:
        ranked = ranked[: LISTED // 2] + ranked[-LISTED // 2 :]
    lines += [f"  {figures['accuracy']:5.1f} % of {figures['videos']:,}: {name}" for name, figures in ranked]
    return lines


def train(args: argparse.Namespace, module: ClipClassifier, data: VideoData) -> RunResult | None:
    """Train, go on or find a run at its end, then test; None where that is another process's to report."""
    recipe = args.recipe
    videos = len(data.train_clips.dataset)
    trainer = run_trainer(args.out, recipe, args.device, args.devices, args.num_nodes, args.precision, args.max_minutes)
    checkpoint = open_run(args.out, module, args.fresh)
    if args.compile:
        module.model.compile()
    if trainer.is_global_zero:
        parameters = sum(p.numel() for p in module.model.parameters())
        print(
            f"{args.model} on Something-Something {args.version}: {recipe.clips:,} training clips of {videos:,} videos "
            f"of {len(data.classes)} classes, {parameters:,} parameters"
        )
        if checkpoint is not None:
            print(f"going on from {checkpoint} (--fresh to start anew)")
    result = train_and_test(module, data, trainer, checkpoint)
    args.damaged = data.damaged()
    return result if trainer.is_global_zero else None


def test_weights(args: argparse.Namespace, module: ClipClassifier, data: VideoData) -> RunResult:
    """Test the weights of a file."""
    classes = args.saved.config["classes"]
    if list(data.classes) != classes:
        count = len(classes)
        raise CheckpointError(f"expected videos of the {count} classes of {args.weights}, got others in {args.root}")
    args.saved.put_into(module.model)
    claim_folder(args.out)
    if args.compile:
        module.model.compile()
    result = evaluate(module, data, args.device, args.precision)
    args.damaged = data.damaged()
    return result


def conclude(args: argparse.Namespace, module: ClipClassifier, data: VideoData, result: RunResult) -> dict:
    """Write what came of a run to ``result.json`` and to the screen."""
    held = {
        "top1": round(100 * result.test_accuracy, 2),
        "top5": round(100 * result.top5_accuracy, 2),
        "val_accuracy": None if result.val_accuracy is None else round(100 * result.val_accuracy, 2),
        "views": args.views,
        "test_videos": int(result.confusion.sum()),
        "clips": result.clips,
        "seconds": round(result.seconds, 1),
        "parameters": sum(p.numel() for p in module.model.parameters()),
        "by_class": by_class(result.confusion, data.classes),
        "damaged": args.damaged,
    }
    lines = report(args, held, len(data.classes))
    if args.weights is None:
        save_weights(module.model, args.out / "weights.pt", module.config)
        lines.append(f"trained in {result.seconds / 60:.1f} min, {result.clips / result.seconds:.1f} clips/s")
        lines.append(f"weights: {args.out / 'weights.pt'}")
    replace_file(args.out / "result.json", (json.dumps({**held, **module.config}, indent=1) + "\n").encode())
    print("\n".join([*lines, *describe_damage(args.damaged), f"figures: {args.out / 'result.json'}"]))
    return held


def main(argv: list[str] | None = None) -> dict:
    args = parse_arguments(argv, __doc__)
    if args.list:
        print(list_networks(args.network))
        return {}
    prepare_machine(args)

    data = open_videos(args)
    model = make_model(args, len(data.classes))
    config = {
        "task": TASK,
        "model": args.model,
        "network": asdict(args.network),
        "classes": list(data.classes),
        "num_frames": args.recipe.num_frames,
        "size": args.recipe.clip_size,
        "version": args.version,
        "seed": args.seed,
        "precision": args.precision,
    }
    module = ClipClassifier(model, args.recipe, config)
    result = (train if args.weights is None else test_weights)(args, module, data)
    if result is None:
        return {}
    if not result.finished:
        print(f"stopped after {result.clips:,} of {args.recipe.clips:,} clips; {goes_on(args.fresh)} from there")
        return {}
    return conclude(args, module, data, result)


if __name__ == "__main__":
    sys.exit(run_command("something_something.py", main))
