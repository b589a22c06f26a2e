"""From digit images and paths to the frames of many clips at once, on any device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rstg_pyg.datasets.motion import CANVAS
from rstg_pyg.datasets.render import OPAQUE_FROM
from rstg_pyg.datasets.resize import FRACTION_BITS, resize_taps


class ClipRenderer:
    r"""Draws clips as :func:`~rstg_pyg.datasets.render.render_clip` does, many at once and byte for byte.

    Args:
        images (numpy.ndarray): All digit images as uint8.
        size (int): Height and width of the frames.
        device (torch.device): The device.

    Shapes:
        - **images:** :math:`(N, 28, 28)`
    """

    def __init__(self, images: np.ndarray, size: int, device: torch.device) -> None:
        self.size = size
        image, row, column = np.nonzero(images >= OPAQUE_FROM)
        counts = np.bincount(image, minlength=len(images))
        if not counts.all():
            raise ValueError(
                f"expected every digit image to have a pixel of {OPAQUE_FROM} or brighter, "
                f"got none in image {np.argmin(counts)}"
            )
        # The opaque pixels of every image; shorter rows repeat their last pixel, which then is written twice.
        ends = np.cumsum(counts)
        pick = np.minimum((ends - counts)[:, None] + np.arange(counts.max()), ends[:, None] - 1)
        self._row = torch.from_numpy(row.astype(np.uint8)[pick]).to(device)
        self._column = torch.from_numpy(column.astype(np.uint8)[pick]).to(device)
        self._value = torch.from_numpy(images[image, row, column][pick]).to(device)
        self._stretch = torch.from_numpy(_stretch_levels()).to(device)
        index, weight = resize_taps(CANVAS, size)
        self._tap_index = torch.from_numpy(index.copy()).to(device).unbind()
        self._tap_weight = torch.from_numpy(weight.copy()).to(device).unbind()
        matrix = np.zeros((size, CANVAS))
        np.add.at(matrix, (np.arange(size), index), weight * 2.0**-FRACTION_BITS)
        self._matrix = torch.from_numpy(matrix).to(device)
        self._half = torch.tensor(0.5, dtype=torch.float64, device=device)

    def bytes_per_clip(self, num_digits: int, num_frames: int) -> int:
        r"""About how much memory the temporary tensors of one clip take.

        Args:
            num_digits (int): Number of digits.
            num_frames (int): Number of frames.
        """
        pasted = 40 * num_digits * self._value.size(1)
        return num_frames * (pasted + 9 * CANVAS * CANVAS + 16 * CANVAS * self.size + 9 * self.size * self.size)

    def __call__(self, images: Tensor, path: Tensor) -> Tensor:
        r"""The frames of clips.

        Args:
            images (torch.Tensor): Indices of the digit images, int64.
            path (torch.Tensor): Top-left corner (row, column) of every digit in every frame, int64.

        Shapes:
            - **images:** :math:`(B, D)`
            - **path:** :math:`(B, D, T, 2)`
            - **output:** :math:`(B, T, \mathrm{size}, \mathrm{size})`, uint8
        """
        canvas = self._draw(images, path)
        if self.size == CANVAS:
            frames = canvas.permute(1, 2, 0).contiguous()
        elif canvas.device.type == "cpu":
            frames = self._resize_by_taps(canvas)
        else:
            frames = self._resize_by_products(canvas)
        return frames.view(path.size(0), path.size(2), self.size, self.size)

    def _draw(self, images: Tensor, path: Tensor) -> Tensor:
        """The stretched frames before they are resized, columns first: uint8 [100, B T, 100]."""
        (num_clips, num_digits), num_frames = images.shape, path.size(2)
        stride = num_clips * num_frames * CANVAS
        # Digits first: [D, B, T] corners and [D, B, K] pixels, so that each digit is one stretch of memory.
        images, path = images.T.contiguous(), path.transpose(0, 1).contiguous()
        frame = torch.arange(num_clips * num_frames, device=path.device).view(num_clips, num_frames)
        corner = torch.add(path[..., 0], path[..., 1], alpha=stride).add_(frame, alpha=CANVAS)
        row, column, value = (
            pixels.index_select(0, images.view(-1)).view(num_digits, num_clips, 1, -1)
            for pixels in (self._row, self._column, self._value)
        )
        target = corner[..., None] + torch.add(row.long(), column.long(), alpha=stride)
        value = value.expand_as(target)
        canvas = torch.zeros(CANVAS * stride, dtype=torch.uint8, device=path.device)
        _paste(canvas, target, value)
        # Digits leave some of the canvas black, for 10 x 28 x 28 < 100 x 100: all frames are stretched from 0 on.
        brightest = canvas.view(CANVAS, -1).amax(0).view(num_clips, num_frames, CANVAS).amax(2, keepdim=True)
        level = self._stretch.index_select(0, (brightest.long() * 256 + value).view(-1))
        _paste(canvas, target, level.view_as(target))
        return canvas.view(CANVAS, -1, CANVAS)

    def _resize_by_products(self, columns: Tensor) -> Tensor:
        """Resizes by products with the matrix of weights, exact in float64."""
        wide = torch.addmm(self._half, self._matrix, columns.flatten(1).double()).floor_()
        tall = torch.addmm(self._half, wide.view(-1, CANVAS), self._matrix.T)
        frames = tall.view(self.size, -1, self.size).permute(1, 2, 0)
        return frames.to(torch.uint8, memory_format=torch.contiguous_format)

    def _resize_by_taps(self, columns: Tensor) -> Tensor:
        """Resizes by sums over the weights of each pixel, in int32."""
        wide = self._weigh(columns.int(), 0)
        return self._weigh(wide.permute(1, 2, 0).contiguous(), 1).to(torch.uint8)

    def _weigh(self, lines: Tensor, dim: int) -> Tensor:
        """Resizes one dimension of int32 values, rounded."""
        shape = [self.size if axis == dim else 1 for axis in range(lines.dim())]
        total = None
        for index, weight in zip(self._tap_index, self._tap_weight, strict=True):
            line, weight = lines.index_select(dim, index), weight.view(shape)
            total = line.mul_(weight) if total is None else total.addcmul_(line, weight)
        return total.add_(1 << (FRACTION_BITS - 1)).bitwise_right_shift_(FRACTION_BITS)


def _paste(canvas: Tensor, target: Tensor, value: Tensor) -> None:
    """Writes the pixels of one digit after the other."""
    for place, pixels in zip(target, value, strict=True):
        canvas.scatter_(0, place.reshape(-1), pixels.reshape(-1))


def _stretch_levels() -> np.ndarray:
    """What :func:`~rstg_pyg.datasets.render.stretch_contrast` makes of each value, by the brightest: [256 * 256]."""
    value, brightest = np.arange(256), np.arange(256)[:, None]
    levels = np.minimum(value, np.maximum(brightest, 1)) * (255.0 / np.maximum(brightest, 1))
    return (levels + 0.5).astype(np.uint8).reshape(-1)
