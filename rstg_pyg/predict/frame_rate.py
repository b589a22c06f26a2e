"""Which frames of a stream are looked at."""

from __future__ import annotations

from fractions import Fraction

from rstg_pyg.arguments import check_positive

CLIP_SECONDS = 4
"""About how long the videos of Something-Something are (2 to 6 seconds): a training clip is spread over that."""


class FrameSampler:
    r"""Take frames of a stream at a fixed rate, each where its span of time has its middle.

    .. math::
        i_k = \left\lfloor \left( k + \frac{1}{2} \right) r \right\rfloor

    with r frames of the stream per frame taken. With :math:`r = N / T` these are the T frames that
    :func:`~rstg_pyg.datasets.video.spread_indices` takes of a video of N frames. With r below 1, frames are taken more
    than once, as they are in training from videos of fewer frames than a clip has.

    Args:
        ratio: Frames of the stream per frame taken, r.

    Raises:
        ValueError: If the ratio is not above 0.

    Example:
        >>> sampler = FrameSampler(Fraction(3, 2))
        >>> [sampler.times() for _ in range(9)]
        [1, 0, 1, 1, 0, 1, 1, 0, 1]
    """

    def __init__(self, ratio: Fraction) -> None:
        if not ratio > 0:
            raise ValueError(f"expected 'ratio' to be above 0, got {ratio}")
        self._ratio = Fraction(ratio)
        self._frames = self._taken = 0

    def times(self) -> int:
        """How many times the next frame of the stream is taken."""
        self._frames += 1
        # All k with (k + 1/2) r below the number of frames so far.
        reached = self._frames / self._ratio - Fraction(1, 2)
        before, self._taken = self._taken, max(self._taken, -(-reached.numerator // reached.denominator))
        return self._taken - before


def default_rate(num_frames: int) -> Fraction:
    r"""Frames a second at which a clip's frames cover :data:`CLIP_SECONDS`.

    Example:
        >>> default_rate(32)
        Fraction(8, 1)
    """
    check_positive(num_frames=num_frames)
    return Fraction(num_frames, CLIP_SECONDS)


def as_rate(name: str, value: float) -> Fraction:
    r"""A number of frames a second, exact enough for any video.

    Raises:
        ValueError: If it is not a number above 0.

    Example:
        >>> as_rate("rate", 29.97)
        Fraction(2997, 100)
    """
    if not (isinstance(value, (int, float, Fraction)) and 0 < value < 10**6):
        raise ValueError(f"expected {name!r} to be frames a second, above 0, got {value!r}")
    rate = Fraction(value).limit_denominator(100_000)
    if rate == 0:
        raise ValueError(f"expected {name!r} to be frames a second, above 0, got {value!r}")
    return rate
