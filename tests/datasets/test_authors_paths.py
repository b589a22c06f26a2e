"""The test clips that the authors of the paper published as paths, and the file that holds them."""

import hashlib
import os
import pickle
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import case
from clip_fields import FIELDS, same
from mnist_damage import everything_under
from torch_geometric.loader import DataLoader

from rstg_pyg.datasets import DownloadError, SyncMNIST, authors_paths, download, pair_to_label, render_clip
from rstg_pyg.datasets.drawing import ClipRenderer

MNIST = os.environ.get("RSTG_PYG_MNIST")
REFERENCE = os.environ.get("RSTG_PYG_REFERENCE")
FILE = authors_paths.FILE_NAME

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
    assert len(content) == authors_paths.NUM_BYTES
    assert hashlib.sha256(content).hexdigest() == authors_paths.CHECKSUM
    assert authors_paths.URL.endswith(f"/{FILE}")


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
    fresh = list(make_authors(authors_pickle, num_clips=4))
    stored = make_authors(authors_pickle, num_clips=4, pregenerate=True)
    drawn = make_authors(None, num_clips=4, pregenerate=True)
    assert stored.processed_file_names != drawn.processed_file_names
    monkeypatch.setattr(ClipRenderer, "__call__", None)
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
    monkeypatch.setattr(authors_paths, "CHECKSUM", hashlib.sha256(content).hexdigest())
    image, old, new = authors_arrays["ind_digits"][0, 7, 3], authors_arrays["set_digits"][0, 7, 2], changed[0, 7, 2]
    message = f"in clip 7 expected digit 3, image {image}, to be of class {new}, got {old}"
    with pytest.raises(ValueError, match=f"the digit images do not fit the authors' paths: {message}"):
        make_authors(authors_pickle)


def test_too_few_images(make_authors, authors_pickle, mnist_folder):
    with pytest.raises(ValueError, match="the authors' paths need at least 10000 digit images, got 40"):
        make_authors(authors_pickle, mnist_dir=mnist_folder)


# Arguments


def test_arguments_that_do_not_go_together(make_authors, tmp_path, no_network):
    for kwargs, message in [
        ({"train": True}, "expected 'train' to be False with 'paths', which are those of test clips, got True"),
        ({"num_digits": 3}, "expected 'num_digits' to be 5 with 'paths', as in the authors' clips, got 3"),
        ({"num_frames": 9}, "expected 'num_frames' to be 10 with 'paths', as in the authors' clips, got 9"),
        ({"num_clips": 10_001}, "expected 'num_clips' to be at most 10000 with 'paths', got 10001"),
        ({"delay": 3}, "'delay' has no effect with 'paths', where nothing is drawn: leave it out, got 3"),
        ({"seed": 1}, "'seed' has no effect with 'paths', where nothing is drawn: leave it out, got 1"),
        (
            {"no_sync_probability": 0.5},
            r"'no_sync_probability' has no effect with 'paths', where nothing is drawn: leave it out, got 0\.5",
        ),
        ({"digits": "sklearn"}, "expected 'digits' to be 'mnist' or 'auto' with 'paths', got 'sklearn'"),
        ({"digits": "emnist"}, "expected 'digits' to be 'mnist' or 'auto' with 'paths', got 'emnist'"),
    ]:
        with case(kwargs), pytest.raises(ValueError, match=f"^{message}$"):
            make_authors("authors", **kwargs)
    for paths in (3, b"authors"):
        with pytest.raises(ValueError, match=f"expected 'paths' to be \"authors\", a path or None, got {paths!r}"):
            make_authors(paths)
    assert no_network == []
    assert list(tmp_path.iterdir()) == []


# Where the file comes from


@pytest.fixture
def served(monkeypatch, authors_content):
    """Stands in for the network: serves the file, or what a test puts in its place."""
    answer = {"content": authors_content, "calls": []}

    def save(url, target):
        answer["calls"].append(url)
        target.write_bytes(answer["content"])

    monkeypatch.setattr(download, "_save", save)
    return answer


def test_download(make_authors, served, authors_pickle, tmp_path):
    dataset = make_authors("authors")
    assert served["calls"] == [authors_paths.URL]
    assert everything_under(tmp_path / "root") == ["raw", f"raw/{FILE}"]
    assert same(dataset[5], make_authors(authors_pickle)[5])
    make_authors("authors")
    assert len(served["calls"]) == 1
    (tmp_path / "root" / "raw" / FILE).write_bytes(served["content"][:-1])
    with pytest.raises(
        ValueError, match=rf"raw/{FILE} is not the .*\. Delete the file and construct the dataset again"
    ):
        make_authors("authors")


def test_wrong_download_is_an_error_and_leaves_nothing(make_authors, served, tmp_path):
    served["content"] = b"<!DOCTYPE html><html></html>"
    message = (
        rf"{FILE} could not be downloaded \({re.escape(authors_paths.URL)}: .*expected 1260612 bytes with SHA-256 "
        rf"{authors_paths.CHECKSUM}, found 28 bytes with [0-9a-f]{{64}}\)\. What arrives is not the file, or not all "
        rf"of it: .* put the file into .*root/raw$"
    )
    with pytest.raises(ValueError, match=message):
        make_authors("authors")
    assert not (tmp_path / "root").exists()


def test_without_network(make_authors, authors_content, tmp_path, no_network):
    message = (
        rf"{FILE} could not be downloaded \({re.escape(authors_paths.URL)}: network is unreachable\)\. Connect to the "
        r"network, or put the file \(1260612 bytes with SHA-256 [0-9a-f]{64}\) into .*root/raw or into a folder named "
        r"in RSTG_PYG_REFERENCE, or name it in 'paths'$"
    )
    with pytest.raises(DownloadError, match=message):
        make_authors("authors")
    assert len(no_network) == 1
    assert not (tmp_path / "root").exists()


def test_without_mnist_there_are_no_other_digits(make_authors, authors_pickle):
    with pytest.raises(DownloadError, match=r"network is unreachable.*or put the four MNIST files"):
        make_authors(authors_pickle, digits="auto", mnist_dir=None)


def test_variable_names_the_folder(make_authors, authors_pickle, tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("RSTG_PYG_REFERENCE", str(tmp_path))
    correct = r"\. Put an intact copy of the file there \(it is at https.*\), or correct the environment variable RSTG"
    with pytest.raises(FileNotFoundError, match=rf"there is no file .*/{FILE} with the authors' paths{correct}"):
        make_authors("authors")
    authors_pickle.rename(tmp_path / FILE)
    dataset = make_authors("authors")
    assert no_network == []
    (tmp_path / FILE).write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{FILE} is not the .*found 0 bytes with .*{correct}"):
        make_authors("authors")
    again = pickle.loads(pickle.dumps(dataset))
    with pytest.raises(ValueError, match="found 0 bytes"):
        again[0]


def test_named_file_that_is_missing_or_damaged(make_authors, authors_pickle, authors_content, no_network):
    correct = r"\. Put an intact copy of the file there \(it is at https.*\), or correct 'paths'$"
    for missing in (authors_pickle.parent / "absent", authors_pickle.parent):
        with pytest.raises(FileNotFoundError, match=f"there is no file {missing} with the authors' paths{correct}"):
            make_authors(missing)
    changed = bytearray(authors_content)
    changed[len(authors_content) // 2] ^= 1
    for damaged in (authors_content[:-1], bytes(changed), b""):
        authors_pickle.write_bytes(damaged)
        found = f"found {len(damaged)} bytes with {hashlib.sha256(damaged).hexdigest()}"
        message = f"expected 1260612 bytes with SHA-256 {authors_paths.CHECKSUM}, {found}{correct}"
        with pytest.raises(ValueError, match=f"{authors_pickle} is not the {FILE} of the authors: {message}"):
            make_authors(authors_pickle)
    assert no_network == []


# What is in the file


class Call:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    content = pickle.dumps({"coords_digits": Call(os.system, f"touch {tmp_path}/ran")}, protocol=3)
    with pytest.raises(ValueError, match=rf"a pickle of arrays was expected, but it asks for {os.name}\.system"):
        authors_paths.parse_paths(content)
    pickle.loads(content)
    assert (tmp_path / "ran").exists()


def test_other_classes_are_refused():
    for value, name in [
        (Call(eval, "1"), "builtins.eval"),
        (np.float64(1), "multiarray.scalar"),
        (Path("a"), "Path"),
        (torch.Size([1]), "torch.Size"),
        (np.ma.zeros(1), "_mareconstruct"),
        (np.load, "load"),
        (Call(getattr, 1, "real"), "builtins.getattr"),
    ]:
        for protocol in (0, 2, 3, 4):
            content = pickle.dumps([value], protocol=protocol).replace(b"__builtin__", b"builtins")
            message = rf"a pickle of arrays was expected, but it asks for \S*{re.escape(name)}$"
            with case(name, protocol), pytest.raises(ValueError, match=message):
                authors_paths.parse_paths(content)


def test_arrays_written_by_numpy_1_and_2(authors_arrays):
    content = pickle.dumps(authors_arrays, protocol=3).replace(b"numpy._core.", b"numpy.core.")
    for written in (content, content.replace(b"numpy.core.", b"numpy._core.")):
        parsed = authors_paths.parse_paths(written)
        assert list(parsed) == ["coords_digits", "ind_digits", "set_digits", "sincron_prob"]
        for name, array in parsed.items():
            assert (array == authors_arrays[name][0]).all()


def test_other_arrays(authors_arrays):
    for change, message in [
        ({"sincron_prob": None}, "expected an array 'sincron_prob', got NoneType"),
        (
            {"set_digits": np.zeros((1, 10_000, 5), np.uint8)},
            r"expected 'set_digits' to be \[1, 10000, 4\] of uint8, got \[1, 10000, 5\] of uint8",
        ),
        (
            {"ind_digits": np.zeros((1, 10_000, 5), np.int64)},
            r"expected 'ind_digits' to be \[1, 10000, 5\] of uint32, got \[1, 10000, 5\] of int64",
        ),
        (
            {"coords_digits": np.full((1, 10_000, 10, 5, 2), 72, np.uint8)},
            "expected 'coords_digits' to lie within 0 to 71, got 72",
        ),
        (
            {"ind_digits": np.full((1, 10_000, 5), 10_000, np.uint32)},
            "expected 'ind_digits' to lie within 0 to 9999, got 10000",
        ),
        ({"sincron_prob": np.full((1, 10_000), 2, np.uint8)}, "expected 'sincron_prob' to lie within 0 to 1, got 2"),
    ]:
        with case(message), pytest.raises(ValueError, match=f"^{message}$"):
            authors_paths.parse_paths(pickle.dumps({**authors_arrays, **change}, protocol=3))
    with pytest.raises(ValueError, match="expected a dictionary of arrays, got list"):
        authors_paths.parse_paths(pickle.dumps([], protocol=3))
