"""Measures how many SyncMNIST clips a second training consumes, and where a step's time goes.

A step makes its clips on the device, runs the network forward and backward, and lets the optimiser step, as
examples/syncmnist.py does; several batch sizes and forms of the step in one run. The times of its parts are in
milliseconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import command
from rstg_pyg.datasets import drawing
from rstg_pyg.models import PAPER_SIZE, ROWS, SMALL, build_row, cnn
from rstg_pyg.recurrence import TimeStage
from rstg_pyg.training import ClipClassifier, MuonAdamW, SyncMNISTData, full_recipe, small_recipe
from rstg_pyg.training import module as run_module
from rstg_pyg.training.classifier import clip_loss
from rstg_pyg.training.data import ClipBatches

PRESETS = {"small": (SMALL, small_recipe), "full": (PAPER_SIZE, full_recipe)}
PARTS = ("clips", "forward", "backward", "optimiser")
FORMS = {
    "plain": (False, False),
    "fused": (True, False),
    "plain-compiled": (False, True),
    "fused-compiled": (True, True),
}
"""Of the step: whether it takes the package's shorter ways, or layers and optimisers of PyTorch, one by one; and
whether the backbone goes through torch.compile."""


class PlainMuonAdamW(MuonAdamW):
    """PyTorch's own two optimisers, which take one parameter after the other."""

    def _fits_fused(self, parameters: list[torch.nn.Parameter]) -> bool:
        return False

    def _step_matrices(self, group: dict[str, Any]) -> None:
        flat = [p.detach().flatten(1) for p in group["params"]]
        muon = torch.optim.Muon([{**group, "params": flat}])
        for parameter, matrix in zip(group["params"], flat, strict=True):
            matrix.grad = parameter.grad.flatten(1)
            muon.state[matrix] = self.state[parameter]
        muon.step()
        for parameter, matrix in zip(group["params"], flat, strict=True):
            parameter.copy_(matrix.view_as(parameter))


class Clock:
    """Notes the time without waiting for the device."""

    def __init__(self, device: str) -> None:
        self.cuda = device != "cpu"
        self.marks: list[torch.cuda.Event | float] = []

    def mark(self) -> None:
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def milliseconds(self) -> list[float]:
        """Between every mark and the next."""
        pairs = zip(self.marks, self.marks[1:], strict=False)
        if not self.cuda:
            return [1e3 * (end - start) for start, end in pairs]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in pairs]


@contextmanager
def one_by_one() -> AbstractContextManager[None]:
    """Clips made by PyTorch, what stands between convolutions layer by layer, PyTorch's recurrent networks and its
    optimisers."""
    never = {cnn: ("folds_on", "can_fuse"), TimeStage: ("_takes_operator",), drawing: ("library",)}
    with ExitStack() as stack:
        for owner, names in never.items():
            for name in names:
                stack.enter_context(mock.patch.object(owner, name, lambda *args: None))
        stack.enter_context(mock.patch.object(run_module, "MuonAdamW", PlainMuonAdamW))
        yield


def make_step(args: argparse.Namespace, batch_size: int, compiled: bool) -> Callable[[], Callable[[], list[float]]]:
    """One training step; it returns what reads the milliseconds of its :data:`PARTS`."""
    network, recipe_of = PRESETS[args.preset]
    recipe = dataclasses.replace(recipe_of(args.num_digits), batch_size=batch_size)
    stream = SyncMNISTData(args.root, recipe, 0, args.digits, args.mnist_dir)
    torch.manual_seed(0)
    module = ClipClassifier(build_row(args.row, network), recipe).to(args.device)
    if compiled:
        module.model.backbone.compile()
    optimizer = module.configure_optimizers()["optimizer"]
    batches = ClipBatches(stream.train_clips, args.device)
    low = torch.bfloat16 if args.precision == "bf16-mixed" else None
    first = recipe.clips - recipe.task.clips

    def step() -> Callable[[], list[float]]:
        nonlocal first
        clock = Clock(args.device)
        clock.mark()
        batch = batches[range(first, first + batch_size)]
        first += batch_size
        clock.mark()
        with torch.autocast(torch.device(args.device).type, low) if low else nullcontext():
            logits = module(batch.video)
        loss = clip_loss(logits.float(), batch.y, batch.binary).mean()
        clock.mark()
        loss.backward()
        clock.mark()
        torch.nn.utils.clip_grad_norm_(module.parameters(), recipe.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        clock.mark()
        return clock.milliseconds

    return step


def measure(args: argparse.Namespace, batch_size: int, form: str) -> tuple[float, list[float], str]:
    """Clips per second of many steps in a row, the median milliseconds of the parts of a step, and on CUDA the most
    memory that tensors took, in GiB."""
    cuda = args.device != "cpu"
    wait = torch.cuda.synchronize if cuda else lambda: None
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    fused, compiled = FORMS[form]
    with nullcontext() if fused else one_by_one():
        step = make_step(args, batch_size, compiled)
        for _ in range(3):
            step()
        wait()
        start = time.perf_counter()
        readings = [step() for _ in range(args.steps)]
        wait()
        rate = args.steps * batch_size / (time.perf_counter() - start)
        if args.kernels:
            print(longest(step, args.kernels, cuda))
    parts = zip(*(read() for read in readings), strict=True)
    peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if cuda else "-"
    return rate, [statistics.median(part) for part in parts], peak


def longest(step: Callable[[], object], count: int, cuda: bool) -> str:
    """What takes most of a step: kernels on CUDA, and how many are launched; operators on a CPU."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as trace:
        step()()
    if not cuda:
        return trace.key_averages().table(sort_by="self_cpu_time_total", row_limit=count)
    kernels = [event for event in trace.events() if event.device_type == DeviceType.CUDA and "#" not in event.name]
    spent: dict[str, float] = {}
    for event in kernels:
        spent[event.name] = spent.get(event.name, 0.0) + event.device_time / 1e3
    lines = [f"{len(kernels)} kernels, {sum(spent.values()):.1f} ms"]
    lines += [f"{spent[name]:8.2f} ms  {name[:100]}" for name in sorted(spent, key=spent.get, reverse=True)[:count]]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="small", help="of examples/syncmnist.py (default: small)")
    parser.add_argument("--row", choices=ROWS, default="positional", metavar="ROW", help="(default: positional)")
    parser.add_argument("--num-digits", type=command.positive, default=2, help="(default: 2)")
    parser.add_argument("--batch-sizes", type=command.positive, nargs="+", default=[16], help="(default: 16)")
    parser.add_argument("--forms", choices=FORMS, nargs="+", default=list(FORMS), help="of the step (default: all)")
    parser.add_argument("--steps", type=command.positive, default=20, help="timed steps (default: 20)")
    parser.add_argument("--rounds", type=command.positive, default=1, help="of all forms; the best counts (default: 1)")
    parser.add_argument("--kernels", type=command.positive, metavar="N", help="name the N that take most of a step")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="bf16-mixed")
    command.add_data(parser)
    command.add_machine(parser)
    args = parser.parse_args(argv)
    command.prepare(args)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    print(f"{args.row}, preset {args.preset}, {args.precision}, on {args.device}; torch {torch.__version__}")
    print(f"{'batch':>6} {'form':>15} {'clips/s':>8}" + "".join(f" {part:>10}" for part in PARTS) + "  peak GiB")
    for batch_size in args.batch_sizes:
        best: dict[str, tuple[float, list[float], str]] = {}
        for form in args.forms * args.rounds:
            best[form] = max(best.get(form, (0.0,)), measure(args, batch_size, form))
            torch.compiler.reset()
        for form, (rate, parts, peak) in best.items():
            cells = "".join(f" {part:>10.1f}" for part in parts)
            print(f"{batch_size:>6} {form:>15} {rate:>8.0f}{cells} {peak:>9}", flush=True)


if __name__ == "__main__":
    main()
