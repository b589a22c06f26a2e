"""Training runs of SyncMNIST networks, each in a process of its own: queued, resumed, read back.

A run lives in a folder: its checkpoint, metrics.csv, and at the end result.json. A queue that was stopped goes on where
it was: finished runs are read, begun ones resume. A folder that holds a run of other settings is left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import lightning
import torch
from tqdm import tqdm

from command import add_data, cpu_name, positive
from rstg_pyg import SyncMNIST
from rstg_pyg.allocator import keep_freed_memory
from rstg_pyg.files import replace_file
from rstg_pyg.models import Network, build_row
from rstg_pyg.training import (
    CheckpointError,
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
from rstg_pyg.training.checkpoint import NAME
from rstg_pyg.training.ending import ends_by_signals
from rstg_pyg.training.weights import check_settings


@dataclass(frozen=True)
class Run:
    """One network, trained once.

    Attributes:
        folder: Where it lives, below the folder of all runs.
        row: Name of the network, see ``rstg_pyg.models.ROWS``.
        network: Its sizes and options.
        recipe: How it is trained.
        seed: Of weights and clips.
    """

    folder: str
    row: str
    network: Network
    recipe: Recipe
    seed: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Run:
        held = json.loads(text)
        network = Network(**{**held["network"], "widths": tuple(held["network"]["widths"])})
        phases = tuple(Phase(**phase) for phase in held["recipe"]["phases"])
        return cls(**{**held, "network": network, "recipe": Recipe(**{**held["recipe"], "phases": phases})})


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Options that say where the data is and on what to run."""
    add_data(parser)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--precision", default="bf16-mixed", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--compile", action="store_true", help="run backbones through torch.compile")
    parser.add_argument("--runs", type=Path, default=Path("runs/syncmnist-table"), help="folder of all runs")
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


def train(run: Run, args: argparse.Namespace) -> dict:
    """Train a run to its end in this process, test it, and write what came of it: that it diverged is a result too."""
    torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("high")
    keep_freed_memory()
    lightning.seed_everything(run.seed, verbose=False)
    folder = args.runs / run.folder
    clips = SyncMNISTData(args.root, run.recipe, run.seed, args.digits, args.mnist_dir)
    config = {"model": run.row, "network": asdict(run.network), "seed": run.seed, "digits": clips.source}
    config["precision"] = args.precision
    model = build_row(run.row, run.network)
    module = ClipClassifier(model, run.recipe, config)
    checkpoint = open_run(folder, module)
    if args.compile:
        model.backbone.compile()
    trainer = run_trainer(folder, run.recipe, args.device, precision=args.precision, progress=False)
    on_cuda = trainer.strategy.root_device.type == "cuda"
    held = {
        "row": run.row,
        "seed": run.seed,
        "digits": clips.source,
        "precision": args.precision,
        "test_clips": run.recipe.test_clips,
        "parameters": sum(p.numel() for p in model.parameters()),
        "optimizer": run.recipe.optimizer,
        "machine": torch.cuda.get_device_name() if on_cuda else cpu_name(),
        "torch": torch.__version__,
    }
    try:
        result = train_and_test(module, clips, trainer, checkpoint)
    except DivergenceError as error:
        held["diverged"] = str(error)
    else:
        save_weights(model, folder / "weights.pt", module.config)
        held |= {
            "test_accuracy": result.test_accuracy,
            "val_accuracy": result.val_accuracy,
            "clips": result.clips,
            "seconds": round(result.seconds, 1),
            "confusion": result.confusion.tolist(),
        }
    replace_file(folder / "result.json", (json.dumps(held) + "\n").encode())
    return held


def read_run(folder: Path) -> Run | None:
    """What a folder is of; None where nothing says so."""
    path = folder / "run.json"
    if not path.exists():
        return None
    try:
        return Run.from_json(path.read_text())
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"expected {path} to describe a run, got: {error!r}") from None


def read_result(run: Run, args: argparse.Namespace) -> dict | None:
    """What a finished run came to, if it is of the same settings, digits and precision."""
    folder = args.runs / run.folder
    if read_run(folder) != run or not (folder / "result.json").exists():
        return None
    held = json.loads((folder / "result.json").read_text())
    return held if all(held.get(name, value) == value for name, value in chosen(args).items()) else None


def chosen(args: argparse.Namespace) -> dict[str, str]:
    """What else a result has to be of."""
    return {name: getattr(args, name) for name in ("digits", "precision") if getattr(args, name) != "auto"}


def check_folder(run: Run, args: argparse.Namespace) -> None:
    """Raise CheckpointError if the run's folder holds another one, which would be lost."""
    folder = args.runs / run.folder
    there, result = read_run(folder), folder / "result.json"
    if there is None or not (result.exists() or (folder / f"{NAME}.ckpt").exists()):
        return
    now = {**asdict(run), **chosen(args)}
    before = {**now, **asdict(there)}
    if result.exists():
        held = json.loads(result.read_text())
        before |= {name: held.get(name, value) for name, value in chosen(args).items()}
    try:
        check_settings(before, now, str(folder))
    except CheckpointError as error:
        raise CheckpointError(f"{error}; choose another --runs, or remove that folder") from None


def run_all(runs: Iterable[Run], args: argparse.Namespace, title: str) -> list[dict]:
    """Train what is not trained yet, several runs at a time; return the results in the order of ``runs``.

    Raises:
        CheckpointError: If the folder of a run holds one of other settings; before any is trained.
        RuntimeError: If a run failed, after the others have ended; with the end of what it said.
    """
    runs = list(runs)
    waiting = [run for run in runs if read_result(run, args) is None]
    for run in waiting:
        check_folder(run, args)
    with tqdm(total=len(runs), initial=len(runs) - len(waiting), desc=title, unit="run") as bar:

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
    return [read_result(run, args) for run in runs]


def train_in_process(run: Run, args: argparse.Namespace) -> str | None:
    """Train a run in a new process; return what went wrong, if anything did."""
    described = begin(run, args)
    command = [sys.executable, __file__, str(described)]
    for name in ("root", "mnist_dir", "digits", "device", "precision", "runs", "threads"):
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


def begin(run: Run, args: argparse.Namespace) -> Path:
    """Write what a folder is of, and let go of a result that it holds; return the file that says it."""
    path = args.runs / run.folder / "run.json"
    path.with_name("result.json").unlink(missing_ok=True)
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
