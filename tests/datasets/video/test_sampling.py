"""Which frames make a clip."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from rstg_pyg.datasets.video import random_indices, spread_indices
from rstg_pyg.datasets.video.sampling import even_times

SIZES = [(count, length) for count in (1, 7, 31, 32, 33, 47, 200) for length in (1, 8, 32)]


def test_random_frames_are_any_one_of_each_segment():
    random = np.random.default_rng(0)
    for count, length in SIZES:
        edges = np.arange(length + 1) * count / length
        first = np.floor(edges[:-1])
        chosen = np.array([random_indices(count, random.random(length)) for _ in range(2000 if count > 100 else 500)])
        assert (np.diff(chosen) >= 0).all()
        assert (chosen >= first).all() and (chosen < np.maximum(edges[1:], first + 1)).all()
        assert set(chosen.flat) == set(range(count)), (count, length)


def test_positions_next_to_one_stay_within_the_video():
    for count in (1, 3, 49, 1_000_003):
        assert random_indices(count, np.full(49, np.nextafter(1, 0)))[-1] == count - 1


def test_fixed_frames_lie_at_even_places_of_the_segments():
    for count, length in SIZES:
        for samplings in (1, 2, 3):
            place = [Fraction(2 * s + 1, 2 * samplings) for s in range(samplings)]
            expected = [[floor((k + each) * Fraction(count, length)) for k in range(length)] for each in place]
            assert spread_indices(count, length, samplings).tolist() == expected


def test_fixed_frames_lie_in_the_middle():
    for count in (32, 64, 96):
        forth = spread_indices(count + 1, 32)[0]
        assert (forth + forth[::-1] == count).all()


def test_two_samplings_of_long_videos_share_no_frame():
    assert sorted(spread_indices(64, 32, 2).flat) == list(range(64))


def test_frames_that_come_evenly_stand_for_themselves():
    each = list(range(40))
    for rate in (Fraction(12), Fraction(30000, 1001), Fraction(240)):
        even = np.arange(40) / float(rate)
        jitter = np.random.default_rng(0).uniform(-0.2, 0.2, 40) / float(rate)
        for times in (even, even.round(3) + 7, even + jitter):
            found, shown = even_times(times.tolist(), rate)
            assert found == rate and shown.tolist() == each
        # A promise that frames do not keep does not count.
        found, shown = even_times(even.tolist(), rate * 2)
        assert abs(found - rate) < 0.01 and shown.tolist() == each


def test_where_times_tell_nothing_frames_count_as_even():
    for times in ([], [0.0], [None, 0.1], [0.0, 0.0], [0.0, 5.0, 2.0]):
        found, shown = even_times(times, Fraction(25))
        assert found == 25 and shown.tolist() == list(range(len(times)))


@pytest.mark.parametrize("scale", [0.001, 1], ids=["faster than it is looked", "slower"])
def test_frames_that_come_unevenly_stand_as_long_as_they_are_shown(scale):
    times = np.random.default_rng(0).exponential(scale, 50).cumsum()
    rate, shown = even_times(times.tolist(), Fraction(25))
    assert rate == max(30, Fraction(49 / (times[-1] - times[0])).limit_denominator(1000))
    assert (np.diff(shown) >= 0).all()
    stays = np.bincount(shown, minlength=50) / float(rate)
    assert abs(stays[:-1] - np.diff(times)).max() <= 1.001 / float(rate)


def test_no_frame_stands_for_more_than_a_minute():
    rate, shown = even_times([0.0, 0.1, 1e9, 1e9 + 0.5])
    assert rate == 30
    assert abs(np.bincount(shown)[1] - 60 * 30) <= 1
