"""Clips generated ahead of time."""

import pickle

import pytest
import torch
from cases import case
from clip_fields import same
from torch_geometric.loader import DataLoader

from rstg_pyg.datasets import clip_file
from rstg_pyg.datasets.drawing import ClipRenderer


def test_pregenerated_clips_are_the_same_bytes(make, monkeypatch):
    fresh, stored = list(make(num_clips=8)), make(num_clips=8, pregenerate=True)
    monkeypatch.setattr(ClipRenderer, "__call__", None)
    for i in range(8):
        assert same(fresh[i], stored[i])
    stored[0].video.zero_()
    assert same(fresh[0], stored[0])
    batch = next(iter(DataLoader(stored, batch_size=8, num_workers=1)))
    assert torch.equal(batch.video[7], fresh[7].video[0])


def test_file_is_used_again_and_keyed_by_the_arguments(make, monkeypatch):
    first = make(num_clips=3, pregenerate=True)
    with monkeypatch.context() as context:
        context.setattr(ClipRenderer, "__call__", None)
        assert same(make(num_clips=3, pregenerate=True)[2], first[2])
    names = {first.processed_file_names[0]}
    for change in [{"seed": 1}, {"num_digits": 4}, {"size": 32}, {"num_frames": 9}, {"train": False}, {"num_clips": 2}]:
        names.add(make(**{"num_clips": 3, "pregenerate": True, **change}).processed_file_names[0])
    assert len(names) == 7
    assert make(num_clips=3).processed_file_names == []


def test_interrupted_generation_leaves_nothing(make, monkeypatch, tmp_path):
    def fail(self, images, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(ClipRenderer, "__call__", fail)
    with pytest.raises(KeyboardInterrupt):
        make(num_clips=3, pregenerate=True)
    assert list((tmp_path / "root" / "processed").iterdir()) == []


def test_damaged_header(make, tmp_path):
    make(num_clips=3, pregenerate=True)
    (path,) = (tmp_path / "root" / "processed").iterdir()
    whole = path.read_bytes()
    advice = r"\. Delete the file and construct the dataset again: it will be generated anew$"
    for damaged, found in [
        (whole[:-1], r"expected \d+ bytes, found \d+"),
        (b"", "EOF"),
        (b"PK" + whole[2:], "the magic string is not correct"),
        (whole.replace(b"'shape': (3", b"'shape': (4"), "expected 3 records of .*, found shape .4. of"),
        # Tokenizers and parsers of Python read the header.
        (whole.replace(b"'shape': (3", b"'shape\": (3"), "(Cannot parse header|unterminated string)"),
        (whole[:10] + b"(" * 118 + whole[128:], ""),
    ]:
        path.write_bytes(damaged)
        message = rf"^expected {path} to be a whole file of clips, got: .*{found}.*{advice}"
        with case(found), pytest.raises(ValueError, match=message):
            make(num_clips=3, pregenerate=True)


def test_damaged_clip(make, tmp_path):
    dataset = make(num_clips=3, pregenerate=True)
    (path,) = (tmp_path / "root" / "processed").iterdir()
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    assert make(num_clips=3, pregenerate=True)[0].video.any()
    with pytest.raises(ValueError, match=rf"{path.name} .* got: clip 1 does not match its checksum\. Delete"):
        dataset[1]
    # In the midst of training: a file mapped into memory would end the process.
    path.write_bytes(content[:middle])
    with pytest.raises(ValueError, match=rf"{path.name} .* got: clip 2 does not match its checksum\. Delete"):
        dataset[2]


def test_file_of_clips_that_is_gone(make, tmp_path):
    dataset = pickle.loads(pickle.dumps(make(num_clips=2, pregenerate=True)))
    next((tmp_path / "root" / "processed").iterdir()).unlink()
    with pytest.raises(FileNotFoundError, match=r"is gone\. Construct the dataset again"):
        dataset[0]


def test_disk_without_room(make, monkeypatch, tmp_path):
    class Full:
        free = 1000

    monkeypatch.setattr(clip_file.shutil, "disk_usage", lambda folder: Full)
    with pytest.raises(OSError, match=r"need 24\.6 GB in .* choose a smaller 'num_clips'"):
        make(pregenerate=True)
    assert list((tmp_path / "root" / "processed").iterdir()) == []


def test_lines_on_the_terminal(make, capfd):
    make(num_clips=1, pregenerate=True)
    assert capfd.readouterr() == ("", "")
    make(num_clips=2, pregenerate=True, log=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("Generating ") and err.count("\n") == 1
