"""Errors of files name them: whatever a parser raises, and a full disk wherever something is written."""

import contextlib
import resource
from fractions import Fraction

import lightning
import numpy as np
import pytest
import torch
from cases import case

from rstg_pyg.datasets.clip_file import ClipFile
from rstg_pyg.datasets.video import write_frame_folder
from rstg_pyg.files import FileError, naming, open_file, reading, replace_file
from rstg_pyg.predict.writing import write_video
from rstg_pyg.training import ClipMetrics, Phase, Recipe, save_weights
from rstg_pyg.training.metrics import COLUMNS


class OwnError(FileError):
    pass


def test_what_a_parser_raises_becomes_one_sentence():
    for error, reason in [
        (KeyError("x"), "'x'"),
        (RecursionError("too deep\n\tand more"), "too deep and more"),
        (MemoryError(), "MemoryError"),
        (OSError("Not a gzipped file"), "Not a gzipped file"),
        (ValueError("x" * 10_000), "x" * 300 + "..."),
    ]:
        with case(error, reason):
            with pytest.raises(OwnError) as raised, reading("a/b.bin", OwnError, "a letter"):
                raise error
            assert str(raised.value) == f"expected a/b.bin to be a letter, got: {reason}"


def test_sentences_and_what_is_not_of_the_file_pass():
    for error in [OwnError("b.bin is short"), KeyboardInterrupt(), OSError(5, "I/O error", "c.bin")]:
        with case(error):
            with pytest.raises(type(error)) as raised, reading("a/b.bin", FileError, "a letter"):
                raise error
            assert raised.value is error
            assert getattr(error, "filename", None) in (None, "c.bin")


def test_errors_of_the_system_get_the_name_of_the_file():
    for context in (naming("a/b.bin"), reading("a/b.bin", FileError, "a letter")):
        with pytest.raises(OSError, match=r"^\[Errno 5\] I/O error: 'a/b\.bin'$"), context:
            raise OSError(5, "I/O error")


def test_a_device_does_not_end():
    with pytest.raises(FileError, match=r"^expected a file /dev/zero, got a pipe or a device$"):
        open_file("/dev/zero")


@contextlib.contextmanager
def full_disk():
    """No file gets longer than some bytes: writing more fails as on a full disk, with an error that names no file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def frames():
    random = np.random.default_rng(0)
    return (random.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(3))


def write_row(path):
    metrics = ClipMetrics(path.parent, Recipe((Phase(100),)))
    metrics._row = dict.fromkeys(COLUMNS, 12345678901.5)
    metrics._write_row(lightning.Trainer(logger=False, accelerator="cpu"))


WRITERS = {
    "replaced.txt": lambda path: replace_file(path, bytes(200)),
    "weights.pt": lambda path: save_weights(torch.nn.Linear(2, 2), path),
    "metrics.csv": write_row,
    "clips.npy": lambda path: ClipFile(path, 2, 2, 16).write(lambda index: np.zeros((2, 16, 16), np.uint8)),
    "video.webm": lambda path: write_video(path, frames(), Fraction(12)),
    "video.mp4": lambda path: write_video(path, frames(), Fraction(12)),
    "video.gif": lambda path: write_video(path, frames(), Fraction(12)),
    "00001.jpg": lambda path: write_frame_folder(path.parent, frames()),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_reported_with_the_file(tmp_path, name):
    with pytest.raises(OSError) as raised, full_disk():
        WRITERS[name](tmp_path / name)
    assert raised.value.filename.startswith(str(tmp_path / name))
    assert name in str(raised.value)
