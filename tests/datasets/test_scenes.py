"""What happens in clips: labels, digits and walks, also against those that the authors of the paper published."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.testing import withCUDA

from rstg_pyg.datasets import NO_SYNC, NUM_CLASSES, NUM_PAIRS, draw_starts, label_to_pair, pair_to_label, walk
from rstg_pyg.datasets.digits import open_digits
from rstg_pyg.datasets.random_numbers import uniforms
from rstg_pyg.datasets.scenes import NO_SYNC_PROBABILITY, SceneSampler, _walk

MNIST = os.environ.get("RSTG_PYG_MNIST")
REFERENCE = os.environ.get("RSTG_PYG_REFERENCE")

needs_mnist = pytest.mark.skipif(not MNIST, reason="RSTG_PYG_MNIST does not name a folder with the files of MNIST")
needs_reference = pytest.mark.skipif(
    not REFERENCE, reason="RSTG_PYG_REFERENCE does not name the folder with the authors' recordings"
)


# Labels


def test_every_pair_has_its_own_label():
    assert (NUM_PAIRS, NO_SYNC, NUM_CLASSES) == (45, 45, 46)
    assert label_to_pair(NO_SYNC) is None
    labels = [pair_to_label(i, j) for i in range(10) for j in range(i)]
    assert labels == list(range(45))
    assert [label_to_pair(label) for label in labels] == [(i, j) for i in range(10) for j in range(i)]
    assert pair_to_label(3, 8) == pair_to_label(8, 3)


def test_bad_pairs_and_labels():
    for pair in [(3, 3), (10, 1), (1, -1)]:
        with pytest.raises(ValueError, match=f"two different digit classes .* got {pair[0]} and {pair[1]}"):
            pair_to_label(*pair)
    for label in (-1, 46):
        with pytest.raises(ValueError, match=f"within 0 to 45, got {label}"):
            label_to_pair(label)


# Walks


def test_starts_are_uniform_over_0_to_71():
    starts = draw_starts(uniforms(0, 1, 2, 72_000))
    counts = np.bincount(starts, minlength=72)
    assert len(counts) == 72
    # Chi-square with 71 degrees of freedom: 119 is exceeded with probability 0.0003.
    assert ((counts - 1000) ** 2 / 1000).sum() < 119


def steps_from(position, count=20_000, in_step=False, other=36):
    """The first step of digit 0 from one place, many times over."""
    starts = np.empty((count, 2, 2), dtype=np.int64)
    starts[:, 0], starts[:, 1] = position, other
    path = walk(starts, uniforms(0, 0, position, count * 4).reshape(count, 1, 2, 2), np.full(count, in_step))
    return path[:, :, 0] - starts


def check_uniform(steps, low, high):
    counts = np.bincount(steps.ravel() + 10, minlength=20)
    assert (np.flatnonzero(counts) == np.arange(low + 10, high + 11)).all()
    expected = steps.size / (high - low + 1)
    assert ((counts[counts > 0] - expected) ** 2 / expected).sum() < 50


def test_steps_are_uniform_over_what_the_canvas_allows():
    for position, low, high in [(0, 0, 9), (4, -4, 9), (36, -10, 9), (61, -10, 9), (62, -10, 8), (70, -10, 0)]:
        check_uniform(steps_from(position)[:, 0], low, high)
    check_uniform(steps_from(71)[:, 0], -10, -1)


def test_pair_draws_from_the_intersection():
    steps = steps_from(3, in_step=True, other=67)
    assert (steps[:, 0] == steps[:, 1]).all()
    check_uniform(steps[:, 0], -3, 3)
    # Without a common step both stay.
    steps = steps_from(0, count=10, in_step=True, other=71)
    assert (steps == 0).all()


def test_a_delayed_pair_takes_the_same_steps():
    starts, chances = (
        draw_starts(uniforms(0, 3, 0, 600)).reshape(100, 3, 2),
        uniforms(0, 3, 1, 5400).reshape(100, 9, 3, 2),
    )
    path = walk(starts, chances, True, delay=4)
    assert (np.diff(path[:, 0, :5], axis=1) == np.diff(path[:, 1, 4:], axis=1)).all()
    assert (path[:, 2] == walk(starts, chances, True)[:, 2]).all()
    assert (path[:, 1, :4] == walk(starts, chances, False)[:, 1, :4]).all()
    with pytest.raises(ValueError, match="expected 'delay' to be an integer within 0 to 9, got 10"):
        walk(starts, chances, True, delay=10)


@withCUDA
def test_walks_from_the_borders_digit_by_digit(device):
    random = np.random.default_rng(0)
    starts = draw_starts(random.choice(np.array([0, 1 - 2**-53, 0.5]), (200, 3, 2)))
    chances = random.choice(np.array([0, 1 - 2**-53, 0.5]), (200, 6, 3, 2))
    in_step = random.random(200) < 0.7
    starts[0, :2], in_step[0] = [[0, 0], [71, 36]], True
    paths = walk(starts, chances, in_step)
    assert (paths[0, :2, :, 0] == [[0], [71]]).all()
    moved = _walk(*(torch.from_numpy(array).to(device) for array in (starts.astype(float), chances.copy(), in_step)))
    assert (moved.cpu().numpy() == paths).all()
    for start, chance, together, path in zip(starts, chances, in_step, paths, strict=True):
        assert (walk(start, chance, together) == path).all()
        for time in range(6):
            low, high = np.maximum(start - 10, 0), np.minimum(start + 10, 71)
            if together:
                low[:2] = start[:2] - (start[:2] - low[:2]).min(axis=0)
                high[:2] = start[:2] + (high[:2] - start[:2]).min(axis=0)
                chance[time, 1] = chance[time, 0]
            start = low + np.floor(chance[time] * (high - low)).astype(int)
            assert (path[:, time] == start).all()


# Scenes against the specification


def sample(digits, count):
    return SceneSampler(digits, 5, 10, 0, NO_SYNC_PROBABILITY, torch.device("cpu"))(torch.arange(count))


@pytest.fixture
def many(make):
    """2,000 clips before they are drawn."""
    digits = make()._digits
    return sample(digits, 2000), digits


def test_digits_and_images(many):
    scenes, digits = many
    images, classes = scenes.images.numpy(), scenes.digits.numpy()
    assert (images[:, 0] == np.arange(2000) % 60).all()
    assert (digits.labels[images] == classes).all()
    assert all(len(set(row)) == 5 for row in classes.tolist())
    for place in range(1, 5):
        counts = np.bincount(classes[:, place], minlength=10)
        # Chi-square with 9 degrees of freedom: 33 is exceeded with probability 0.0001.
        assert ((counts - 200) ** 2 / 200).sum() < 33
    # Images are uniform within their class.
    counts = np.bincount(images[:, 2], minlength=len(digits.labels))
    assert ((counts - 2000 / 60) ** 2 / (2000 / 60)).sum() < 110


def test_labels(many):
    scenes, _ = many
    labels, pairs = scenes.label().tolist(), scenes.digits[:, :2].tolist()
    assert labels == [pair_to_label(*p) if s else NO_SYNC for p, s in zip(pairs, scenes.in_step.tolist(), strict=True)]
    assert scenes.sync().tolist() == [[0, 1] if in_step else [-1, -1] for in_step in scenes.in_step.tolist()]
    counts = np.bincount(labels, minlength=46)
    # 2000/92 = 21.7 with standard deviation 4.6.
    assert 5 < counts[NO_SYNC] < 40
    expected = (2000 - counts[NO_SYNC]) / 45
    # Chi-square with 44 degrees of freedom: 85 is exceeded with probability 0.0002.
    assert ((counts[:NO_SYNC] - expected) ** 2 / expected).sum() < 85


def test_only_the_pair_moves_in_step(many):
    scenes, _ = many
    assert scenes.path.min() >= 0 and scenes.path.max() <= 71
    steps = scenes.path.diff(dim=2)
    assert steps.min() >= -10 and steps.max() <= 9
    for i in range(5):
        for j in range(i):
            alike = (steps[:, i] == steps[:, j]).all(dim=2).all(dim=1)
            assert torch.equal(alike, scenes.in_step if (i, j) == (1, 0) else torch.zeros_like(alike)), (i, j)


# The authors' paths


@pytest.fixture(scope="module")
def paths():
    with np.load(Path(REFERENCE, "predefined_paths_test.npz"), allow_pickle=False) as file:
        return {name: file[name][0] for name in ("coords_digits", "ind_digits", "sincron_prob")}


@pytest.fixture(scope="module")
def digits_of_test():
    return open_digits("mnist", False, MNIST, "")[0]


def total_variation(first, second, num_values):
    """Half the L1 distance of two samples' histograms."""
    shares = [np.bincount(sample.ravel(), minlength=num_values) / sample.size for sample in (first, second)]
    return np.abs(shares[0] - shares[1]).sum() / 2


@needs_mnist
@needs_reference
def test_walks_are_distributed_as_the_official_ones(paths, digits_of_test):
    scenes = sample(digits_of_test, 5000)
    ours = scenes.path.numpy()
    theirs = paths["coords_digits"].astype(np.int64).swapaxes(1, 2)
    our_pair = scenes.in_step.numpy()
    their_pair = paths["sincron_prob"] == 1
    assert scenes.images[:, 0].tolist() == paths["ind_digits"][:5000, 0].tolist()
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
