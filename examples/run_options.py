"""Options of the command line that all training scripts share: the optimiser, the machine, where results go."""

from __future__ import annotations

import argparse
from pathlib import Path

TRAINING_OPTIONS = (
    "batch_size",
    "optimizer",
    "lr",
    "muon_lr",
    "weight_decay",
    "schedule",
    "warmup",
    "gradient_clip",
    "chunk",
)
"""Those of a :class:`~rstg_pyg.training.RunRecipe`."""


def script_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser without options; names are not to be cut short, so that a new option breaks no command."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_training_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("training (default: the preset's)")
    group.add_argument("--batch-size", type=int, help="clips per batch, all processes together")
    group.add_argument("--optimizer", choices=["muon", "muon-hidden", "adamw", "nesterov"])
    group.add_argument("--lr", type=float, help="highest learning rate")
    group.add_argument("--muon-lr", type=float, help="highest learning rate of what Muon trains")
    group.add_argument("--weight-decay", type=float)
    group.add_argument("--schedule", choices=["cosine", "constant"], help="of the learning rate")
    group.add_argument("--warmup", type=float, help="share of the steps over which the learning rate rises")
    group.add_argument("--gradient-clip", type=float, help="largest norm of the gradient; 0 for none")
    group.add_argument("--chunk", type=int, help="clips between two checkpoints")
    group.add_argument("--seed", type=int, default=0, help="of weights and clips (default: %(default)s)")
    return group


def add_machine_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("machine")
    group.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: CUDA if there is one")
    group.add_argument("--devices", type=int, default=1, help="processes per machine, a device each (default: 1)")
    group.add_argument("--num-nodes", type=int, default=1, help="machines (default: 1)")
    group.add_argument("--precision", choices=["32-true", "bf16-mixed"])
    group.add_argument("--compile", action="store_true", help="run the model through torch.compile")
    group.add_argument(
        "--threads",
        type=int,
        help="CPU threads of a process (default: $OMP_NUM_THREADS, else what --workers leaves of the cores; small: at "
        "most 4)",
    )
    return group


def add_result_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("results")
    group.add_argument("--out", type=Path, help="folder of checkpoint, weights and figures (default: runs/...)")
    group.add_argument("--fresh", action="store_true", help="start anew even if the folder holds a checkpoint")
    group.add_argument("--max-minutes", type=float, help="stop after so long; the same command goes on from there")
    return group


def chosen(args: argparse.Namespace, names: tuple[str, ...]) -> dict:
    """The options that were given, by name; a gradient clip of 0 means none."""
    options = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if options.get("gradient_clip") == 0:
        options["gradient_clip"] = None
    return options
