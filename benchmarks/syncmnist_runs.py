"""Training runs of SyncMNIST networks, each in a process of its own: queued, resumed, read back.

A run lives in a folder: its checkpoint, metrics.csv, and at the end result.json. A queue that was stopped goes on where
it was: finished runs are read, begun ones resume.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rstg_pyg.models import Network
from rstg_pyg.training import Phase, Recipe


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
    parser.add_argument("--root", default="data/SyncMNIST", help="where MNIST is downloaded to (default: %(default)s)")
    parser.add_argument("--mnist-dir", help="folder with the MNIST files (default: $RSTG_PYG_MNIST)")
    parser.add_argument("--digits", default="auto", choices=["auto", "mnist", "sklearn"])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--precision", default="bf16-mixed", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--runs", type=Path, default=Path("runs/syncmnist-table"), help="folder of all runs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time (default: one per core)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a run (default: %(default)s)")


def train(run: Run, args: argparse.Namespace) -> dict:
    """Train a run to its end in this process, test it, and write what came of it."""
    import lightning
    import torch

    from rstg_pyg.allocator import keep_freed_memory
    from rstg_pyg.models import build_row
    from rstg_pyg.training import ClipClassifier, ClipStream, open_run, run_trainer, save_weights, train_and_test

    torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("high")
    keep_freed_memory()
    lightning.seed_everything(run.seed, verbose=False)
    folder = args.runs / run.folder
    clips = ClipStream(args.root, run.recipe, run.seed, args.digits, args.mnist_dir)
    config = {"model": run.row, "network": asdict(run.network), "seed": run.seed, "digits": clips.source}
    config["precision"] = args.precision
    model = build_row(run.row, run.network)
    module = ClipClassifier(model, run.recipe, config)
    checkpoint = open_run(folder, module)
    trainer = run_trainer(folder, run.recipe, args.device, precision=args.precision, progress=False)
    result = train_and_test(module, clips, trainer, checkpoint)
    save_weights(model, folder / "weights.pt", module.config)
    held = {
        "row": run.row,
        "seed": run.seed,
        "digits": clips.source,
        "test_accuracy": result.test_accuracy,
        "val_accuracy": result.val_accuracy,
        "test_clips": run.recipe.test_clips,
        "clips": result.clips,
        "seconds": round(result.seconds, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        "optimizer": run.recipe.optimizer,
        "machine": machine_name(trainer.strategy.root_device.type),
        "torch": torch.__version__,
        "confusion": result.confusion.tolist(),
    }
    partial = folder / "result.json.part"
    partial.write_text(json.dumps(held) + "\n")
    partial.replace(folder / "result.json")
    return held


def machine_name(device: str) -> str:
    """What the run ran on."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def read_result(runs: Path, run: Run) -> dict | None:
    """What a finished run came to, if it is of the same settings."""
    try:
        asked, held = ((runs / run.folder / name).read_text() for name in ("run.json", "result.json"))
    except FileNotFoundError:
        return None
    return json.loads(held) if Run.from_json(asked) == run else None


def run_all(runs: Iterable[Run], args: argparse.Namespace, title: str) -> list[dict]:
    """Train what is not trained yet, several runs at a time; return the results in the order of ``runs``.

    Raises:
        RuntimeError: If a run failed, after the others have ended; with the end of what it said.
    """
    from tqdm import tqdm

    runs = list(runs)
    waiting = [run for run in runs if read_result(args.runs, run) is None]
    with tqdm(total=len(runs), initial=len(runs) - len(waiting), desc=title, unit="run") as bar:

        def work(run: Run) -> str | None:
            failure = train_in_process(run, args)
            bar.update()
            return failure

        with ThreadPoolExecutor(args.jobs) as pool:
            failures = [failure for failure in pool.map(work, waiting) if failure]
    if failures:
        raise RuntimeError("; ".join(failures))
    return [read_result(args.runs, run) for run in runs]


def train_in_process(run: Run, args: argparse.Namespace) -> str | None:
    """Train a run in a new process; return what went wrong, if anything did."""
    folder = args.runs / run.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(run.to_json() + "\n")
    (folder / "result.json").unlink(missing_ok=True)
    command = [sys.executable, __file__, str(folder / "run.json")]
    for name in ("root", "mnist_dir", "digits", "device", "precision", "runs", "threads"):
        value = getattr(args, name)
        command += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode == 0:
        return None
    last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
    return f"{run.folder}: {last}"


def seeds_of(run: Run, seeds: Iterable[int]) -> list[Run]:
    """The same run with several seeds, each in a folder of its own."""
    return [replace(run, seed=seed, folder=f"{run.folder}/seed{seed}") for seed in seeds]


if __name__ == "__main__":
    import logging
    import warnings

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="file that describes the run")
    add_machine_options(parser)
    options = parser.parse_args()
    train(Run.from_json(options.run.read_text()), options)
