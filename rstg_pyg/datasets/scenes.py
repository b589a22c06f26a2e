"""What happens in the clips of SyncMNIST before they are drawn: which digits, which of them in step, along which paths,
and the 46 labels."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rstg_pyg.arguments import whole_number
from rstg_pyg.datasets.digits import DigitImages
from rstg_pyg.datasets.drawing import CANVAS, SPRITE
from rstg_pyg.datasets.random_numbers import RandomNumbers

NUM_PAIRS = 45
NO_SYNC = NUM_PAIRS
NUM_CLASSES = NUM_PAIRS + 1
NO_SYNC_PROBABILITY = 1 / 92
NUM_DIGIT_CLASSES = 10
MAX_STEP = 10
NUM_STARTS = CANVAS - SPRITE
# Steps never lead onto the last start position: the walk keeps below this bound.
WALK_END = NUM_STARTS - 1
# Second word of the random numbers' key: training and test clips share no random number.
SERIES = {True: 0x747261696E, False: 0x74657374}


def pair_to_label(first: int, second: int) -> int:
    r"""Give the label of two digit classes that move in step.

    With :math:`i > j` the two classes, in whatever order they are given,

    .. math::
        \mathrm{label}(i, j) = \frac{i (i - 1)}{2} + j .

    Args:
        first: One digit class, 0 to 9.
        second: The other digit class, 0 to 9.

    Returns:
        The label, 0 to 44.

    Raises:
        ValueError: If the classes are equal or not within 0 to 9.

    Source: the SyncMNIST generator of Nicolicioiu, Duta, Leordeanu, "Recurrent Space-time Graph Neural Networks",
    NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> pair_to_label(1, 0), pair_to_label(7, 1), pair_to_label(8, 9)
        (0, 22, 44)
    """
    high, low = max(first, second), min(first, second)
    if low < 0 or high > 9 or low == high:
        raise ValueError(f"expected two different digit classes within 0 to 9, got {first} and {second}")
    return high * (high - 1) // 2 + low


def label_to_pair(label: int) -> tuple[int, int] | None:
    """Give the pair of digit classes behind a label, the inverse of :func:`pair_to_label`.

    Args:
        label: A label, 0 to 45.

    Returns:
        The two classes, the larger first, or None for label 45, where no two digits move in step.

    Raises:
        ValueError: If the label is not within 0 to 45.

    Source: the SyncMNIST generator of Nicolicioiu, Duta, Leordeanu, "Recurrent Space-time Graph Neural Networks",
    NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> label_to_pair(22), label_to_pair(45)
        ((7, 1), None)
    """
    if not 0 <= label <= NO_SYNC:
        raise ValueError(f"expected a label within 0 to {NO_SYNC}, got {label}")
    if label == NO_SYNC:
        return None
    label = int(label)
    high = (1 + math.isqrt(1 + 8 * label)) // 2
    return high, label - high * (high - 1) // 2


def draw_starts(uniform: np.ndarray) -> np.ndarray:
    """Turn uniform numbers in [0, 1) into top-left coordinates before the first step, uniform over 0 to 71.

    Shapes:
        - **uniform:** ``[*]``.
        - **output:** ``[*]``, int64.

    Source: the SyncMNIST generator of Nicolicioiu, Duta, Leordeanu, "Recurrent Space-time Graph Neural Networks",
    NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> draw_starts(np.array([0.0, 0.5, 0.999])).tolist()
        [0, 36, 71]
    """
    return np.floor(uniform * NUM_STARTS).astype(np.int64)


def walk(starts: np.ndarray, uniform: np.ndarray, in_step: np.ndarray | bool, delay: int = 0) -> np.ndarray:
    r"""Let every digit take one random step per frame, the first two together if asked.

    For a coordinate at :math:`x` the step is an integer drawn uniformly from

    .. math::
        \{\max(-10, -x), \ldots, \min(10, 71 - x) - 1\},

    which keeps it on the canvas. Where digits 0 and 1 move in step, both take one step drawn from the intersection of
    their two ranges; where that is empty (one stands at 0, the other at 71) they stay. The start itself is not shown:
    frame 0 lies one step after it. These are the rules that the paths published with "Recurrent Space-time Graph Neural
    Networks" (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019) follow.

    With a ``delay`` of G, digit 1 takes every step G frames after digit 0 did: it walks on its own for G frames, and
    from there on the two places that are in step are that of digit 0 and that of digit 1 G frames later.

    Args:
        starts: Integer top-left coordinates (row, column) before the first step.
        uniform: Uniform numbers in [0, 1), one per frame, digit and coordinate. Those of digit 1 are not used where it
            moves in step with digit 0.
        in_step: Whether digits 0 and 1 move in step.
        delay: Frames G by which digit 1 is behind digit 0, 0 to T.

    Shapes:
        - **starts:** ``[*, D, 2]``.
        - **uniform:** ``[*, T, D, 2]``.
        - **in_step:** ``[*]``.
        - **output:** ``[*, D, T, 2]``, int64.

    Raises:
        ValueError: If ``delay`` is not within 0 to T.

    Source: the SyncMNIST generator of Nicolicioiu, Duta, Leordeanu, "Recurrent Space-time Graph Neural Networks",
    NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> path = walk(np.zeros((2, 2), dtype=int), np.full((3, 2, 2), 0.99), True)
        >>> path[0].tolist()
        [[9, 9], [18, 18], [27, 27]]
    """
    (*clips, num_frames, num_digits, _), cpu = uniform.shape, torch.device("cpu")
    whole_number("delay", delay, 0, num_frames)
    path = _walk(
        torch.tensor(np.broadcast_to(starts, (*clips, num_digits, 2)), dtype=torch.float64, device=cpu),
        torch.tensor(uniform, dtype=torch.float64, device=cpu),
        torch.tensor(np.broadcast_to(in_step, clips), dtype=torch.bool, device=cpu),
        delay,
    )
    return path.numpy()


def _walk(starts: Tensor, uniform: Tensor, in_step: Tensor, delay: int = 0) -> Tensor:
    """The paths [*, D, T, 2] of :func:`walk`, in float64, where whole numbers are exact; writes into ``uniform``."""
    if delay > 0:
        # The second digit alone; where it stands in the end is where it starts to repeat the first one's steps.
        second = starts[..., 1:2, :], uniform[..., :delay, 1:2, :].clone(), torch.zeros_like(in_step)
        alone = _walk(*second).squeeze(-3)
        starts = starts.clone()
        starts[..., 1, :] = torch.where(in_step[..., None], alone[..., -1, :].double(), starts[..., 1, :])
        path = _walk(starts, uniform, in_step)
        behind = torch.cat((alone, path[..., 1, : path.size(-2) - delay, :]), dim=-2)
        path[..., 1, :, :] = torch.where(in_step[..., None, None], behind, path[..., 1, :, :])
        return path
    together = in_step[..., None, None]
    before, behind = starts.clone(), WALK_END - starts
    # Two digits in step walk as one, with the smaller room of the two on either side. Both rooms change by the same
    # step, so that the smaller stays the smaller.
    for room in (before, behind):
        pair = room[..., :2, :]
        pair.copy_(torch.where(together, pair.amin(-2, keepdim=True), pair))
    chances = uniform[..., :2, :]
    chances.copy_(torch.where(together[..., None], chances[..., :1, :], chances))
    first, room, path = before, before + behind, []
    for chance in uniform.unbind(-3):
        reach = before.clamp(max=MAX_STEP)
        # Without common room both reaches are 0, and so is the step.
        count = (room - before).clamp_(max=MAX_STEP).add_(reach)
        before = count.mul_(chance).floor_().sub_(reach).add_(before)
        path.append(before)
    return torch.stack(path, dim=-2).add_((starts - first)[..., None, :]).long()


class Scenes(NamedTuple):
    """B clips before they are drawn.

    Attributes:
        images: Indices of the digit images, ``[B, D]``.
        digits: Digit classes, ``[B, D]``.
        path: Top-left corners (row, column), ``[B, D, T, 2]``.
        in_step: Whether digits 0 and 1 move in step, bool ``[B]``.
    """

    images: Tensor
    digits: Tensor
    path: Tensor
    in_step: Tensor

    def at(self, index: Tensor) -> Scenes:
        """Take some of them."""
        return Scenes(*(field.index_select(0, index) for field in self))

    def label(self) -> Tensor:
        """The labels, 0 to 45, ``[B]``."""
        first, second = self.digits[:, 0], self.digits[:, 1]
        high, low = torch.maximum(first, second), torch.minimum(first, second)
        return (high * (high - 1) // 2).add_(low).masked_fill_(~self.in_step, NO_SYNC)

    def sync(self) -> Tensor:
        """The places of the digits that move in step: (0, 1), or (-1, -1) where none do, ``[B, 2]``."""
        return self.in_step[:, None] * torch.arange(1, 3, device=self.in_step.device) - 1


class SceneSampler:
    """Draws scenes of the endless sequence that a seed and a split define, many at once, on any device.

    The first digit of scene i is image i modulo the number of images. Each further digit draws a class uniformly from
    those not yet in the scene, then an image uniformly from that class. Digits 0 and 1 move in step but for a
    probability of ``no_sync_probability``. Starts and steps are those of :func:`walk`. Scenes of different lengths
    agree in their common frames.

    Args:
        digits: The digit images of the split.
        num_digits: Number D of digits.
        num_frames: Number T of frames.
        seed: The seed.
        no_sync_probability: Probability that all digits move on their own.
        device: The device.
        delay: Frames by which digit 1 is behind digit 0 where they move in step.
    """

    def __init__(
        self,
        digits: DigitImages,
        num_digits: int,
        num_frames: int,
        seed: int,
        no_sync_probability: float,
        device: torch.device,
        delay: int = 0,
    ) -> None:
        self.num_digits = num_digits
        self.num_frames = num_frames
        self.delay = delay
        self.no_sync_probability = no_sync_probability
        self._uniforms = RandomNumbers(seed, SERIES[digits.train], device)
        self._class_of = torch.from_numpy(digits.labels.astype(np.int64)).to(device)
        self._num_members = torch.tensor([len(members) for members in digits.by_class], device=device)
        members = np.zeros((NUM_DIGIT_CLASSES, max(map(len, digits.by_class))), dtype=np.int64)
        for digit, images in enumerate(digits.by_class):
            members[digit, : len(images)] = images
        self._members = torch.from_numpy(members).to(device)
        classes = range(NUM_DIGIT_CLASSES)
        self._others = torch.tensor(
            [[other for other in classes if other != digit] for digit in classes], device=device
        )
        self._places = torch.arange(NUM_DIGIT_CLASSES, device=device)
        self._num_left = torch.arange(NUM_DIGIT_CLASSES - 1, NUM_DIGIT_CLASSES - num_digits, -1, device=device)

    def __call__(self, index: Tensor) -> Scenes:
        """Draw the scenes with the given numbers, int64 ``[B]``."""
        others, num_coordinates = self.num_digits - 1, 2 * self.num_digits
        sizes = [1, 2 * others, num_coordinates, num_coordinates * self.num_frames]
        chance_of_step, choices, starts, steps = self._uniforms(index, sum(sizes)).split(sizes, dim=1)
        in_step = chance_of_step[:, 0] >= self.no_sync_probability
        images, digits = self._choose(index, choices.view(-1, others, 2))
        path = _walk(
            (starts * NUM_STARTS).floor_().view(-1, self.num_digits, 2),
            steps.view(-1, self.num_frames, self.num_digits, 2),
            in_step,
            self.delay,
        )
        return Scenes(images, digits, path, in_step)

    def _choose(self, index: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The images and classes of all digits, from uniform numbers [B, D - 1, 2]."""
        first = index % len(self._class_of)
        digits = [self._class_of.index_select(0, first)]
        left = self._others.index_select(0, digits[0])
        for place in (uniform[..., 0] * self._num_left).long().split(1, dim=1):
            digits.append(left.gather(1, place)[:, 0])
            # All but the class that was taken, still in ascending order.
            kept = self._places[: left.size(1) - 1]
            left = left.gather(1, kept + (kept >= place))
        digits = torch.stack(digits, dim=1)
        others = digits[:, 1:]
        members = (uniform[..., 1] * self._num_members.take(others)).long().add_(others, alpha=self._members.size(1))
        return torch.cat((first[:, None], self._members.take(members)), dim=1), digits
