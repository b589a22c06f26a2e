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
from dataclasses import asdict
from math import comb
from pathlib import Path

from run_command import goes_on, prepare_machine, run_command  # before torch

# isort: split
import torch
from syncmnist_options import list_models, make_model, parse_arguments
from torch import Tensor

from rstg_pyg.datasets import NUM_CLASSES, SyncMNIST
from rstg_pyg.files import naming
from rstg_pyg.models import PAPER_SIZE, ROWS
from rstg_pyg.training import (
    ClipClassifier,
    ClipStream,
    Recipe,
    RunResult,
    evaluate,
    load_model_weights,
    open_run,
    run_trainer,
    save_weights,
    train_and_test,
)
from rstg_pyg.training.checkpoint_reading import check_settings
from rstg_pyg.training.replace_file import replace_file
from rstg_pyg.training.run import claim_folder
from rstg_pyg.visualize import (
    PairAccuracy,
    animate_clips,
    digits_in_step,
    draw_clips,
    draw_pair_accuracy,
    explain_clips,
    pair_names,
)


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


def test_weights(args: argparse.Namespace, module: ClipClassifier, clips: ClipStream) -> RunResult:
    """Test the weights of a file, which have to be of this network: other options may fit the same weights."""
    held = load_model_weights(args.weights, module.model)
    of_network = [name for name in ("model", "network") if name in held]
    check_settings({n: held[n] for n in of_network}, {n: module.config[n] for n in of_network}, str(args.weights))
    claim_folder(args.out)
    return evaluate(module, clips, args.device, args.precision)


def main(argv: list[str] | None = None) -> dict[str, float]:
    args = parse_arguments(argv, __doc__)
    if args.list:
        print(list_models(args.network or PAPER_SIZE))
        return {}
    recipe: Recipe = args.recipe
    prepare_machine(args)

    clips = ClipStream(
        args.root, recipe, args.seed, args.digits, args.mnist_dir, args.workers, test_paths=args.authors_test
    )
    model = make_model(args)
    config = {
        "model": args.model,
        "network": "authors" if args.network is None else asdict(args.network),
        "seed": args.seed,
        "digits": clips.source,
        "precision": args.precision,
    }
    module = ClipClassifier(model, recipe, config)
    if args.weights is None:
        trainer = run_trainer(
            args.out, recipe, args.device, args.devices, args.num_nodes, args.precision, args.max_minutes
        )
        checkpoint = open_run(args.out, module, args.fresh)
    if args.compile:
        # The graph has kernels of its own, which compilers do not see.
        getattr(model, "backbone", model).compile()
    task = recipe.task
    print(
        f"{args.model} on {task.num_digits}SyncMNIST with digits of {clips.source}: {recipe.clips:,} training clips in "
        f"{len(recipe.phases)} phase(s), {sum(p.numel() for p in model.parameters()):,} parameters"
    )
    if args.weights is not None:
        result = test_weights(args, module, clips)
    else:
        if checkpoint is not None:
            print(f"going on from {checkpoint} (--fresh to start anew)")
        result = train_and_test(module, clips, trainer, checkpoint)
        if not trainer.is_global_zero:
            return {}
    if not result.finished:
        print(f"stopped after {result.clips:,} of {recipe.clips:,} clips; {goes_on(args.fresh)} from there")
        return {}

    lines = report(recipe, result, len(clips.test_clips), args.model, args.authors_test is not None)
    if args.weights is None:
        save_weights(model, args.out / "weights.pt", module.config)
        lines.append(f"trained in {result.seconds / 60:.1f} min, {result.clips / result.seconds:.0f} clips/s")
        lines.append(f"weights: {args.out / 'weights.pt'}")
    title = f"{args.model} on {task.num_digits}SyncMNIST, test accuracy {100 * result.test_accuracy:.1f} %"
    with naming(args.out):
        pictures = draw_pictures(model, clips.test_clips, result.confusion, args.out, title, recipe.raw_pixels)
    lines.append(f"pictures: {', '.join(map(str, pictures))}")
    print("\n".join(lines))
    accuracy = {"test_accuracy": round(100 * result.test_accuracy, 2)}
    replace_file(args.out / "result.json", f"{json.dumps({**accuracy, 'clips': result.clips, **config})}\n".encode())
    return accuracy


def run(argv: list[str] | None = None) -> int:
    """Run :func:`main`; return 2 after bad input, with one sentence of what was wrong."""
    return run_command("syncmnist.py", main, argv)


if __name__ == "__main__":
    sys.exit(run())
