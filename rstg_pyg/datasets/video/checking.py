"""Every frame of every video is read once, to know all damaged ones before training.

python -m rstg_pyg.datasets.video.checking ROOT --version v2 --workers 8
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from torch.utils.data import DataLoader

from rstg_pyg.datasets.video.annotations import SPLITS, VERSIONS
from rstg_pyg.datasets.video.damage import DamagedVideoError
from rstg_pyg.datasets.video.sampling import every_frame
from rstg_pyg.datasets.video.something_something import SomethingSomething


def check_videos(dataset: SomethingSomething, num_workers: int = 0) -> dict[str, str]:
    r"""Read all frames of all videos of a split, and return what is wrong with the damaged ones, by their names.

    Training reads only the frames it takes, so a damaged frame may be met late.

    Args:
        dataset: The dataset; its limit of damaged videos does not matter here, but for missing ones.
        num_workers: Processes that read; 0 is this one.

    Example:
        >>> from rstg_pyg.datasets.made_videos import make_videos
        >>> make_videos("made", version="v1", clips=4, validation_clips=2, height=32, frames=(8, 12))
        >>> check_videos(SomethingSomething("made"))
        {}
    """
    numbers = range(len(dataset.video_ids))
    found = DataLoader(numbers, batch_size=None, num_workers=num_workers, collate_fn=partial(_fault, dataset))
    return {name: what for name, what in zip(dataset.video_ids.tolist(), found, strict=True) if what}


def _fault(dataset: SomethingSomething, idx: int) -> str:
    """What is wrong with a video; empty for a whole one."""
    try:
        dataset.read(idx, every_frame)
    except DamagedVideoError as error:
        return str(error)
    return ""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rstg_pyg.datasets.video.checking", description="Read every video of Something-Something once."
    )
    parser.add_argument("root", help="the folder with annotations and videos")
    parser.add_argument("--version", choices=VERSIONS, default="v1")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read")
    args = parser.parse_args(argv)
    is_damaged = False
    try:
        for split in SPLITS:
            dataset = SomethingSomething(args.root, args.version, split, max_damaged=sys.maxsize)
            for name, what in check_videos(dataset, args.workers).items():
                print(f"{split} {name}: {what}")
                is_damaged = True
            print(f"{split}: {len(dataset):,} videos read")
    except (ValueError, OSError, ImportError) as error:
        print(f"checking: {error}", file=sys.stderr)
        return 2
    return int(is_damaged)


if __name__ == "__main__":
    sys.exit(main())
