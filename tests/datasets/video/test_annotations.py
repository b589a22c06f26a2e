import json
import re

import pytest

from rstg_pyg.datasets.video import AnnotationError, class_of_template, read_annotations

CLASSES = ["Moving something up", "Putting something, then something else", "Pushing something from left to right"]
LINES = "".join(f"{name}\n" for name in CLASSES)
TEMPLATES = ["Moving [something] up", "Putting [something], then [something else]"]


@pytest.fixture
def v1(tmp_path):
    def write(labels=LINES, train="12;Moving something up\n", prefix="something-something-v1-"):
        (tmp_path / f"{prefix}labels.csv").write_text(labels)
        (tmp_path / f"{prefix}train.csv").write_text(train)
        return read_annotations(tmp_path, "v1", "train")

    return write


@pytest.fixture
def v2(tmp_path):
    def write(labels=None, train=None, folder=tmp_path, prefix="something-something-v2-"):
        folder.mkdir(exist_ok=True)
        labels = {name: str(number) for number, name in enumerate(CLASSES)} if labels is None else labels
        train = [{"id": "3", "template": TEMPLATES[0]}] if train is None else train
        (folder / f"{prefix}labels.json").write_text(json.dumps(labels))
        (folder / f"{prefix}train.json").write_text(train if isinstance(train, str) else json.dumps(train))
        return read_annotations(tmp_path, "v2", "train")

    return write


def test_v1_takes_lines_as_published(v1):
    found = v1(train=f"100218;{CLASSES[2]}\r\n24413;{CLASSES[1]}\r\n\r\n7;{CLASSES[1]}")
    assert found.video_ids.tolist() == ["100218", "24413", "7"]
    assert found.labels.tolist() == [2, 1, 1]
    assert found.classes == tuple(CLASSES)


@pytest.mark.parametrize(("place", "prefix"), [("", "something-something-v2-"), ("labels", "")])
def test_v2_takes_entries_as_published(v2, tmp_path, place, prefix):
    entries = [
        {"id": "78687", "label": "moving cup up", "template": TEMPLATES[0], "placeholders": ["cup"]},
        {"id": "42326", "label": "...", "template": TEMPLATES[1], "placeholders": ["a", "b"]},
    ]
    numbers = {CLASSES[0]: "2", CLASSES[1]: "0", CLASSES[2]: "1"}
    found = v2(numbers, entries, tmp_path / place, prefix)
    assert found.video_ids.tolist() == ["78687", "42326"]
    assert found.classes == (CLASSES[1], CLASSES[2], CLASSES[0])
    assert found.labels.tolist() == [2, 0]


def test_templates():
    assert class_of_template("Stacking [number of] [something]") == "Stacking number of something"


V1_ERRORS = [
    (
        {"train": "12,Moving something up\n"},
        "train.csv, line 1: expected 'id;class name', got '12,Moving something up'",
    ),
    ({"train": "12;Moving something up\n13;\n"}, "train.csv, line 2: expected 'id;class name', got '13;'"),
    (
        {"train": "12;Moving somethin up\n"},
        "train.csv, line 1: expected a class of {root}/something-something-v1-labels.csv, "
        "got 'Moving somethin up'; the nearest is 'Moving something up'",
    ),
    (
        {"train": "\n12;xyz\n"},
        "train.csv, line 2: expected a class of {root}/something-something-v1-labels.csv, got 'xyz'",
    ),
    ({"train": "7;Moving something up\n" * 2}, "train.csv: expected every video once, got '7' twice"),
    ({"train": "\n"}, "train.csv: expected videos, got none"),
    *(
        (
            {"train": f"{name};{CLASSES[0]}\n"},
            f"train.csv, line 1: expected a plain file name for a video, got {name!r}",
        )
        for name in ("../../3", "/etc/3", "..", ".", "a/3", "a\\3", "C:3", "3\x1b")
    ),
    ({"labels": "a\nb\na\n"}, "labels.csv: expected every class once, got 'a' twice"),
    ({"labels": ""}, "labels.csv: expected one class name a line, got none"),
]


def test_v1_errors(v1, tmp_path):
    for files, message in V1_ERRORS:
        with pytest.raises(AnnotationError) as error:
            v1(**files)
        assert str(error.value) == f"{tmp_path}/something-something-v1-" + message.format(root=tmp_path)


V2_ERRORS = [
    (
        {"train": "[{"},
        "train.json to be annotations of the published form, got: "
        "Expecting property name enclosed in double quotes: line 1 column 3 (char 2)",
    ),
    ({"train": {}}, "train.json: expected a list of entries, got {}"),
    ({"train": [{"id": "3"}]}, "train.json, entry 0: expected an object with 'id' and 'template', got {'id': '3'}"),
    (
        {"train": [{"id": "3", "template": TEMPLATES[0]}, {"id": "4", "template": "Moving [something] upp"}]},
        "train.json, entry 1: expected a class of ROOT/something-something-v2-labels.json, "
        "got 'Moving something upp'; the nearest is 'Moving something up'",
    ),
    (
        {"train": [{"id": "\ud8003", "template": TEMPLATES[0]}]},
        "train.json, entry 0: expected a plain file name for a video, got '\\ud8003'",
    ),
    ({"labels": []}, "labels.json: expected an object from class names to numbers, got []"),
    ({"labels": {"a": "x"}}, "labels.json: expected a number for class 'a', got 'x'"),
    ({"labels": {"a": 0, "b": 2}}, "labels.json: expected the numbers 0 to 1, each for one class, got [0, 2]"),
    ({"labels": {"a": 0, "b": "0"}}, "labels.json: expected the numbers 0 to 1, each for one class, got [0]"),
]


def test_v2_errors(v2, tmp_path):
    for files, message in V2_ERRORS:
        with pytest.raises(AnnotationError) as error:
            v2(**files)
        message = f"{tmp_path}/something-something-v2-" + message.replace("ROOT", str(tmp_path))
        assert str(error.value).removeprefix("expected ") == message


def test_text_that_is_none(tmp_path):
    (tmp_path / "something-something-v1-labels.csv").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "something-something-v1-train.csv").write_text("1;a\n")
    with pytest.raises(AnnotationError, match=r"labels\.csv to be annotations of .* got: 'utf-8' codec"):
        read_annotations(tmp_path, "v1", "train")


HOSTILE = [
    ("[" * 100_000, "[]", "labels.json to be annotations .* got: maximum recursion depth"),
    (
        '{"a": 1' + "0" * 5000 + "}",
        "[]",
        r"labels.json to be annotations .* got: Exceeds the limit",
    ),
    (
        '{"a": "1' + "0" * 5000 + '"}',
        "[]",
        r"labels.json to be annotations .* got: Exceeds the limit",
    ),
    (
        '{"a": 0}',
        '[{"id": "' + "7" * 100_000 + '", "template": "a"}]',
        "entry 0: expected a plain file name for a video, got '777",
    ),
    ('{"a": 0}', '[{"id": "7", "template": "' + "a" * 100_000 + '"}]', "entry 0: expected a class of .*, got 'aaa"),
    ("[" + "7," * 100_000 + "7]", "[]", "labels.json: expected an object from class names to numbers, got"),
]


def test_hostile_json_is_one_short_sentence(tmp_path):
    for labels, train, message in HOSTILE:
        (tmp_path / "labels.json").write_text(labels)
        (tmp_path / "train.json").write_text(train)
        with pytest.raises(AnnotationError, match=message) as error:
            read_annotations(tmp_path, "v2", "train")
        assert len(str(error.value)) < 1000


def test_missing_files(tmp_path):
    for version, names in (
        ("v1", "something-something-v1-labels.csv"),
        ("v2", "something-something-v2-labels.json or labels.json"),
    ):
        message = f"expected the annotation file {names} in {tmp_path} or {tmp_path}/labels, got none"
        with pytest.raises(FileNotFoundError, match=re.escape(message)):
            read_annotations(tmp_path, version, "train")


def test_unknown_version_and_split(tmp_path):
    with pytest.raises(ValueError, match="'version' to be one of 'v1', 'v2', got 'v3'"):
        read_annotations(tmp_path, "v3", "train")
    with pytest.raises(ValueError, match="'split' to be one of 'train', 'validation', 'test', got 'dev'"):
        read_annotations(tmp_path, "v1", "dev")


def test_the_test_split_has_no_labels(v1, v2, tmp_path):
    v1()
    v2()
    (tmp_path / "something-something-v1-test.csv").write_text(f"100218\n24413\n7;{CLASSES[2]}\n")
    entries = [{"id": 100218}, {"id": "24413"}, {"id": "7", "template": TEMPLATES[1]}]
    (tmp_path / "something-something-v2-test.json").write_text(json.dumps(entries))
    for version, last in (("v1", 2), ("v2", 1)):
        found = read_annotations(tmp_path, version, "test")
        assert found.video_ids.tolist() == ["100218", "24413", "7"]
        assert found.labels.tolist() == [-1, -1, last]
