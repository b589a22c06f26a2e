"""The file of the authors' paths: where it comes from, and what may be in it."""

import hashlib
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_fields import same

from rstg_pyg.datasets import DownloadError, authors_file, download

FILE = authors_file.FILE_NAME


# Where the file comes from


@pytest.fixture
def served(monkeypatch, authors_content):
    """Stands in for PyG's download helper: serves the file, or what a test puts in its place."""
    answer = {"content": authors_content, "calls": []}

    def serve(url, folder, log=True):
        answer["calls"].append(url)
        path = os.path.join(folder, url.rpartition("/")[2])
        with open(path, "wb") as file:
            file.write(answer["content"])
        return path

    monkeypatch.setattr(download, "download_url", serve)
    return answer


def everything_under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_download(make_authors, served, authors_pickle, tmp_path):
    dataset = make_authors("authors")
    assert served["calls"] == [authors_file.URL]
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
        rf"{FILE} could not be downloaded \({re.escape(authors_file.URL)}: .*expected 1260612 bytes with SHA-256 "
        rf"{authors_file.CHECKSUM}, found 28 bytes with [0-9a-f]{{64}}\)\. What arrives is not the file, or not all of "
        rf"it: .* put the file into .*root/raw$"
    )
    with pytest.raises(ValueError, match=message):
        make_authors("authors")
    assert not (tmp_path / "root").exists()


def test_without_network(make_authors, authors_content, tmp_path, no_network):
    message = (
        rf"{FILE} could not be downloaded \({re.escape(authors_file.URL)}: network is unreachable\)\. Connect to the "
        r"network, or put the file \(1260612 bytes with SHA-256 [0-9a-f]{64}\) into .*root/raw or into a folder named "
        r"in RSTG_PYG_REFERENCE, or name it in 'paths'$"
    )
    with pytest.raises(DownloadError, match=message):
        make_authors("authors")
    assert len(no_network) == 1
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("digits", ["auto", "mnist"])
def test_without_mnist_there_are_no_other_digits(make_authors, authors_pickle, digits):
    with pytest.raises(DownloadError, match=r"network is unreachable.*or put the four MNIST files"):
        make_authors(authors_pickle, digits=digits, mnist_dir=None)


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
        message = f"expected 1260612 bytes with SHA-256 {authors_file.CHECKSUM}, {found}{correct}"
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
        authors_file.parse_paths(content)
    pickle.loads(content)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Call(eval, "1"), "builtins.eval"),
        (np.float64(1), "multiarray.scalar"),
        (Path("a"), "Path"),
        (torch.Size([1]), "torch.Size"),
        (np.ma.zeros(1), "_mareconstruct"),
        (np.load, "load"),
        (Call(getattr, 1, "real"), "builtins.getattr"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 3, 4])
def test_other_classes_are_refused(value, name, protocol):
    with pytest.raises(ValueError, match=rf"a pickle of arrays was expected, but it asks for \S*{re.escape(name)}$"):
        authors_file.parse_paths(pickle.dumps([value], protocol=protocol).replace(b"__builtin__", b"builtins"))


def test_arrays_written_by_numpy_1_and_2(authors_arrays):
    content = pickle.dumps(authors_arrays, protocol=3).replace(b"numpy._core.", b"numpy.core.")
    for written in (content, content.replace(b"numpy.core.", b"numpy._core.")):
        parsed = authors_file.parse_paths(written)
        assert list(parsed) == ["coords_digits", "ind_digits", "set_digits", "sincron_prob"]
        for name, array in parsed.items():
            assert (array == authors_arrays[name][0]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
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
    ],
)
def test_other_arrays(authors_arrays, change, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        authors_file.parse_paths(pickle.dumps({**authors_arrays, **change}, protocol=3))
    with pytest.raises(ValueError, match="expected a dictionary of arrays, got list"):
        authors_file.parse_paths(pickle.dumps([], protocol=3))
