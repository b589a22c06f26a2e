"""Training runs of SyncMNIST networks, each in a process of its own: queued, resumed, read back.

A run lives in a folder that its settings name: its checkpoint, metrics.csv, and at the end result.json. A queue that
was stopped goes on where it was: finished runs are read, begun ones resume.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.nn import Module, Sequential
from tqdm import tqdm

from command import add_data, cpu_name, digest, positive
from rstg_pyg import SyncMNIST
from rstg_pyg.allocator import keep_freed_memory
from rstg_pyg.files import replace_file
from rstg_pyg.models import Network, VideoClassifier, build_row
from rstg_pyg.training import (
    ClipClassifier,
    DivergenceError,
    Phase,
    Recipe,
    SyncMNISTData,
    open_run,
    run_trainer,
    save_weights,
    train_and_test,
)
from rstg_pyg.training.ending import ends_by_signals
from rstg_pyg.training.metrics import read_rows
from rstg_pyg.training.weights import SavedWeights

WEIGHTS = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True)
class Run:
    """One network, trained once.

    Attributes:
        name: What a table calls it.
        row: Name of the network, see ``rstg_pyg.models.ROWS``.
        network: Its sizes and options.
        recipe: How it is trained.
        seed: Of weights and clips.
        digits: Where they come from, ``"mnist"`` or ``"sklearn"``.
        backbone: A file in weights/ whose backbone the network takes, and keeps as it is (default: one that learns).
    """

    name: str
    row: str
    network: Network
    recipe: Recipe
    seed: int
    digits: str = "mnist"
    backbone: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Run:
        held = json.loads(text)
        network = Network(**{**held["network"], "widths": tuple(held["network"]["widths"])})
        phases = tuple(Phase(**phase) for phase in held["recipe"]["phases"])
        return cls(**{**held, "network": network, "recipe": Recipe(**{**held["recipe"], "phases": phases})})

    @property
    def settings(self) -> str:
        """A short digest of all that a result depends on, but for the machine."""
        held = asdict(replace(self, name=""))
        if self.backbone is not None:
            held["backbone"] = hashlib.sha256((WEIGHTS / self.backbone).read_bytes()).hexdigest()
        return digest(_given(held))

    @property
    def folder(self) -> Path:
        """Where it lives, below the folder of all runs."""
        words = "-".join("".join(c if c.isalnum() else " " for c in self.name.lower()).split())
        return Path(f"{words}-seed{self.seed}-{self.settings}")


def _given(settings: Any) -> Any:
    """All but what is None: an option that came later leaves the digests of earlier runs as they are."""
    if not isinstance(settings, dict):
        return settings
    return {name: _given(value) for name, value in settings.items() if value is not None}


class Frozen(Sequential):
    """A module that stays as it is, the moments of its batch norms too."""

    def __init__(self, module: Module) -> None:
        super().__init__(module)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Frozen:
        return super().train(False)


def build(run: Run) -> VideoClassifier:
    """The network of a run before training."""
    model = build_row(run.row, run.network)
    if run.backbone is not None:
        saved = SavedWeights(WEIGHTS / run.backbone)
        kept = build_row(saved.setting("model", str), saved.made("network", Network))
        saved.put_into(kept)
        model.backbone = Frozen(kept.backbone)
    return model


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Options that say where the data is and on what to run."""
    add_data(parser)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--precision", default="bf16-mixed", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--compile", action="store_true", help="run backbones through torch.compile")
    parser.add_argument("--runs", type=Path, default=Path("runs/syncmnist"), help="folder of all runs")
    parser.add_argument("--jobs", type=positive, help="runs at a time (default: one on CUDA, else what the cores hold)")
    parser.add_argument("--threads", type=positive, default=1, help="threads of a run (default: %(default)s)")


def choose_digits(args: argparse.Namespace) -> str:
    """Where the digits of all runs come from: what ``"auto"`` amounts to. MNIST is downloaded before the runs begin."""
    return SyncMNIST(args.root, digits=args.digits, mnist_dir=args.mnist_dir).source


def choose_jobs(args: argparse.Namespace) -> int:
    """How many runs at a time."""
    if args.jobs is not None:
        return args.jobs
    cuda = args.device == "cuda" or (args.device == "auto" and torch.cuda.is_available())
    return 1 if cuda else max(1, (os.cpu_count() or 1) // args.threads)


def train(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """Train a run to its end in this process, test it, and write what came of it: that it diverged is a result too."""
    torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("high")
    keep_freed_memory()
    lightning.seed_everything(run.seed, verbose=False)
    folder = args.runs / run.folder
    clips = SyncMNISTData(args.root, run.recipe, run.seed, run.digits, args.mnist_dir)
    config = {"model": run.row, "network": asdict(run.network), "seed": run.seed, "digits": run.digits}
    config["precision"] = args.precision
    model = build(run)
    module = ClipClassifier(model, run.recipe, config)
    checkpoint = open_run(folder, module)
    if args.compile:
        model.backbone.compile()
    trainer = run_trainer(folder, run.recipe, args.device, precision=args.precision, progress=False)
    on_cuda = trainer.strategy.root_device.type == "cuda"
    held: dict[str, Any] = {"name": run.name, "seed": run.seed}
    try:
        result = train_and_test(module, clips, trainer, checkpoint)
    except DivergenceError as error:
        held["diverged"] = str(error)
    else:
        save_weights(model, folder / "weights.pt", module.config)
        held |= {"test_accuracy": result.test_accuracy, "val_accuracy": result.val_accuracy}
        held |= {"clips": result.clips, "seconds": round(result.seconds, 1)}
    held |= {
        "test_clips": run.recipe.test_clips,
        "parameters": sum(p.numel() for p in model.parameters()),
        "digits": run.digits,
        "precision": args.precision,
        "machine": torch.cuda.get_device_name() if on_cuda else cpu_name(),
        "torch": torch.__version__,
        "settings": run.settings,
        "curve": curve(folder),
    }
    replace_file(folder / "result.json", (json.dumps(held) + "\n").encode())
    return held


def curve(folder: Path) -> str:
    """Validation accuracy after each chunk of a run: ``clips:accuracy`` again and again."""
    rows = (row for row in read_rows(folder / "metrics.csv") if "val_accuracy" in row)
    return " ".join(f"{row['clips']}:{row['val_accuracy']:.4f}" for row in rows)


def read_result(run: Run, runs: Path) -> dict[str, Any] | None:
    """What a finished run came to; None if it has no end yet."""
    path = runs / run.folder / "result.json"
    return json.loads(path.read_text()) if path.exists() else None


def run_all(runs: Iterable[Run], args: argparse.Namespace) -> None:
    """Train what is not trained yet, several runs at a time, in their order.

    Raises:
        RuntimeError: If a run failed, after the others have ended; with the end of what it said.
    """
    waiting = [run for run in runs if read_result(run, args.runs) is None]
    with tqdm(total=len(waiting), unit="run") as bar:

        def work(run: Run) -> str | None:
            failure = train_in_process(run, args)
            bar.update()
            return failure

        with ThreadPoolExecutor(choose_jobs(args)) as pool:
            ends = [pool.submit(work, run) for run in waiting]
            try:
                failures = [failure for end in ends if (failure := end.result())]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    if failures:
        raise RuntimeError("; ".join(failures))


def train_in_process(run: Run, args: argparse.Namespace) -> str | None:
    """Train a run in a new process; return what went wrong, if anything did."""
    described = begin(run, args.runs)
    command = [sys.executable, __file__, str(described)]
    for name in ("root", "mnist_dir", "device", "precision", "runs", "threads"):
        value = getattr(args, name)
        command += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    command += ["--compile"] if args.compile else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"{run.folder}: ended by signal {-done.returncode}"
    return f"{run.folder}: {(done.stderr.strip() or 'no message').splitlines()[-1]}"


def begin(run: Run, runs: Path) -> Path:
    """Write what a folder is of; return the file that says it."""
    path = runs / run.folder / "run.json"
    replace_file(path, f"{run.to_json()}\n".encode())
    return path


if __name__ == "__main__":
    import logging
    import warnings

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="file that describes the run")
    add_machine_options(parser)
    options = parser.parse_args()
    try:
        with ends_by_signals():
            train(Run.from_json(options.run.read_text()), options)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
