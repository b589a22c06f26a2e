import gzip
import hashlib
import pickle
import struct

import numpy as np
import pytest

from rstg_pyg.datasets import SyncMNIST, authors_paths, download, mnist


def idx_bytes(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test reads the user's folders or reaches the network; the calls are listed."""
    calls = []

    def refuse(url, target):
        calls.append(url)
        raise OSError("network is unreachable")

    monkeypatch.setattr(download, "_save", refuse)
    monkeypatch.delenv("RSTG_PYG_MNIST", raising=False)
    monkeypatch.delenv("RSTG_PYG_REFERENCE", raising=False)
    return calls


@pytest.fixture
def mnist_files(monkeypatch):
    """Small stand-ins for the four files of MNIST, decompressed, with their checksums in force."""
    random = np.random.default_rng(0)
    files = {}
    for prefix, count in (("train", 60), ("t10k", 40)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = random.permutation(np.arange(count, dtype=np.uint8) % 10)
        files[f"{prefix}-images-idx3-ubyte"] = idx_bytes(images)
        files[f"{prefix}-labels-idx1-ubyte"] = idx_bytes(labels)
    for name, content in files.items():
        monkeypatch.setitem(mnist.CHECKSUMS, name, mnist.hashlib.sha256(content).hexdigest())
    return files


@pytest.fixture
def mnist_folder(tmp_path, mnist_files):
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name, content in mnist_files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return folder


@pytest.fixture
def make(tmp_path, mnist_folder):
    """Makes datasets over the stand-in files."""

    def make_dataset(**kwargs):
        return SyncMNIST(tmp_path / "root", mnist_dir=mnist_folder, **{"log": False, **kwargs})

    return make_dataset


@pytest.fixture(scope="module")
def authors_images(tmp_path_factory):
    """Stand-ins for the 10,000 test images of MNIST: a folder with them, the images, their labels."""
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("mnist")
    images = np.zeros((10_000, 28, 28), dtype=np.uint8)
    images[:, 6:22, 6:22] = random.integers(0, 256, (10_000, 16, 16))
    labels = random.permutation(np.arange(10_000) % 10).astype(np.uint8)
    for name, array in zip(mnist.FILE_NAMES[False], (images, labels), strict=True):
        (folder / name).write_bytes(idx_bytes(array))
    return folder, images, labels


@pytest.fixture(scope="module")
def authors_arrays(authors_images):
    """Arrays like those of the authors' file; clips 0, 92, 184, ... have no pair in step."""
    random = np.random.default_rng(1)
    labels = authors_images[2]
    classes = random.permuted(np.tile(np.arange(10), (10_000, 1)), axis=1)[:, :5]
    members = np.stack([np.flatnonzero(labels == digit) for digit in range(10)])
    indices = members[classes, random.integers(0, 1000, classes.shape)]
    return {
        "digit_position": np.ones((1, 1, 10_000), np.uint8),
        "coords_digits": random.integers(0, 72, (1, 10_000, 10, 5, 2), dtype=np.uint8),
        "ind_digits": indices[None].astype(np.uint32),
        "set_digits": classes[None, :, 1:].astype(np.uint8),
        "sincron_prob": (np.arange(10_000) % 92 > 0)[None].astype(np.uint8),
    }


@pytest.fixture
def authors_content(authors_arrays, authors_images, monkeypatch):
    """The bytes of a file with these arrays, with the checksums of the stand-ins in force."""
    content = pickle.dumps(authors_arrays, protocol=3)
    monkeypatch.setattr(authors_paths, "CHECKSUM", hashlib.sha256(content).hexdigest())
    for name in mnist.FILE_NAMES[False]:
        checksum = hashlib.sha256((authors_images[0] / name).read_bytes()).hexdigest()
        monkeypatch.setitem(mnist.CHECKSUMS, name, checksum)
    return content


@pytest.fixture
def authors_pickle(tmp_path, authors_content):
    path = tmp_path / "paths.pickle"
    path.write_bytes(authors_content)
    return path


@pytest.fixture
def make_authors(tmp_path, authors_images):
    """Makes datasets over paths and the stand-in images."""

    def make_dataset(paths, **kwargs):
        kwargs = {"train": False, "log": False, "mnist_dir": authors_images[0], **kwargs}
        return SyncMNIST(tmp_path / "root", paths=paths, **kwargs)

    return make_dataset
