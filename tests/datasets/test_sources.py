import builtins
import gzip
import importlib.util
import os
import pickle
import shutil
import time
import warnings

import numpy as np
import pytest
from rstg_pyg.datasets.sklearn_digits import read_sklearn_digits

from rstg_pyg.datasets import DownloadError, IDXError, SyncMNIST, download
from rstg_pyg.datasets.digits import open_digits

needs_sklearn = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn, whose digits are tested here, is not installed"
)

IMAGES = "train-images-idx3-ubyte"


@pytest.fixture
def served(monkeypatch, mnist_files):
    """Stands in for PyG's download helper: serves the files, or what a test puts in their place."""
    files = {f"{name}.gz": gzip.compress(content) for name, content in mnist_files.items()}
    calls = []

    def serve(url, folder, log=True):
        calls.append(url)
        content = files[url.rpartition("/")[2]]
        if isinstance(content, Exception):
            raise content
        target = os.path.join(folder, url.rpartition("/")[2])
        assert not os.path.exists(target)
        with open(target, "wb") as file:
            file.write(content)
        return target

    monkeypatch.setattr(download, "download_url", serve)
    files["calls"] = calls
    return files


def make(root, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return SyncMNIST(root, num_clips=5, log=False, **kwargs)


def everything_under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Folders


@pytest.mark.parametrize("unpacked", [False, True])
def test_folder(tmp_path, mnist_folder, mnist_files, unpacked, no_network):
    if unpacked:
        for name, content in mnist_files.items():
            (mnist_folder / name).write_bytes(content)
            (mnist_folder / f"{name}.gz").unlink()
    dataset = make(tmp_path / "root", mnist_dir=mnist_folder)
    assert dataset.source == "mnist"
    assert dataset[0].video.shape == (1, 1, 10, 64, 64)
    assert not (tmp_path / "root").exists()
    assert no_network == []


@needs_sklearn
def test_folder_from_environment(tmp_path, mnist_folder, monkeypatch, no_network):
    monkeypatch.setenv("RSTG_PYG_MNIST", str(mnist_folder))
    assert make(tmp_path / "root").source == "mnist"
    assert no_network == []
    # The choice of scikit-learn goes before the variable.
    assert make(tmp_path / "root", digits="sklearn").source == "sklearn"


def test_relative_folder_holds_elsewhere(tmp_path, mnist_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = make("root", mnist_dir="mnist")
    monkeypatch.chdir("/")
    again = pickle.loads(pickle.dumps(dataset))
    assert (again[3].video == dataset[3].video).all()


def test_missing_folder_is_an_error_and_no_fallback(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"MNIST folder .*nowhere does not exist.* or correct 'mnist_dir'"):
        make(tmp_path, mnist_dir=tmp_path / "nowhere")
    monkeypatch.setenv("RSTG_PYG_MNIST", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist.* environment variable RSTG_PYG_MNIST"):
        make(tmp_path)


def test_missing_file_is_an_error(tmp_path, mnist_folder):
    (mnist_folder / "t10k-labels-idx1-ubyte.gz").unlink()
    make(tmp_path, mnist_dir=mnist_folder)
    with pytest.raises(FileNotFoundError, match=r"neither t10k-labels-idx1-ubyte\.gz nor t10k-labels-idx1-ubyte\. Put"):
        make(tmp_path, mnist_dir=mnist_folder, train=False)


def damage(content, how):
    if how == "gzip cut":
        return gzip.compress(content)[:-20]
    if how == "gzip flipped":
        compressed = bytearray(gzip.compress(content))
        compressed[len(compressed) // 2] ^= 0xFF
        return bytes(compressed)
    if how == "empty":
        return b""
    if how == "cut":
        return content[:-1]
    if how == "too long":
        return content + b"\0"
    if how == "magic":
        return content[:3] + b"\1" + content[4:]
    if how == "page":
        return b"<!DOCTYPE html><html></html>"
    return content[:-1] + bytes([content[-1] ^ 1])


DAMAGES = {
    "gzip cut": "to be an IDX file, got: Compressed file ended before",
    "gzip flipped": "to be an IDX file, got: (Error -3|CRC check failed)",
    "empty": "is truncated: 0 bytes cannot hold an IDX header",
    "cut": "is truncated: .* found",
    "too long": "has trailing bytes: .* found",
    "magic": "has a wrong magic number: expected 0x00000803, found 0x00000801",
    "page": "is not an IDX file: .* found 0x3c21444f",
    "other content": f"is not the {IMAGES} of MNIST: expected SHA-256 [0-9a-f]{{64}} .* found [0-9a-f]{{64}}",
}


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_file_in_a_named_folder(tmp_path, mnist_folder, mnist_files, how):
    path = mnist_folder / f"{IMAGES}.gz"
    path.write_bytes(damage(mnist_files[IMAGES], how))
    before = everything_under(tmp_path)
    with pytest.raises(IDXError, match=f"{IMAGES}.gz {DAMAGES[how]}.*Put an intact copy of the file there") as info:
        make(tmp_path / "root", mnist_dir=mnist_folder)
    assert str(path) in str(info.value)
    assert everything_under(tmp_path) == before


# Downloads


def test_download(tmp_path, served):
    make(tmp_path / "root")
    assert everything_under(tmp_path / "root") == sorted(
        ["raw", *(f"raw/{name}" for name in served if name != "calls")]
    )
    assert len(served["calls"]) == 4
    make(tmp_path / "root", train=False)
    assert len(served["calls"]) == 4


def test_damaged_download_directory_names_the_file(tmp_path, served):
    make(tmp_path / "root")
    path = tmp_path / "root" / "raw" / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        IDXError,
        match=f"{IMAGES}.gz to be an IDX file, got: Compressed.*Delete the file and construct the dataset again",
    ):
        make(tmp_path / "root")
    path.unlink()
    assert make(tmp_path / "root").source == "mnist"


def test_second_mirror_takes_over(tmp_path, served, monkeypatch, mnist_files):
    serve = download.download_url

    def first_is_broken(url, folder, log=True):
        target = serve(url, folder, log)
        if url.startswith(download.MIRRORS[0]):
            with open(target, "wb") as file:
                file.write(damage(mnist_files[IMAGES], "gzip cut"))
        return target

    monkeypatch.setattr(download, "download_url", first_is_broken)
    assert make(tmp_path / "root").source == "mnist"
    assert len(everything_under(tmp_path / "root")) == 5


@pytest.mark.parametrize("how", ["gzip cut", "page", "other content"])
@pytest.mark.parametrize("digits", ["auto", "mnist"])
def test_wrong_download_is_an_error_and_leaves_nothing(tmp_path, served, mnist_files, how, digits):
    served[f"{IMAGES}.gz"] = damage(mnist_files[IMAGES], how)
    with pytest.raises(
        IDXError, match=rf"{IMAGES}.gz could not be downloaded \(https://.*{DAMAGES[how]}.*put the four"
    ):
        make(tmp_path / "root", digits=digits)
    assert not (tmp_path / "root").exists()


def test_a_full_disk_is_not_taken_for_a_missing_network(tmp_path, served):
    served[f"{IMAGES}.gz"] = OSError(28, "No space left on device")
    with pytest.raises(OSError, match=rf"^\[Errno 28\] No space left on device: '{tmp_path}/root/raw/.*/{IMAGES}.gz'$"):
        make(tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_broken_connection_keeps_only_whole_files(tmp_path, served):
    served["t10k-images-idx3-ubyte.gz"] = ConnectionResetError("reset by peer")
    # What training needs has arrived.
    assert make(tmp_path / "root").source == "mnist"
    assert everything_under(tmp_path / "root") == ["raw", f"raw/{IMAGES}.gz", "raw/train-labels-idx1-ubyte.gz"]
    with pytest.raises(DownloadError, match="reset by peer"):
        make(tmp_path / "root", digits="mnist", train=False)


def test_mnist_without_network_is_an_error(tmp_path):
    with pytest.raises(DownloadError, match=r"network is unreachable.*Connect to the network, or put.*mnist_dir"):
        make(tmp_path / "root", digits="mnist")
    assert everything_under(tmp_path) == []


def test_unreachable_server_does_not_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SECONDS_TO_ANSWER", 0.1)
    monkeypatch.setattr(download, "download_url", lambda *args, **kwargs: time.sleep(3))
    start = time.perf_counter()
    with pytest.raises(DownloadError, match=r"no answer within 0\.1 seconds"):
        make(tmp_path / "root", digits="mnist")
    assert time.perf_counter() - start < 2
    assert everything_under(tmp_path) == []


# The digits of scikit-learn


@needs_sklearn
def test_fallback_says_so_in_one_line(tmp_path, no_network):
    with pytest.warns(UserWarning, match="handwritten digits of scikit-learn instead") as record:
        dataset = SyncMNIST(tmp_path / "root", num_clips=5, log=False)
    assert len(record) == 1
    assert "\n" not in str(record[0].message)
    assert record[0].filename == __file__
    assert dataset.source == "sklearn"
    assert len(no_network) == len(download.MIRRORS)
    assert everything_under(tmp_path) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dataset[0].video.shape == (1, 1, 10, 64, 64)


@needs_sklearn
def test_sklearn_on_request_is_silent(tmp_path, no_network):
    assert make(tmp_path, digits="sklearn").source == "sklearn"
    assert no_network == []


def test_sklearn_missing_too(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def without_sklearn(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_sklearn)
    with pytest.raises(ImportError, match=r"pip install scikit-learn.*mnist_dir.*RSTG_PYG_MNIST"):
        make(tmp_path)


@needs_sklearn
def test_sklearn_digits():
    from sklearn.datasets import load_digits

    train, test = read_sklearn_digits(True), read_sklearn_digits(False)
    assert len(train[0]) + len(test[0]) == 1797
    for images, labels in (train, test):
        assert images.dtype == labels.dtype == np.uint8
        assert images.shape == (len(labels), 28, 28)
        assert images.max() > 240
        assert not images[:, :4].any() and not images[:, :, -4:].any()
    # Every seventh image of each class, in order.
    counts = np.bincount(load_digits().target)
    assert (np.bincount(test[1]) == (counts + 6) // 7).all()
    first = load_digits().images[0]
    centre = test[0][0][4:24, 4:24]
    shrunk = centre.reshape(4, 5, 4, 5).mean(axis=(1, 3))
    assert np.abs(shrunk - first.reshape(4, 2, 4, 2).mean(axis=(1, 3)) * 255 / 16).max() < 25
    assert np.corrcoef(shrunk.ravel(), first.reshape(4, 2, 4, 2).mean(axis=(1, 3)).ravel())[0, 1] > 0.98


# Arguments


def test_bad_source(tmp_path, mnist_folder):
    with pytest.raises(
        ValueError, match=r"expected 'digits' to be one of \['auto', 'mnist', 'sklearn'\], got 'emnist'"
    ):
        make(tmp_path, digits="emnist")
    with pytest.raises(ValueError, match="leave out one of the two"):
        make(tmp_path, digits="sklearn", mnist_dir=mnist_folder)


def test_open_digits_alone(tmp_path, mnist_folder):
    digits, notice = open_digits("mnist", False, mnist_folder, tmp_path)
    assert notice is None
    assert digits.images.shape == (40, 28, 28)
    shutil.rmtree(mnist_folder)
    assert [len(members) for members in digits.by_class] == [4] * 10
