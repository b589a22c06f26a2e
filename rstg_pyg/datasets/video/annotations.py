"""The annotations of Something-Something, in the files of version 1 (CSV) and of version 2 (JSON)."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rstg_pyg.arguments import check_choice
from rstg_pyg.files import FileError, reading, shown

VERSIONS = ("v1", "v2")
SPLITS = ("train", "validation")
ALL_SPLITS = (*SPLITS, "test")
"""With the one that is published without labels."""
# Names under which each file was published.
_FILES = {
    "v1": ("something-something-v1-{}.csv",),
    "v2": ("something-something-v2-{}.json", "{}.json"),
}
_LONGEST_ID = 255
"""Of the names that file systems take. An array of names is as wide as the longest."""


class AnnotationError(FileError):
    r"""An annotation file is not what it should be. The message names the file and the line or entry."""


class Annotations(NamedTuple):
    r"""The videos of a split and their classes.

    Attributes:
        video_ids: The names of the videos, ``[N]`` strings.
        labels: The numbers of their classes, ``[N]`` int64; -1 where none is published.
        classes: The names of all classes, without brackets.
    """

    video_ids: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


def read_annotations(folder: str | os.PathLike, version: str, split: str) -> Annotations:
    r"""Read the annotations of a split as published.

    Version 1 has ``something-something-v1-labels.csv`` with one class name a line, in the order of their numbers, and
    ``something-something-v1-train.csv`` and ``-validation.csv`` with lines ``id;class name``.

    Version 2 has ``something-something-v2-labels.json`` with the number of every class name, and
    ``something-something-v2-train.json`` and ``-validation.json`` with a list of entries, of which ``"id"`` and
    ``"template"`` are read: the class name, with brackets around its placeholders. The short names ``labels.json``,
    ``train.json`` and ``validation.json`` do too.

    The files of the test split have names without classes: ``id``, and entries with ``"id"`` alone. If it comes with
    them, they are read.

    Args:
        folder: The folder with these files, or with a folder ``labels`` that has them.
        version: ``"v1"`` or ``"v2"``.
        split: ``"train"``, ``"validation"`` or ``"test"``.

    Raises:
        FileNotFoundError: If a file is missing.
        AnnotationError: If a file is not of that form, names an unknown class, a video twice, or none, or calls one by
            what is no plain name of a file.
        ValueError: If ``version`` or ``split`` is none of these.

    Example:
        >>> _ = Path("something-something-v1-labels.csv").write_text("Moving something up\nHolding something\n")
        >>> _ = Path("something-something-v1-train.csv").write_text("7;Holding something\n")
        >>> annotations = read_annotations(".", "v1", "train")
        >>> annotations.video_ids.tolist(), annotations.labels.tolist()
        (['7'], [1])
    """
    check_choice("version", version, VERSIONS)
    check_choice("split", split, ALL_SPLITS)
    classes_file, videos_file = (_find(Path(folder), version, name) for name in ("labels", split))
    read_classes, read_videos = (_classes_v1, _videos_v1) if version == "v1" else (_classes_v2, _videos_v2)
    with reading(classes_file, AnnotationError, "annotations of the published form"):
        classes = read_classes(classes_file)
    with reading(videos_file, AnnotationError, "annotations of the published form"):
        videos = read_videos(videos_file, split in SPLITS)
    numbers: dict[str | None, int] = {None: -1, **{name: number for number, name in enumerate(classes)}}
    video_ids, labels = [], []
    for place, video_id, name in videos:
        at = f"{videos_file}, {place}"
        if not _is_file_name(video_id):
            raise AnnotationError(f"{at}: expected a plain file name for a video, got {_shown(video_id)}")
        if name not in numbers:
            # Of the published number of classes; among a hundred times as many the search takes minutes.
            near = get_close_matches(name, classes[:1000], n=1)
            hint = f"; the nearest is {_shown(near[0])}" if near else ""
            raise AnnotationError(f"{at}: expected a class of {classes_file}, got {_shown(name)}{hint}")
        video_ids.append(video_id)
        labels.append(numbers[name])
    if not video_ids:
        raise AnnotationError(f"{videos_file}: expected videos, got none")
    _check_once(videos_file, "video", video_ids)
    return Annotations(np.array(video_ids), np.array(labels, dtype=np.int64), classes)


def class_of_template(template: str) -> str:
    r"""The class name of a template of version 2: the template without brackets.

    Example:
        >>> class_of_template("Moving [something] closer to [something]")
        'Moving something closer to something'
    """
    return re.sub(r"[\[\]]", "", template)


def annotation_files(folder: Path, version: str, name: str) -> list[Path]:
    """Where the annotations of a split, or ``"labels"``, are looked for, in that order."""
    return [place / form.format(name) for place in (folder, folder / "labels") for form in _FILES[version]]


def _find(folder: Path, version: str, name: str) -> Path:
    for path in annotation_files(folder, version, name):
        if path.is_file():
            return path
    names = " or ".join(form.format(name) for form in _FILES[version])
    raise FileNotFoundError(f"expected the annotation file {names} in {folder} or {folder / 'labels'}, got none")


def _is_file_name(name: str) -> bool:
    """Whether a name stays in its folder, on any system: no path, no drive, not the folder itself or the one above."""
    return len(name) <= _LONGEST_ID and name.isprintable() and name.strip(".") != "" and not set(name) & set("/\\:")


def _check_once(path: Path, what: str, names: Sequence[str]) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise AnnotationError(f"{path}: expected every {what} once, got {_shown(twice)} twice")


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, with their numbers from 1."""
    text = path.read_text(encoding="utf-8-sig")
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _classes_v1(path: Path) -> tuple[str, ...]:
    classes = tuple(line for _, line in _lines(path))
    _check_once(path, "class", classes)
    if not classes:
        raise AnnotationError(f"{path}: expected one class name a line, got none")
    return classes


def _videos_v1(path: Path, labelled: bool) -> list[tuple[str, str, str | None]]:
    videos = []
    for number, line in _lines(path):
        video_id, _, name = line.partition(";")
        if not video_id or (labelled and not name):
            raise AnnotationError(f"{path}, line {number}: expected 'id;class name', got {_shown(line)}")
        videos.append((f"line {number}", video_id, name or None))
    return videos


def _classes_v2(path: Path) -> tuple[str, ...]:
    numbers = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(numbers, dict) or not numbers:
        raise AnnotationError(f"{path}: expected an object from class names to numbers, got {_shown(numbers)}")
    classes: dict[int, str] = {}
    for name, number in numbers.items():
        if isinstance(number, bool) or not str(number).isdecimal():
            raise AnnotationError(f"{path}: expected a number for class {_shown(name)}, got {_shown(number)}")
        classes[int(number)] = name
    if sorted(classes) != list(range(len(numbers))):
        raise AnnotationError(
            f"{path}: expected the numbers 0 to {len(numbers) - 1}, each for one class, got {_shown(sorted(classes))}"
        )
    return tuple(classes[number] for number in range(len(classes)))


def _videos_v2(path: Path, labelled: bool) -> list[tuple[str, str, str | None]]:
    entries = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(entries, list):
        raise AnnotationError(f"{path}: expected a list of entries, got {_shown(entries)}")
    needed = ("id", "template") if labelled else ("id",)
    videos = []
    for number, entry in enumerate(entries):
        place = f"entry {number}"
        if not isinstance(entry, dict) or not set(needed) <= entry.keys():
            raise AnnotationError(
                f"{path}, {place}: expected an object with {' and '.join(map(repr, needed))}, got {_shown(entry)}"
            )
        name = class_of_template(str(entry["template"])) if "template" in entry else None
        videos.append((place, str(entry["id"]), name))
    return videos


def _shown(value: object) -> str:
    return shown(repr(value))
