"""Where the digit images come from: a folder, or scikit-learn; for the network see the tests of downloads."""

import builtins
import importlib.util
import pickle
import shutil
import warnings

import numpy as np
import pytest
from cases import case
from clip_fields import same
from mnist_damage import DAMAGES, IMAGES, damage, everything_under, make

from rstg_pyg.datasets import IDXError, SyncMNIST, mnist
from rstg_pyg.datasets.digits import open_digits, read_sklearn_digits

needs_sklearn = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn, whose digits are tested here, is not installed"
)


# Folders


def test_folder(tmp_path, mnist_folder, mnist_files, no_network):
    packed = make(tmp_path / "root", mnist_dir=mnist_folder)
    for name, content in mnist_files.items():
        (mnist_folder / name).write_bytes(content)
        (mnist_folder / f"{name}.gz").unlink()
    unpacked = make(tmp_path / "root", mnist_dir=mnist_folder)
    assert packed.source == unpacked.source == "mnist"
    assert same(packed[0], unpacked[0])
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


def test_missing_folder_or_file_is_an_error_and_no_fallback(tmp_path, mnist_folder, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"MNIST folder .*nowhere does not exist.* or correct 'mnist_dir'"):
        make(tmp_path, mnist_dir=tmp_path / "nowhere")
    monkeypatch.setenv("RSTG_PYG_MNIST", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist.* environment variable RSTG_PYG_MNIST"):
        make(tmp_path)
    monkeypatch.delenv("RSTG_PYG_MNIST")
    (mnist_folder / "t10k-labels-idx1-ubyte.gz").unlink()
    make(tmp_path, mnist_dir=mnist_folder)
    with pytest.raises(FileNotFoundError, match=r"neither t10k-labels-idx1-ubyte\.gz nor t10k-labels-idx1-ubyte\. Put"):
        make(tmp_path, mnist_dir=mnist_folder, train=False)


def test_damaged_file_in_a_named_folder(tmp_path, mnist_folder, mnist_files):
    path = mnist_folder / f"{IMAGES}.gz"
    before = everything_under(tmp_path)
    for how, message in DAMAGES.items():
        path.write_bytes(damage(mnist_files[IMAGES], how))
        with (
            case(how),
            pytest.raises(IDXError, match=f"^(expected )?{path} {message}.*Put an intact copy of the file there"),
        ):
            make(tmp_path / "root", mnist_dir=mnist_folder)
    assert everything_under(tmp_path) == before


# The digits of scikit-learn


@needs_sklearn
def test_fallback_says_so_in_one_line(tmp_path, no_network):
    with pytest.warns(UserWarning, match="handwritten digits of scikit-learn instead") as record:
        dataset = SyncMNIST(tmp_path / "root", num_clips=5, log=False)
    assert len(record) == 1
    assert "\n" not in str(record[0].message)
    assert record[0].filename == __file__
    assert dataset.source == "sklearn"
    assert len(no_network) == len(mnist.MIRRORS)
    assert everything_under(tmp_path) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dataset[0].video.shape == (1, 1, 10, 64, 64)


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
