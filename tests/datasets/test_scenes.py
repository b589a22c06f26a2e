import numpy as np

from rstg_pyg.datasets import draw_starts, walk
from rstg_pyg.datasets.random_numbers import uniforms


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


def test_pair_without_a_common_step_stays():
    steps = steps_from(0, count=10, in_step=True, other=71)
    assert (steps == 0).all()


def test_batch_equals_single_walks():
    uniform = uniforms(0, 0, 0, 6 * (10 + 100)).reshape(6, 110)
    starts = draw_starts(uniform[:, :10]).reshape(6, 5, 2)
    chances = uniform[:, 10:].reshape(6, 10, 5, 2)
    in_step = np.array([True, False] * 3)
    batched = walk(starts, chances, in_step)
    assert batched.shape == (6, 5, 10, 2)
    for clip in range(6):
        assert (walk(starts[clip], chances[clip], in_step[clip]) == batched[clip]).all()


def test_generator_is_a_function_of_its_arguments():
    first = uniforms(3, 5, 7, 50)
    assert (uniforms(3, 5, 7, 100)[:50] == first).all()
    for other in [(4, 5, 7), (3, 6, 7), (3, 5, 8)]:
        assert (uniforms(*other, 50) != first).all()
    # Raw words of Philox do not change with NumPy's version.
    assert uniforms(0, 0, 0, 2).tolist() == [0.011546754286331562, 0.24154919656271812]
    assert uniforms(2**64 - 1, 0, 2**64 - 1, 1)[0] < 1
