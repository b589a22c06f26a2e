"""MNIST itself, and the walks against those that the authors of the paper published."""

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from rstg_pyg.datasets.clips import sample_clip

from rstg_pyg.datasets import SyncMNIST
from rstg_pyg.datasets.digits import open_digits

MNIST = os.environ.get("RSTG_PYG_MNIST")
REFERENCE = os.environ.get("RSTG_PYG_REFERENCE")

needs_mnist = pytest.mark.skipif(not MNIST, reason="RSTG_PYG_MNIST does not name a folder with the files of MNIST")
needs_reference = pytest.mark.skipif(
    not REFERENCE, reason="RSTG_PYG_REFERENCE does not name the folder with the authors' recordings"
)


@pytest.fixture(scope="module")
def paths():
    with np.load(Path(REFERENCE, "predefined_paths_test.npz"), allow_pickle=False) as file:
        return {name: file[name][0] for name in ("coords_digits", "ind_digits", "sincron_prob")}


@pytest.fixture(scope="module")
def digits_of_test():
    return open_digits("mnist", False, MNIST, "")[0]


@needs_mnist
def test_mnist_is_the_known_one():
    content = gzip.decompress(Path(MNIST, "train-images-idx3-ubyte.gz").read_bytes())
    assert hashlib.md5(content).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
    for train, count in ((True, 60_000), (False, 10_000)):
        digits, notice = open_digits("mnist", train, MNIST, "")
        assert notice is None
        assert digits.images.shape == (count, 28, 28)
        assert digits.labels.shape == (count,)


def total_variation(first, second, num_values):
    """Half the L1 distance of two samples' histograms."""
    shares = [np.bincount(sample.ravel(), minlength=num_values) / sample.size for sample in (first, second)]
    return np.abs(shares[0] - shares[1]).sum() / 2


@needs_mnist
@needs_reference
def test_walks_are_distributed_as_the_official_ones(paths, digits_of_test):
    clips = [sample_clip(i, digits_of_test, 5, 10, seed=0) for i in range(5000)]
    ours = np.stack([clip.path for clip in clips])
    theirs = paths["coords_digits"].astype(np.int64).swapaxes(1, 2)
    our_pair = np.array([clip.in_step for clip in clips])
    their_pair = paths["sincron_prob"] == 1
    assert [clip.images[0] for clip in clips] == paths["ind_digits"][:5000, 0].tolist()
    assert abs(our_pair.mean() - their_pair.mean()) < 0.006

    for members in (slice(0, 2), slice(2, 5)):
        mine, other = ours[our_pair][:, members], theirs[their_pair][:, members]
        for frame in (0, 1, 9):
            assert total_variation(mine[:, :, frame], other[:, :, frame], 72) < 0.045
        steps = [np.diff(path, axis=2) + 10 for path in (mine, other)]
        assert total_variation(*steps, 20) < 0.01
        # Near the borders, where the canvas cuts the steps.
        for place in (0, 5, 62, 70):
            near = [step[path[:, :, :-1] == place] for step, path in zip(steps, (mine, other), strict=True)]
            assert set(near[0].tolist()) == set(near[1].tolist())
            assert total_variation(*near, 20) < 0.07


@needs_reference
def test_official_paths_follow_the_rules(paths):
    path = paths["coords_digits"].astype(np.int64)
    step, before = np.diff(path, axis=1), path[:, :-1]
    lowest, bound = np.maximum(-10, -before), np.minimum(10, 71 - before)
    pair = paths["sincron_prob"] == 1
    for limit, join in ((lowest, np.maximum), (bound, np.minimum)):
        limit[pair, :, :2] = join(limit[pair, :, 0], limit[pair, :, 1])[:, :, None]
    free = bound > lowest
    assert (step[free] >= lowest[free]).all() and (step[free] < bound[free]).all()
    assert (step[~free] == 0).all()
    assert (step[pair, :, 0] == step[pair, :, 1]).all()
    # Half-open ranges are used up to their ends.
    assert (step == lowest).any() and (step == bound - 1).any() and not (step == bound)[free].any()


@needs_mnist
def test_clips_of_mnist(tmp_path):
    train = SyncMNIST(tmp_path, mnist_dir=MNIST)
    test = SyncMNIST(tmp_path, train=False, mnist_dir=MNIST)
    assert train.source == test.source == "mnist"
    assert (len(train), len(test)) == (600_000, 10_000)
    for dataset in (train, test):
        last = dataset[len(dataset) - 1]
        assert last.digits[0, 0] == dataset._digits.labels[-1]
        assert last.video.amax() > 200
