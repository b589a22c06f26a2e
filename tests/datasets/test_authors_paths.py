"""The test clips that the authors of the paper published as paths."""

import hashlib
import os
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_fields import FIELDS, same
from torch_geometric.loader import DataLoader

from rstg_pyg.datasets import (
    SyncMNIST,
    authors_file,
    pair_to_label,
    render_clip,
)

MNIST = os.environ.get("RSTG_PYG_MNIST")
REFERENCE = os.environ.get("RSTG_PYG_REFERENCE")
FILE = "predefined_path_test.pickle"

needs_mnist = pytest.mark.skipif(not MNIST, reason="RSTG_PYG_MNIST does not name a folder with the files of MNIST")
needs_reference = pytest.mark.skipif(
    not REFERENCE, reason="RSTG_PYG_REFERENCE does not name the folder with the authors' recordings"
)


# The authors' own file


@needs_mnist
@needs_reference
def test_all_official_clips_byte_for_byte(tmp_path):
    dataset = SyncMNIST(tmp_path, train=False, mnist_dir=MNIST, paths=Path(REFERENCE, FILE))
    assert len(dataset) == 10_000
    with np.load(Path(REFERENCE, "syncmnist_test_official.npz"), allow_pickle=False) as file:
        official = {name: file[name] for name in file.files}
    with np.load(Path(REFERENCE, "predefined_paths_test.npz"), allow_pickle=False) as file:
        corners, in_step = file["coords_digits"][0].swapaxes(1, 2), file["sincron_prob"][0]
    for thousand in range(10):
        content = hashlib.sha256()
        for number in range(1000 * thousand, 1000 * (thousand + 1)):
            data = dataset[number]
            assert data.digits[0].tolist() == official["videos_digits"][number].tolist()
            assert data.y.tolist() == [official["labels"][number]]
            assert data.sync.tolist() == ([[0, 1]] if in_step[number] else [[-1, -1]])
            assert (data.path[0].numpy() == corners[number]).all()
            video = data.video[0, 0].numpy()
            content.update(video)
            assert zlib.crc32(video) == official["crc32"][number]
            if number < len(official["videos_first24"]):
                assert (video == official["videos_first24"][number]).all()
        assert content.hexdigest() == official["sha256_per_1000"][thousand]


@needs_mnist
@needs_reference
def test_the_file_is_found_through_the_variables(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("RSTG_PYG_MNIST", MNIST)
    monkeypatch.setenv("RSTG_PYG_REFERENCE", REFERENCE)
    dataset = SyncMNIST(tmp_path / "root", train=False, paths="authors")
    assert same(dataset[9_999], SyncMNIST(tmp_path, train=False, paths=os.path.join(REFERENCE, FILE))[9_999])
    assert no_network == []
    assert list(tmp_path.iterdir()) == []


@needs_reference
def test_the_file_is_the_one_the_source_describes():
    content = Path(REFERENCE, FILE).read_bytes()
    assert len(content) == authors_file.NUM_BYTES
    assert hashlib.sha256(content).hexdigest() == authors_file.CHECKSUM
    assert authors_file.URL.endswith(f"/{FILE}")


# The same with stand-ins for the file and for the images


def test_items_are_those_of_the_file(make_authors, authors_pickle, authors_arrays, authors_images):
    dataset = make_authors(authors_pickle)
    assert len(dataset) == 10_000
    assert dataset.source == "mnist"
    _, images, labels = authors_images
    for number in (0, 1, 92, 9_999):
        data = dataset[number]
        shown = authors_arrays["ind_digits"][0, number]
        classes = labels[shown].tolist()
        corners = authors_arrays["coords_digits"][0, number].swapaxes(0, 1)
        in_step = number % 92 > 0
        assert data.digits.tolist() == [classes]
        assert classes[1:] == authors_arrays["set_digits"][0, number].tolist()
        assert data.path.tolist() == [corners.tolist()]
        assert data.y.tolist() == [pair_to_label(classes[0], classes[1]) if in_step else 45]
        assert data.sync.tolist() == [[0, 1] if in_step else [-1, -1]]
        assert (data.video[0, 0].numpy() == render_clip(images[shown], corners)).all()
        assert {data[name].dtype for name in FIELDS[1:]} == {torch.long}
        assert set(data.keys()) == set(FIELDS)


def test_size_and_number_of_clips_are_free(make_authors, authors_pickle):
    few, all_clips = make_authors(str(authors_pickle), num_clips=3), make_authors(authors_pickle)
    assert len(few) == 3
    assert same(few[2], all_clips[2])
    small = make_authors(authors_pickle, size=32)[2]
    assert small.video.shape == (1, 1, 10, 32, 32)
    assert torch.equal(small.path, all_clips[2].path)


def test_pregenerated_clips_are_the_same_bytes(make_authors, authors_pickle, monkeypatch):
    fresh = make_authors(authors_pickle, num_clips=4)
    stored = make_authors(authors_pickle, num_clips=4, pregenerate=True)
    drawn = make_authors(None, num_clips=4, pregenerate=True)
    assert stored.processed_file_names != drawn.processed_file_names
    monkeypatch.setattr(stored, "_render", None)
    for number in range(4):
        assert same(fresh[number], stored[number])
        assert not same(drawn[number], stored[number])


def test_pickles_are_small_and_workers_make_no_difference(make_authors, authors_pickle, monkeypatch):
    monkeypatch.chdir(authors_pickle.parent)
    dataset = make_authors(authors_pickle.name, num_clips=6)
    dataset[0]
    content = pickle.dumps(dataset)
    assert len(content) < 2500
    monkeypatch.chdir("/")
    assert same(pickle.loads(content)[4], dataset[4])
    batches = list(DataLoader(dataset, batch_size=4, num_workers=2))
    for name in FIELDS:
        assert torch.equal(torch.cat([batch[name] for batch in batches]), torch.cat([data[name] for data in dataset]))


def test_classes_that_do_not_fit_the_images(make_authors, authors_pickle, authors_arrays, monkeypatch):
    changed = authors_arrays["set_digits"].copy()
    changed[0, 7, 2] = (changed[0, 7, 2] + 1) % 10
    content = pickle.dumps({**authors_arrays, "set_digits": changed}, protocol=3)
    authors_pickle.write_bytes(content)
    monkeypatch.setattr(authors_file, "CHECKSUM", hashlib.sha256(content).hexdigest())
    image, old, new = authors_arrays["ind_digits"][0, 7, 3], authors_arrays["set_digits"][0, 7, 2], changed[0, 7, 2]
    message = f"in clip 7 expected digit 3, image {image}, to be of class {new}, got {old}"
    with pytest.raises(ValueError, match=f"the digit images do not fit the authors' paths: {message}"):
        make_authors(authors_pickle)


def test_too_few_images(make_authors, authors_pickle, mnist_folder):
    with pytest.raises(ValueError, match="the authors' paths need at least 10000 digit images, got 40"):
        make_authors(authors_pickle, mnist_dir=mnist_folder)


# Arguments


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"train": True}, "expected 'train' to be False with 'paths', which are those of test clips, got True"),
        ({"num_digits": 3}, "expected 'num_digits' to be 5 with 'paths', as in the authors' clips, got 3"),
        ({"num_frames": 9}, "expected 'num_frames' to be 10 with 'paths', as in the authors' clips, got 9"),
        ({"num_clips": 10_001}, "expected 'num_clips' to be at most 10000 with 'paths', got 10001"),
        ({"seed": 1}, "'seed' has no effect with 'paths', where nothing is drawn: leave it out, got 1"),
        (
            {"no_sync_probability": 0.5},
            r"'no_sync_probability' has no effect with 'paths', where nothing is drawn: leave it out, got 0\.5",
        ),
        ({"digits": "sklearn"}, "expected 'digits' to be 'mnist' or 'auto' with 'paths', got 'sklearn'"),
        ({"digits": "emnist"}, "expected 'digits' to be 'mnist' or 'auto' with 'paths', got 'emnist'"),
    ],
)
def test_arguments_that_do_not_go_together(make_authors, kwargs, message, tmp_path, no_network):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make_authors("authors", **kwargs)
    assert no_network == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("paths", [3, True, b"authors"])
def test_paths_of_the_wrong_type(make_authors, paths):
    with pytest.raises(TypeError, match=f"expected 'paths' to be \"authors\", a path or None, got {paths!r}"):
        make_authors(paths)
