"""Random numbers by key and position: NumPy's, on any device."""

import numpy as np
import torch
from cases import case
from torch_geometric.testing import withCUDA

from rstg_pyg.datasets.random_numbers import RandomNumbers, uniforms


def test_numbers_are_a_function_of_key_and_position():
    first = uniforms(3, 5, 7, 50)
    assert (uniforms(3, 5, 7, 100)[:50] == first).all()
    for other in [(4, 5, 7), (3, 6, 7), (3, 5, 8)]:
        assert (uniforms(*other, 50) != first).all()
    # Raw words of Philox do not change with NumPy's version.
    assert uniforms(0, 0, 0, 2).tolist() == [0.011546754286331562, 0.24154919656271812]
    assert uniforms(2**64 - 1, 0, 2**64 - 1, 1)[0] < 1


@withCUDA
def test_random_words_are_those_of_numpy(device):
    index = torch.tensor([0, 1, 600_000, 2**32, 2**62 + 3, 2**63 - 1])
    for seed, series in [(0, 0), (2**64 - 1, 0x74657374), (2**63 + 11, 2**64 - 1)]:
        numbers = RandomNumbers(seed, series, device)
        words, drawn = numbers.words(index.to(device), 119).cpu(), numbers(index.to(device), 119).cpu()
        for place, number in enumerate(index.tolist()):
            counter = np.array([0, 0, 0, number], np.uint64)
            expected = np.random.Philox(key=np.array([seed, series], np.uint64), counter=counter).random_raw(119)
            with case(seed, series, number):
                assert (words[place].numpy().view(np.uint64) == expected).all()
                assert (drawn[place].numpy() == uniforms(seed, series, number, 119)).all()
