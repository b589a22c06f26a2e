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
from dataclasses import asdict, replace
from pathlib import Path

from run_command import goes_on, prepare_machine, run_command  # before torch

# isort: split
import torch
from something_something_options import list_networks, parse_arguments
from torch import Tensor

from rstg_pyg.blocks.dry_run import dry_run
from rstg_pyg.datasets.made_videos import make_videos
from rstg_pyg.datasets.video import read_annotations
from rstg_pyg.files import FileError, open_file, reading
from rstg_pyg.models import VIDEO_ROWS, VideoResNet, build_video_row, load_image_weights
from rstg_pyg.predict.checkpoint import TASK
from rstg_pyg.training import (
    CheckpointError,
    ClipClassifier,
    RunResult,
    VideoStream,
    evaluate,
    load_model_weights,
    open_run,
    run_trainer,
    save_weights,
    train_and_test,
)
from rstg_pyg.training.replace_file import replace_file
from rstg_pyg.training.run import claim_folder
from rstg_pyg.training.video_stream import describe_damage

MADE_HEIGHT = 72
LISTED = 12
"""How many classes are printed one by one."""


def open_videos(args: argparse.Namespace) -> VideoStream:
    """The data set; where there is none, make a small one if that was asked for, or say how to get one."""
    if args.make is not None:
        try:
            read_annotations(args.root, args.version, "train")
        except FileNotFoundError:
            print(f"making {args.make:,} training videos in {args.root}")
            make_videos(args.root, args.version, args.make, height=MADE_HEIGHT)
    try:
        return VideoStream(
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


def train(args: argparse.Namespace, module: ClipClassifier, stream: VideoStream) -> RunResult | None:
    """Train, go on or find a run at its end, then test; None where that is another process's to report."""
    recipe = args.recipe
    videos = len(stream.train_clips.dataset)
    trainer = run_trainer(args.out, recipe, args.device, args.devices, args.num_nodes, args.precision, args.max_minutes)
    checkpoint = open_run(args.out, module, args.fresh)
    if args.compile:
        module.model.compile()
    if trainer.is_global_zero:
        parameters = sum(p.numel() for p in module.model.parameters())
        print(
            f"{args.model} on Something-Something {args.version}: {recipe.clips:,} training clips of {videos:,} videos "
            f"of {len(stream.classes)} classes, {parameters:,} parameters"
        )
        if checkpoint is not None:
            print(f"going on from {checkpoint} (--fresh to start anew)")
    result = train_and_test(module, stream, trainer, checkpoint)
    args.damaged = stream.damaged()
    return result if trainer.is_global_zero else None


def test_weights(args: argparse.Namespace, module: ClipClassifier, stream: VideoStream) -> RunResult:
    """Test the weights of a file."""
    if list(stream.classes) != args.settings["classes"]:
        count = len(args.settings["classes"])
        raise CheckpointError(f"expected videos of the {count} classes of {args.weights}, got others in {args.root}")
    load_model_weights(args.weights, module.model)
    claim_folder(args.out)
    if args.compile:
        module.model.compile()
    result = evaluate(module, stream, args.device, args.precision)
    args.damaged = stream.damaged()
    return result


def conclude(args: argparse.Namespace, module: ClipClassifier, stream: VideoStream, result: RunResult) -> dict:
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
        "by_class": by_class(result.confusion, stream.classes),
        "damaged": args.damaged,
    }
    lines = report(args, held, len(stream.classes))
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

    stream = open_videos(args)
    model = make_model(args, len(stream.classes))
    config = {
        "task": TASK,
        "model": args.model,
        "network": asdict(args.network),
        "classes": list(stream.classes),
        "num_frames": args.recipe.num_frames,
        "size": args.recipe.clip_size,
        "version": args.version,
        "seed": args.seed,
        "precision": args.precision,
    }
    module = ClipClassifier(model, args.recipe, config)
    result = (train if args.weights is None else test_weights)(args, module, stream)
    if result is None:
        return {}
    if not result.finished:
        print(f"stopped after {result.clips:,} of {args.recipe.clips:,} clips; {goes_on(args.fresh)} from there")
        return {}
    return conclude(args, module, stream, result)


def run(argv: list[str] | None = None) -> int:
    """Run :func:`main`; return 2 after bad input, with one sentence of what was wrong."""
    return run_command("something_something.py", main, argv)


if __name__ == "__main__":
    sys.exit(run())
