"""Random numbers that depend on a key and a position alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rstg_pyg.arguments import whole_number

ROUNDS = 10
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_LOW_HALF = 0xFFFFFFFF


def uniforms(seed: int, series: int, index: int, count: int) -> np.ndarray:
    r"""Draw uniform numbers in [0, 1) for one position of one series.

    The counter-based generator Philox (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) has the
    key ``(seed, series)`` and starts at a counter whose top word is ``index``. So every position costs the same, and
    asking for more numbers leaves the first ones as they were. The numbers come from the generator's raw words, which
    NumPy keeps stable from version to version.

    Args:
        seed: First word of the key, 0 to 2^64 - 1.
        series: Second word of the key, 0 to 2^64 - 1.
        index: The position, 0 to 2^64 - 1.
        count: How many numbers.

    Shapes:
        - **output:** ``[count]``, float64.

    Raises:
        ValueError: If the seed is out of its range.

    Example:
        >>> float(uniforms(0, 0, 7, 3)[0]) == float(uniforms(0, 0, 7, 1)[0])
        True
    """
    key = np.array([whole_number("seed", seed, 0, 2**64 - 1), series], dtype=np.uint64)
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(count)
    return (words >> np.uint64(11)) * 2.0**-53


class RandomNumbers:
    r"""The numbers of :func:`uniforms` for many positions of one series, on any device.

    On a CPU NumPy draws them. Elsewhere, and in compiled programs, tensor operations do, with words in int64, whose
    products wrap around as those of unsigned words do. Philox4x64-10 turns a counter of four words into four random
    words by ten rounds

    .. math::
        (c_0, c_1, c_2, c_3) \leftarrow
        (\mathrm{high}(m_1 c_2) \oplus c_1 \oplus k_0, \; \mathrm{low}(m_1 c_2), \;
        \mathrm{high}(m_0 c_0) \oplus c_3 \oplus k_1, \; \mathrm{low}(m_0 c_0)),

    with a key :math:`(k_0, k_1)` that steps from round to round. Block :math:`n = 0, 1, \ldots` of position :math:`i`
    is the block of the counter :math:`(n + 1, 0, 0, i)`.

    Args:
        seed: First word of the key, 0 to 2^64 - 1.
        series: Second word of the key, 0 to 2^64 - 1.
        device: The device.

    Example:
        >>> numbers = RandomNumbers(seed=3, series=5, device="cpu")(torch.tensor([0, 7]), 6)
        >>> bool((numbers[1].numpy() == uniforms(3, 5, 7, 6)).all())
        True
    """

    def __init__(self, seed: int, series: int, device: torch.device | str) -> None:
        self.key = (seed, series)
        # Words 0 and 2 of the counter, and words 1 and 3, go through each round as one tensor [2, B, blocks].
        # A round swaps both pairs; here the tensors stay and, every other time, the constants are swapped.
        self._rounds: list[tuple[Tensor, ...]] = []
        for number in range(ROUNDS):
            key = [_signed(word + number * step) for word, step in zip(self.key, _KEY_STEPS, strict=True)]
            factor = [_signed(word) for word in _MULTIPLIERS]
            # With a lower half within -2^31 to 2^31 - 1 no product of halves below leaves int64.
            lower = [(word + 2**31) % 2**32 - 2**31 for word in factor]
            upper = [(word - half) >> 32 for word, half in zip(factor, lower, strict=True)]
            order = 1 if number % 2 == 0 else -1
            constants = [key[::-order], factor[::order], lower[::order], upper[::order]]
            self._rounds.append(torch.tensor(constants, device=device).view(4, 2, 1, 1).unbind())

    def __call__(self, index: Tensor, count: int) -> Tensor:
        """Draw the first uniform numbers of each position.

        Args:
            index: The positions, int64.
            count: How many numbers.

        Shapes:
            - **index:** ``[B]``.
            - **output:** ``[B, count]``, float64.
        """
        if index.device.type == "cpu" and not torch.compiler.is_compiling():
            numbers = np.empty((len(index), count))
            for place, position in enumerate(index.tolist()):
                numbers[place] = uniforms(*self.key, position, count)
            return torch.from_numpy(numbers)
        return ((self.words(index, count) >> 11) & (2**53 - 1)).double() * 2.0**-53

    def words(self, index: Tensor, count: int) -> Tensor:
        """Draw the first random words of each position, int64 with the bits of the unsigned words, ``[B, count]``."""
        blocks = -(-count // 4)
        even = index.new_zeros(2, index.numel(), blocks)
        odd = torch.zeros_like(even)
        even[0] = torch.arange(1, blocks + 1, device=index.device)
        odd[1] = index[:, None]
        for key, factor, lower, upper in self._rounds:
            high = _high_word(even, lower, upper)
            even, odd = high.bitwise_xor_(odd.flip(0)).bitwise_xor_(key), even * factor
        return torch.stack((even, odd), dim=1).permute(2, 3, 0, 1).flatten(1)[:, :count]


def _signed(word: int) -> int:
    """The int64 with the bits of a 64-bit word."""
    word &= 2**64 - 1
    return word - 2**64 if word >= 2**63 else word


def _high_word(words: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The upper 64 of the 128 bits of unsigned words times factors.

    A factor is given by its halves, lower + 2^32 upper, as a negative int64, 2^64 less than the unsigned factor;
    the words, added at the end, make up for that.
    """
    low, high = words & _LOW_HALF, (words >> 32) & _LOW_HALF
    middle = torch.addcmul((low * lower) >> 32, high, lower)
    carry = torch.addcmul(middle & _LOW_HALF, low, upper) >> 32
    return torch.addcmul(middle >> 32, high, upper).add_(carry).add_(words)
