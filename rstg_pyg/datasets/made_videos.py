"""Small data sets in the form of Something-Something, made of drawn clips.

python -m rstg_pyg.datasets.made_videos OUT --version v1 --clips 200
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rstg_pyg.arguments import check_choice, check_positive
from rstg_pyg.datasets.random_numbers import uniforms
from rstg_pyg.datasets.video.annotations import ALL_SPLITS, SPLITS, VERSIONS, annotation_files, class_of_template
from rstg_pyg.datasets.video.frame_folders import write_frame_folder
from rstg_pyg.datasets.video.moving_shapes import TEMPLATES, draw_clip
from rstg_pyg.datasets.video.something_something import VIDEO_FOLDERS
from rstg_pyg.datasets.video.video_files import ENCODERS, write_video_file
from rstg_pyg.files import naming

HEIGHTS = {"v1": 100, "v2": 240}
"""The heights of the published videos."""

FRAMES = (24, 48)
_SHAPES = (4 / 3, 16 / 9)
_KEY = 0x6D616465


def make_videos(
    root: str | os.PathLike,
    version: str = "v1",
    clips: int = 200,
    validation_clips: int | None = None,
    height: int | None = None,
    frames: tuple[int, int] = FRAMES,
    seed: int = 0,
    noise: float = 1.0,
    codec: str = "vp9",
    templates: Sequence[str] = TEMPLATES,
) -> None:
    r"""Make a data set that :class:`~rstg_pyg.datasets.SomethingSomething` reads like the published ones.

    The clips are those of :func:`~rstg_pyg.datasets.video.draw_clip`, of classes of Something-Something that only
    motion tells apart, each class equally often. Videos are 4:3 or 16:9 and have 12 frames a second. They are encoded
    with loss, as JPEG (version 1) or VP9 or VP8 (version 2).

    Args:
        root: The folder; it is made. Annotations are written last, so that a folder that has them is whole.
        version: ``"v1"`` for JPEG frames and CSV, ``"v2"`` for WebM files and JSON.
        clips: Number of training videos.
        validation_clips: Number of validation videos (default: a quarter of ``clips``, at least 1).
        height: Height of the videos, even (default: that of the published ones, 100 or 240).
        frames: The least and the largest number of frames.
        seed: The seed.
        noise: How strong background, trembling and grain are.
        codec: Of version 2: ``"vp9"`` or ``"vp8"``.
        templates: The classes.

    Raises:
        FileExistsError: If the folder already holds annotations of such a data set.
        ValueError: If an argument is out of range.
        ImportError: If Pillow (version 1) or PyAV (version 2) is not installed.

    Example:
        >>> make_videos("made", version="v2", clips=2, height=32, frames=(8, 12))
        >>> sorted(os.listdir("made"))[:3]
        ['20bn-something-something-v2', 'something-something-v2-labels.json', 'something-something-v2-train.json']
    """
    check_choice("version", version, VERSIONS)
    check_choice("codec", codec, tuple(ENCODERS))
    validation_clips = max(1, clips // 4) if validation_clips is None else validation_clips
    height = HEIGHTS[version] if height is None else height
    low, high = frames
    check_positive(clips=clips, validation_clips=validation_clips, height=height, frames=low)
    if height % 2:
        raise ValueError(f"expected 'height' to be even, got {height}")
    if high < low:
        raise ValueError(f"expected 'frames' to be two numbers in order, got {frames!r}")
    root = Path(root)
    ending = "csv" if version == "v1" else "json"
    files = {name: root / f"something-something-{version}-{name}.{ending}" for name in (*SPLITS, "labels")}
    for path in (path for name in ("labels", *ALL_SPLITS) for path in annotation_files(root, version, name)):
        if path.exists():
            raise FileExistsError(f"expected a folder without a data set, got {path}")

    entries: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for index in range(clips + validation_clips):
        split, number = ("train", index) if index < clips else ("validation", index - clips)
        template = label = templates[number % len(templates)]
        length, shape = uniforms(seed, _KEY, index, 2)
        width = 2 * round(height * _SHAPES[int(shape * len(_SHAPES))] / 2)
        clip = draw_clip(template, seed, index, low + int(length * (high - low + 1)), height, width, noise)
        video_id = str(index + 1)
        place = root / VIDEO_FOLDERS[version] / video_id
        if version == "v1":
            write_frame_folder(place, clip.frames)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_video_file(place.with_suffix(".webm"), clip.frames, codec=codec)
        for thing in clip.placeholders:
            label = label.replace("[something]", thing, 1)
        entries[split].append({"id": video_id, "label": label, "template": template, "placeholders": clip.placeholders})
    classes = sorted(map(class_of_template, templates))
    texts = {}
    for split, videos in entries.items():
        lines = [f"{video['id']};{class_of_template(video['template'])}\n" for video in videos]
        texts[split] = "".join(lines) if version == "v1" else json.dumps(videos, indent=0)
    numbers = {name: str(number) for number, name in enumerate(classes)}
    texts["labels"] = "".join(f"{name}\n" for name in classes) if version == "v1" else json.dumps(numbers, indent=0)
    for name, text in texts.items():
        with naming(files[name]):
            files[name].write_text(text, encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rstg_pyg.datasets.made_videos",
        description="Make a small data set like Something-Something, of classes that only motion tells apart.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("root", metavar="out", help="the folder to make")
    parser.add_argument("--version", choices=VERSIONS, default="v1", help="JPEG frames and CSV, or WebM and JSON")
    parser.add_argument("--clips", type=int, default=200, metavar="N", help="training videos")
    parser.add_argument("--validation-clips", type=int, metavar="N", help="validation videos; None: a quarter")
    parser.add_argument("--height", type=int, metavar="H", help="height of the videos; None: as published")
    parser.add_argument("--frames", type=int, nargs=2, default=FRAMES, metavar=("MIN", "MAX"), help="their lengths")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise", type=float, default=1.0, help="how strong background, trembling and grain are")
    parser.add_argument("--codec", choices=tuple(ENCODERS), default="vp9", help="of version 2")
    args = parser.parse_args(argv)
    try:
        make_videos(**{**vars(args), "frames": tuple(args.frames)})
    except (ValueError, OSError, ImportError) as error:
        print(f"made_videos: {error}", file=sys.stderr)
        return 2
    print(f"made {args.clips:,} training videos and their validation videos in {args.root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
