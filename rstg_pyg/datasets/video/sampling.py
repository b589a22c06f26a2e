"""Which frames of a video make a clip."""

from __future__ import annotations

import numpy as np


def random_indices(count: int, positions: np.ndarray) -> np.ndarray:
    r"""One random frame from each of :math:`T` equal segments of a video.

    .. math::
        i_k = \lfloor (k + u_k) \, N / T \rfloor, \qquad k = 0 \dots T - 1

    The segments cover the video and do not overlap, so the frames are in order, and of a video with fewer than
    :math:`T` frames some are repeated. Segments are those of Wang et al., "Temporal Segment Networks", ECCV 2016.

    Args:
        count (int): Number of frames :math:`N` of the video.
        positions (numpy.ndarray): Where in its segment every frame lies, :math:`u` within :math:`[0, 1)`.

    Shapes:
        - **positions:** :math:`(T)`
        - **output:** :math:`(T)`, int64

    Example:
        >>> random_indices(8, np.array([0.0, 0.9, 0.5, 0.2])).tolist()
        [0, 3, 5, 6]
    """
    length = len(positions)
    chosen = np.floor((np.arange(length) + positions) * count / length).astype(np.int64)
    # A product just below the number of frames may be rounded up to it.
    return np.minimum(chosen, count - 1)


def spread_indices(count: int, num_frames: int, samplings: int = 1) -> np.ndarray:
    r"""Fixed frames of :math:`T` equal segments of a video, in :math:`S` ways.

    .. math::
        i_{s, k} = \left\lfloor \left( k + \frac{2 s + 1}{2 S} \right) \frac{N}{T} \right\rfloor

    With one sampling these are the centres of the segments, with two the points at a quarter and at three quarters.

    Args:
        count (int): Number of frames :math:`N` of the video.
        num_frames (int): Number of frames :math:`T` of a clip.
        samplings (int): Number of clips :math:`S`. (default: :obj:`1`)

    Shapes:
        - **output:** :math:`(S, T)`, int64

    Example:
        >>> spread_indices(16, 4).tolist()
        [[2, 6, 10, 14]]
        >>> spread_indices(16, 4, samplings=2).tolist()
        [[1, 5, 9, 13], [3, 7, 11, 15]]
    """
    place = 2 * np.arange(samplings, dtype=np.int64)[:, None] + 1
    segment = 2 * samplings * np.arange(num_frames, dtype=np.int64)
    return (segment + place) * count // (2 * samplings * num_frames)
