"""The random numbers of :mod:`~rstg_pyg.datasets.stream` for many positions at once, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 10
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_LOW_HALF = 0xFFFFFFFF


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


class PhiloxStream:
    r"""Random numbers for many positions of one stream, equal to those of NumPy.

    Philox4x64-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) turns a counter of
    four words into four random words by ten rounds

    .. math::
        (c_0, c_1, c_2, c_3) \leftarrow
        (\mathrm{high}(m_1 c_2) \oplus c_1 \oplus k_0, \; \mathrm{low}(m_1 c_2), \;
        \mathrm{high}(m_0 c_0) \oplus c_3 \oplus k_1, \; \mathrm{low}(m_0 c_0)),

    with a key :math:`(k_0, k_1)` that steps from round to round. Block :math:`n = 0, 1, \ldots` of position
    :math:`i` is the block of the counter :math:`(n + 1, 0, 0, i)`. Words are kept in int64, whose products wrap
    around as those of unsigned words do.

    Args:
        seed (int): First word of the key, 0 to :math:`2^{64} - 1`.
        stream (int): Second word of the key, 0 to :math:`2^{64} - 1`.
        device (torch.device): The device.

    Example:
        >>> from rstg_pyg.datasets.stream import uniforms
        >>> numbers = PhiloxStream(seed=3, stream=5, device="cpu").uniforms(torch.tensor([0, 7]), 6)
        >>> bool((numbers[1].numpy() == uniforms(3, 5, 7, 6)).all())
        True
    """

    def __init__(self, seed: int, stream: int, device: torch.device | str) -> None:
        # Words 0 and 2 of the counter, and words 1 and 3, go through each round as one tensor [2, B, blocks].
        # A round swaps both pairs; here the tensors stay and, every other time, the constants are swapped.
        self._rounds: list[tuple[Tensor, ...]] = []
        for number in range(ROUNDS):
            key = [_signed(word + number * step) for word, step in zip((seed, stream), _KEY_STEPS, strict=True)]
            factor = [_signed(word) for word in _MULTIPLIERS]
            # With a lower half within -2^31 to 2^31 - 1 no product of halves below leaves int64.
            lower = [(word + 2**31) % 2**32 - 2**31 for word in factor]
            upper = [(word - half) >> 32 for word, half in zip(factor, lower, strict=True)]
            order = 1 if number % 2 == 0 else -1
            constants = [key[::-order], factor[::order], lower[::order], upper[::order]]
            self._rounds.append(torch.tensor(constants, device=device).view(4, 2, 1, 1).unbind())

    def words(self, index: Tensor, count: int) -> Tensor:
        r"""The first random words of each position.

        Args:
            index (torch.Tensor): The positions, int64.
            count (int): How many words.

        Shapes:
            - **index:** :math:`(B)`
            - **output:** :math:`(B, \mathrm{count})`, int64 with the bits of the unsigned words
        """
        blocks = -(-count // 4)
        even = index.new_zeros(2, index.numel(), blocks)
        odd = torch.zeros_like(even)
        even[0] = torch.arange(1, blocks + 1, device=index.device)
        odd[1] = index[:, None]
        for key, factor, lower, upper in self._rounds:
            high = _high_word(even, lower, upper)
            even, odd = high.bitwise_xor_(odd.flip(0)).bitwise_xor_(key), even * factor
        return torch.stack((even, odd), dim=1).permute(2, 3, 0, 1).flatten(1)[:, :count]

    def uniforms(self, index: Tensor, count: int) -> Tensor:
        r"""Uniform numbers in :math:`[0, 1)`, those of :func:`~rstg_pyg.datasets.stream.uniforms`.

        Args:
            index (torch.Tensor): The positions, int64.
            count (int): How many numbers.

        Shapes:
            - **index:** :math:`(B)`
            - **output:** :math:`(B, \mathrm{count})`, float64
        """
        return ((self.words(index, count) >> 11) & (2**53 - 1)).double() * 2.0**-53
