"""Measures how fast SyncMNIST clips are generated.

Prints clips per second and core in one process, one by one in their order and at random, for 3 and 5 digits and frames
of 64 and 32 pixels, clips per second through PyG's DataLoader for several numbers of workers, and clips per second made
in batches by a ClipGenerator on the CPU and on a CUDA device, if there is one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings

import torch
from torch_geometric.loader import DataLoader

from command import device, positive
from rstg_pyg.datasets import ClipGenerator, SyncMNIST


def clips_per_second(dataset: SyncMNIST, seconds: float, stride: int = 1) -> float:
    """Reads clips one by one for about the given time."""
    dataset[0]
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        dataset[count * stride % len(dataset)]
        count += 1
    return count / (time.perf_counter() - start)


def loader_clips_per_second(dataset: SyncMNIST, workers: int, batch_size: int, seconds: float) -> float:
    """Reads batches for about the given time, without the start of the workers."""
    batches = iter(
        DataLoader(dataset, batch_size=batch_size, num_workers=workers, prefetch_factor=2 if workers else None)
    )
    # The batches that workers have prepared before the clock starts must not count.
    for _ in range(2 * workers + 2):
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        count += next(batches).num_graphs
    return count / (time.perf_counter() - start)


def generator_clips_per_second(generator: ClipGenerator, batch_size: int, seconds: float) -> float:
    """Makes batches for about the given time, and waits for the device at the end."""
    wait = torch.cuda.synchronize if generator.device.type == "cuda" else lambda: None
    starts = range(0, generator.num_clips - batch_size, batch_size)

    def run(rounds: int) -> float:
        begin = time.perf_counter()
        for number in range(rounds):
            first = starts[number % len(starts)]
            generator(range(first, first + batch_size))
        wait()
        return time.perf_counter() - begin

    run(2)
    rounds = max(1, round(seconds / (run(3) / 3)))
    return rounds * batch_size / run(rounds)


def main() -> None:
    """Parses the command line and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=None, help="root folder of the dataset (default: a temporary folder)")
    parser.add_argument("--mnist-dir", default=None, help="folder with the IDX files (default: $RSTG_PYG_MNIST)")
    parser.add_argument("--digits", choices=["auto", "mnist", "sklearn"], default="auto", help="source of the digits")
    parser.add_argument("--seconds", type=float, default=2.0, help="time per measurement (default: 2)")
    parser.add_argument("--batch-size", type=int, default=16, help="clips per batch (default: 16)")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2], help="numbers of workers (default: 0 1 2)")
    parser.add_argument(
        "--device", type=device, nargs="*", help="where batches are made (default: cpu, and cuda if there is one)"
    )
    parser.add_argument(
        "--device-batch-sizes", type=positive, nargs="*", default=[64, 256, 1024], help="(default: 64 256 1024)"
    )
    args = parser.parse_args()
    if args.device is None:
        args.device = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    # Without it, putting a batch together spreads over all cores, and the figures are not per core.
    torch.set_num_threads(1)
    warnings.formatwarning = lambda message, *_args, **_kwargs: f"{message}\n"

    with tempfile.TemporaryDirectory() as temporary:

        def make(num_digits: int, size: int, pregenerate: bool = False) -> SyncMNIST:
            return SyncMNIST(
                args.root or temporary,
                num_digits=num_digits,
                size=size,
                digits=args.digits,
                mnist_dir=args.mnist_dir,
                num_clips=1_000 if pregenerate else None,
                pregenerate=pregenerate,
                log=False,
            )

        source = make(5, 64).source
        print(f"Digits: {source}; {os.cpu_count()} cores; torch {torch.__version__}")
        print("\nOne process, clips per second")
        print(f"{'digits':>7} {'pixels':>7} {'in order':>11} {'at random':>11} {'from file':>10}")
        for num_digits in (3, 5):
            for size in (64, 32):
                in_order = clips_per_second(make(num_digits, size), args.seconds)
                at_random = clips_per_second(make(num_digits, size), args.seconds, stride=7919)
                stored = clips_per_second(make(num_digits, size, pregenerate=True), args.seconds)
                print(f"{num_digits:>7} {size:>7} {in_order:>11.0f} {at_random:>11.0f} {stored:>10.0f}")

        print(f"\nDataLoader, 5 digits, 64 pixels, batches of {args.batch_size}, clips per second")
        print(f"{'workers':>7} {'clips/s':>11}")
        for workers in args.workers:
            rate = loader_clips_per_second(make(5, 64), workers, args.batch_size, args.seconds)
            print(f"{workers:>7} {rate:>11.0f}")

        print("\nClipGenerator, batches, clips per second")
        print(
            f"{'device':>7} {'digits':>7} {'pixels':>7}" + "".join(f" {size:>11}" for size in args.device_batch_sizes)
        )
        for place in args.device:
            for num_digits, size in ((3, 64), (5, 64), (5, 32)):
                generator = ClipGenerator(make(num_digits, size), place)
                rates = [
                    generator_clips_per_second(generator, batch, args.seconds) for batch in args.device_batch_sizes
                ]
                print(f"{place:>7} {num_digits:>7} {size:>7}" + "".join(f" {rate:>11.0f}" for rate in rates))


if __name__ == "__main__":
    main()
