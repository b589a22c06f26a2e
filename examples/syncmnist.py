"""Train a recurrent space-time graph on SyncMNIST: which two digits of a clip move in step?

Clips of several handwritten digits that wander over a black canvas; in most clips two of them make the same moves. The
network has to name that pair (46 classes: 45 pairs and "none"). Training ends with the accuracy on test clips, beside
what the paper reports, and a picture of what the graph looks at. A run that was stopped goes on where it was when the
same command is given again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
import warnings
from math import comb
from pathlib import Path

import lightning
import torch
from torch import Tensor

from rstg_pyg import FrameCNN, RSTGToVec, VideoClassifier, region_graph
from rstg_pyg.allocator import keep_freed_memory
from rstg_pyg.authors import AuthorsSyncMNISTNet
from rstg_pyg.datasets import NO_SYNC, NUM_CLASSES, label_to_pair
from rstg_pyg.training import ClipClassifier, ClipProgress, ClipStream, Phase, Recipe, chunk_checkpoint
from rstg_pyg.visualize import draw_clips

PUBLISHED = {3: 98.9, 5: 97.2}
"""Accuracy in the paper (%): all temporal stages on 3SyncMNIST, with positions on 5SyncMNIST."""


def small_model() -> torch.nn.Module:
    """Three small convolutions and a graph of 64 channels, with what makes it learn in few clips: one pair of stages,
    normalised and residual, GRUs, batch normalisation in front, the mean over time."""
    graph = RSTGToVec(
        64,
        num_stages=1,
        rnn="gru",
        readout="mean",
        input_norm="batch_norm",
        norm="layer_norm",
        residual=True,
    )
    return VideoClassifier(FrameCNN(1, (16, 64), batch_norm=True, refine=True), graph, NUM_CLASSES)


def small_recipe(num_digits: int) -> Recipe:
    """Do two digits move in step? Which digits are there? Then both at once, then more digits: each question is a
    plateau of its own when all come together."""
    phases = [Phase(12_000, 2, 0.5, "in-step"), Phase(18_000, 2), Phase(30_000, 2, 0.5)]
    if num_digits > 2:
        phases.append(Phase(100_000, num_digits))
    return Recipe(tuple(phases))


def paper_recipe(num_digits: int) -> Recipe:
    """What the authors' program does."""
    return Recipe(
        (Phase(600_000, num_digits),),
        size=64,
        batch_size=2,
        test_clips=5_000,
        optimizer="nesterov",
        lr=1e-6,
        schedule="constant",
        gradient_clip=None,
        loss="sum",
        raw_pixels=True,
    )


PRESETS = {
    "small": (small_model, small_recipe, 2),
    "paper": (lambda: AuthorsSyncMNISTNet(filters=512), paper_recipe, 5),
}
"""Model, recipe and number of digits."""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="small",
        help="small: learns in minutes on a CPU (default). paper: the authors' network and optimiser at full size "
        "(512 filters, 64 x 64, 5 digits, 600,000 clips); wants a GPU and days",
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
        help="digits per clip, 3 or 5 in the paper (default: 5 for paper; 2 for small, in half of whose clips no pair "
        "moves in step, so that classes alone do not tell)",
    )
    data.add_argument("--clips", type=int, help="number of training clips, all phases of the curriculum together")
    data.add_argument("--test-clips", type=int, help="number of test clips")
    data.add_argument("--workers", type=int, default=1, help="processes that make clips (default: %(default)s)")
    training = parser.add_argument_group("training")
    training.add_argument("--batch-size", type=int, help="clips per step")
    training.add_argument("--lr", type=float, help="highest learning rate")
    training.add_argument("--optimizer", choices=["muon", "adamw", "nesterov"], help="(default: the preset's)")
    training.add_argument("--seed", type=int, default=0, help="of weights and clips (default: %(default)s)")
    training.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: CUDA when there is one"
    )
    training.add_argument(
        "--precision", default="32-true", choices=["32-true", "bf16-mixed"], help="(default: %(default)s)"
    )
    training.add_argument("--compile", action="store_true", help="run the model through torch.compile")
    training.add_argument("--threads", type=int, help="CPU threads that torch uses (default: torch's choice)")
    out = parser.add_argument_group("results")
    out.add_argument(
        "--out", type=Path, help="folder of checkpoints, figures and picture (default: runs/syncmnist-PRESET)"
    )
    out.add_argument("--fresh", action="store_true", help="start anew even if the folder holds a checkpoint")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda was asked for, but torch sees no CUDA device (try --device cpu)")
    args.out = args.out or Path(f"runs/syncmnist-{args.preset}")
    chosen = {
        name: getattr(args, name)
        for name in ("test_clips", "batch_size", "lr", "optimizer")
        if getattr(args, name) is not None
    }
    model, make_recipe, num_digits = PRESETS[args.preset]
    try:
        recipe = make_recipe(num_digits if args.num_digits is None else args.num_digits)
        if args.clips is not None:
            chosen["phases"] = share_out(args.clips, recipe.phases)
        args.recipe = dataclasses.replace(recipe, **chosen)
    except ValueError as error:
        parser.error(str(error))
    args.model = model
    return args


def share_out(clips: int, phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """Give each phase its share of another number of clips, the last one what is left."""
    total = sum(phase.clips for phase in phases)
    counts = [clips * phase.clips // total for phase in phases[:-1]]
    counts.append(clips - sum(counts))
    return tuple(dataclasses.replace(phase, clips=count) for phase, count in zip(phases, counts, strict=True))


def open_run(args: argparse.Namespace, source: str) -> Path | None:
    """Make the run's folder; return the checkpoint to go on from, if there is one of the same configuration."""
    config = {"preset": args.preset, "seed": args.seed, "digits": source, **dataclasses.asdict(args.recipe)}
    config = json.loads(json.dumps(config))
    args.out.mkdir(parents=True, exist_ok=True)
    path, checkpoint = args.out / "config.json", args.out / "last.ckpt"
    if args.fresh:
        checkpoint.unlink(missing_ok=True)
    if checkpoint.exists():
        before = json.loads(path.read_text()) if path.exists() else {}
        differing = [key for key in config if before.get(key) != config[key]]
        if differing:
            changes = ", ".join(f"{key}={before.get(key)!r} there, {config[key]!r} now" for key in differing)
            raise ValueError(
                f"{checkpoint} belongs to a run with other settings ({changes}): give another --out, or --fresh to "
                "start anew"
            )
        return checkpoint
    path.write_text(json.dumps(config, indent=1) + "\n")
    return None


def attention_of(model: torch.nn.Module, video: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits ``[n, 46]`` and the attention of the last space stage, ``[E, n, T]``, averaged over heads."""
    if isinstance(model, VideoClassifier):
        logits, attention = model(video, return_attention_weights=True)
        return logits, attention[-1][1].mean(-1)
    seen = []
    handle = model.graph.attention.register_forward_hook(lambda module, inputs, out: seen.append(out))
    logits = model(video.float())
    handle.remove()
    # All pairs [n, T, receiver, sender], or with heads in between: the edges alone are drawn.
    weights = seen[-1].flatten(2, -3).mean(2) if seen[-1].dim() == 5 else seen[-1]
    return logits, weights[..., edge_index[1], edge_index[0]].movedim(-1, 0)


def pair_name(label: int) -> str:
    return "none" if label == NO_SYNC else "{1}-{0}".format(*label_to_pair(label))


@torch.no_grad()
def draw_test_clips(model: torch.nn.Module, clips: ClipStream, path: Path, title: str, count: int = 4) -> None:
    """Save a picture of the first test clips with predicted and true pair, the regions and the strongest edges."""
    dataset, size, graph = clips.test_clips, clips.recipe.size, region_graph((3, 2, 1))
    items = [dataset[i] for i in range(min(count, len(dataset)))]
    device = next(model.parameters()).device
    model.eval()
    video = torch.cat([item.video for item in items])
    logits, alpha = attention_of(model, video.to(device), graph.edge_index.to(device))
    captions, marks = [], []
    for item, probability in zip(items, logits.float().softmax(1).cpu(), strict=True):
        predicted = int(probability.argmax())
        true = int(item.y)
        verdict = "right" if predicted == true else "wrong"
        captions.append(
            f"in step: {pair_name(true)}\npredicted: {pair_name(predicted)}\n({probability[predicted]:.0%}, {verdict})"
        )
        corner = item.path[0, item.sync[0].clamp(min=0)].transpose(0, 1).float()
        box = torch.cat([corner, corner + 28], dim=-1) * size / 100 - 0.5
        marks.append(torch.where(item.sync[0].view(1, -1, 1) < 0, torch.nan, box))
    figure = draw_clips(video[:, 0], graph, alpha, captions, torch.stack(marks), title=title)
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> dict[str, float]:
    args = parse_arguments(argv)
    recipe: Recipe = args.recipe
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    keep_freed_memory()
    lightning.seed_everything(args.seed, verbose=False)

    clips = ClipStream(args.root, recipe, args.seed, args.digits, args.mnist_dir, args.workers)
    checkpoint = open_run(args, clips.source)
    model = args.model()
    task = recipe.task
    print(
        f"{task.num_digits}SyncMNIST with digits of {clips.source}: {recipe.clips:,} training clips in "
        f"{len(recipe.phases)} phase(s), {sum(p.numel() for p in model.parameters()):,} parameters"
    )
    if checkpoint is not None:
        print(f"going on from {checkpoint} (--fresh to start anew)")
    if args.compile:
        model.compile()
    module = ClipClassifier(model, recipe)
    trainer = lightning.Trainer(
        accelerator={"auto": "cuda" if torch.cuda.is_available() else "cpu"}.get(args.device, args.device),
        devices=1,
        precision=args.precision,
        max_epochs=recipe.num_chunks,
        reload_dataloaders_every_n_epochs=1,
        gradient_clip_val=recipe.gradient_clip,
        callbacks=[
            ClipProgress(recipe),
            chunk_checkpoint(args.out),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, clips, ckpt_path=checkpoint, weights_only=True)
    accuracy = 100 * trainer.test(module, clips, verbose=False)[0]["test_accuracy"]

    in_step = 1 - task.no_sync_probability
    digits_known = 100 * max(task.no_sync_probability, in_step / comb(task.num_digits, 2))
    lines = [
        f"test accuracy on {recipe.test_clips:,} clips: {accuracy:.1f} %",
        f"  a guess among {NUM_CLASSES} classes: {100 / NUM_CLASSES:.1f} %",
        f"  knowing which digits are there, but not which move together: {digits_known:.1f} %",
    ]
    for num_digits, published in PUBLISHED.items():
        lines.append(f"  published for {num_digits}SyncMNIST (MNIST, full size): {published} %")
    picture = args.out / "attention.png"
    title = f"{task.num_digits}SyncMNIST, test accuracy {accuracy:.1f} %. Arrows: strongest attention, to the receiver"
    draw_test_clips(model, clips, picture, title)
    lines.append(f"picture: {picture}")
    print("\n".join(lines))
    (args.out / "result.json").write_text(json.dumps({"test_accuracy": round(accuracy, 2)}) + "\n")
    return {"test_accuracy": accuracy}


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.formatwarning = lambda message, *rest, **more: f"note: {message}\n"
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        print(f"syncmnist.py: {error}", file=sys.stderr)
        sys.exit(2)
