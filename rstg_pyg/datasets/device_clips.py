"""What happens in many clips at once, on any device: the numbers of :mod:`~rstg_pyg.datasets.clips` as tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rstg_pyg.datasets.clips import STREAMS, Clip
from rstg_pyg.datasets.digits import DigitImages
from rstg_pyg.datasets.labels import NO_SYNC
from rstg_pyg.datasets.motion import MAX_STEP, NUM_STARTS, WALK_END
from rstg_pyg.datasets.philox import PhiloxStream

NUM_KINDS = 10


class Clips(NamedTuple):
    r"""Clips before they are drawn, the fields of :class:`~rstg_pyg.datasets.clips.Clip` for :math:`B` of them.

    Attributes:
        images (torch.Tensor): Indices of the digit images, :math:`(B, D)`.
        digits (torch.Tensor): Digit classes, :math:`(B, D)`.
        path (torch.Tensor): Top-left corners (row, column), :math:`(B, D, T, 2)`.
        in_step (torch.Tensor): Whether digits 0 and 1 move in step, bool :math:`(B)`.
        label (torch.Tensor): The labels, :math:`(B)`.
    """

    images: Tensor
    digits: Tensor
    path: Tensor
    in_step: Tensor
    label: Tensor

    def sync(self) -> Tensor:
        r"""The places of the digits that move in step: (0, 1), or (-1, -1) where none do, :math:`(B, 2)`."""
        places = torch.arange(1, 3, device=self.label.device)
        return self.in_step[:, None] * places - 1


class StoredClips:
    r"""Looks clips up that were laid down one by one.

    Args:
        clips (iterable): All clips, as :class:`~rstg_pyg.datasets.clips.Clip`.
        device (torch.device): The device.
    """

    def __init__(self, clips: Iterable[Clip], device: torch.device) -> None:
        fields = zip(*clips, strict=True)
        self._fields = Clips(*(torch.from_numpy(np.stack(field)).to(device) for field in fields))

    def __call__(self, index: Tensor) -> Clips:
        r"""The clips with the given numbers.

        Args:
            index (torch.Tensor): Numbers of the clips, int64.

        Shapes:
            - **index:** :math:`(B)`
        """
        return Clips(*(field.index_select(0, index) for field in self._fields))


class ClipSampler:
    r"""Draws clips of the endless sequence that a seed and a split define, many at once.

    The arguments are those of :func:`~rstg_pyg.datasets.clips.sample_clip`, and so are the clips.

    Args:
        digits (DigitImages): The digit images of the split.
        num_digits (int): Number of digits.
        num_frames (int): Number of frames.
        seed (int): The seed.
        no_sync_probability (float): Probability that all digits move on their own.
        device (torch.device): The device.
    """

    def __init__(
        self,
        digits: DigitImages,
        num_digits: int,
        num_frames: int,
        seed: int,
        no_sync_probability: float,
        device: torch.device,
    ) -> None:
        self.num_digits = num_digits
        self.num_frames = num_frames
        self.no_sync_probability = no_sync_probability
        self._stream = PhiloxStream(seed, STREAMS[digits.train], device)
        self._kind_of = torch.from_numpy(digits.labels.astype(np.int64)).to(device)
        self._num_members = torch.tensor([len(members) for members in digits.by_class], device=device)
        members = np.zeros((NUM_KINDS, max(map(len, digits.by_class))), dtype=np.int64)
        for kind, images in enumerate(digits.by_class):
            members[kind, : len(images)] = images
        self._members = torch.from_numpy(members).to(device)
        others = [[kind for kind in range(NUM_KINDS) if kind != first] for first in range(NUM_KINDS)]
        self._others = torch.tensor(others, device=device)
        self._places = torch.arange(NUM_KINDS, device=device)
        self._num_left = torch.arange(NUM_KINDS - 1, NUM_KINDS - num_digits, -1, device=device)
        # Digit 1 takes the random numbers of its leader, and the smaller of its and its partner's room.
        alone = list(range(num_digits))
        self._alone = torch.tensor(alone, device=device)
        self._leader = torch.tensor([0, 0, *alone[2:]], device=device)
        self._partner = torch.tensor([1, 0, *alone[2:]], device=device)
        self._no_sync = torch.tensor(NO_SYNC, device=device)
        self._direction = torch.tensor([1.0, -1.0], dtype=torch.float64, device=device).view(2, 1, 1, 1)

    def __call__(self, index: Tensor) -> Clips:
        r"""The clips with the given numbers.

        Args:
            index (torch.Tensor): Numbers of the clips, int64.

        Shapes:
            - **index:** :math:`(B)`
        """
        others, num_coordinates = self.num_digits - 1, 2 * self.num_digits
        sizes = [1, 2 * others, num_coordinates, num_coordinates * self.num_frames]
        uniform = self._stream.uniforms(index, sum(sizes))
        chance_of_step, choices, starts, steps = uniform.split(sizes, dim=1)
        in_step = chance_of_step[:, 0] >= self.no_sync_probability
        images, kinds = self._choose(index, choices.unflatten(1, (others, 2)))
        path = self._walk(
            starts.unflatten(1, (self.num_digits, 2)),
            steps.unflatten(1, (self.num_frames, self.num_digits, 2)),
            in_step,
        )
        high, low = torch.maximum(kinds[:, 0], kinds[:, 1]), torch.minimum(kinds[:, 0], kinds[:, 1])
        label = torch.where(in_step, high * (high - 1) // 2 + low, self._no_sync)
        return Clips(images, kinds, path, in_step, label)

    def _choose(self, index: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The images and classes of all digits, from uniform numbers [B, D - 1, 2]."""
        first = index % len(self._kind_of)
        kinds = [self._kind_of[first]]
        left = self._others[kinds[0]]
        places = (uniform[..., 0] * self._num_left).long()
        for place in places.split(1, dim=1):
            kinds.append(left.gather(1, place)[:, 0])
            # All but the class that was taken, still in ascending order.
            kept = self._places[: left.size(1) - 1]
            left = left.gather(1, kept + (kept >= place))
        kinds = torch.stack(kinds, dim=1)
        others = kinds[:, 1:]
        members = (uniform[..., 1] * self._num_members[others]).long()
        return torch.cat((first[:, None], self._members[others, members]), dim=1), kinds

    def _walk(self, starts: Tensor, uniform: Tensor, in_step: Tensor) -> Tensor:
        """The paths [B, D, T, 2] of :func:`~rstg_pyg.datasets.motion.walk`, from uniform numbers alone."""
        together = in_step[:, None]
        leader = torch.where(together, self._leader, self._alone)[:, None, :, None].expand_as(uniform)
        partner = torch.where(together, self._partner, self._alone)[None, :, :, None].expand(2, -1, -1, 2)
        uniform = uniform.gather(2, leader)
        # Room on both sides, [2, B, D, 2], in float64: whole numbers there are exact and need no conversion.
        position = (starts * NUM_STARTS).floor_()
        room = torch.stack((position, WALK_END - position))
        path = []
        for chance in uniform.unbind(1):
            reach = room.clamp(max=MAX_STEP)
            reach = torch.minimum(reach, reach.gather(2, partner))
            # Two digits in step without common room stay: both reaches are 0 then.
            step = (chance * (reach[0] + reach[1])).floor_().sub_(reach[0])
            room = torch.addcmul(room, self._direction, step)
            path.append(room[0])
        return torch.stack(path, dim=2).long()
