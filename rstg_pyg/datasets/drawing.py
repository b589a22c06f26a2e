"""From digit images and paths to frames: pasting, stretching, resizing."""

from __future__ import annotations

import struct
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rstg_pyg.ops.native.build import library

CANVAS = 100
SPRITE = 28
OPAQUE_FROM = 10
FRACTION_BITS = 22
# Bytes of temporary tensors that one round of drawing may take: on a CPU about what its caches hold.
ROUND_BYTES_CPU = 2**25
ROUND_BYTES = 2**30
_SOURCE = Path(__file__).with_name("resize.cpp")
_ARGUMENTS = struct.Struct("13q")

Pixels = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows, columns and values of the opaque pixels of images, each uint8 ``[N, K]``."""


def stretch_contrast(frame: np.ndarray) -> np.ndarray:
    r"""Stretch one frame to the full range, :math:`\lfloor (v - a) (255 / (b - a)) + 1/2 \rfloor`.

    :math:`a` and :math:`b` are the smallest and the largest value of the frame, and the quotient is rounded to double
    precision before it is multiplied. A frame of a single value becomes 0.

    Args:
        frame: A frame as uint8.

    Shapes:
        - **frame:** ``[*]``.
        - **output:** ``[*]``, uint8.

    Raises:
        ValueError: If the frame is of another type.

    Source: the SyncMNIST generator of Nicolicioiu, Duta, Leordeanu, "Recurrent Space-time Graph Neural Networks",
    NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> stretch_contrast(np.array([10, 20, 30], dtype=np.uint8)).tolist()
        [0, 128, 255]
    """
    _check_bytes("a frame", frame, frame.ndim, "[*]")
    return _levels(int(frame.min()), int(frame.max()))[frame]


def _check_bytes(what: str, images: np.ndarray, num_dims: int, shape: str) -> None:
    """Raise unless ``images`` holds bytes, which is what kernels read and tables have entries for."""
    if images.dtype != np.uint8 or images.ndim != num_dims:
        raise ValueError(f"expected {what} {shape}, uint8, got {images.dtype} of shape {list(images.shape)}")


def _levels(low: int, high: int | np.ndarray) -> np.ndarray:
    """What becomes of each of the 256 values where a frame reaches from ``low`` to ``high``."""
    span = np.maximum(high - low, 1)
    return (np.clip(np.arange(256) - low, 0, span) * (255.0 / span) + 0.5).astype(np.uint8)


@lru_cache(maxsize=32)
def resize_taps(size_in: int, size_out: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Give the input samples that an output sample is made of, and their integer weights.

    With :math:`s = \mathrm{size\_in} / \mathrm{size\_out}` and :math:`w = \max(s, 1)`, output sample :math:`n` is
    centred at :math:`c = (n + 1/2) s` and input sample :math:`m` weighs :math:`\max(0, 1 - |m + 1/2 - c| / w)`. The
    weights of one output are divided by their sum and rounded to multiples of :math:`2^{-22}`.

    Shapes:
        - **output:** indices and int32 weights in units of 2^-22, ``[K, size_out]`` with K taps per output sample.
          Unused places weigh 0.

    Example:
        >>> index, weight = resize_taps(4, 2)
        >>> (weight.sum(axis=0) == 2**22).all().item()
        True
    """
    scale = size_in / size_out
    width = max(scale, 1.0)
    windows = []
    for sample in range(size_out):
        centre = (sample + 0.5) * scale
        begin = max(int(centre - width + 0.5), 0)
        end = min(int(centre + width + 0.5), size_in)
        weights = [max(0.0, 1.0 - abs((m - centre + 0.5) / width)) for m in range(begin, end)]
        total = sum(weights)
        windows.append((begin, [int(0.5 + w / total * 2**FRACTION_BITS) for w in weights]))
    num_taps = max(len(weights) for _, weights in windows)
    index = np.zeros((num_taps, size_out), dtype=np.intp)
    weight = np.zeros((num_taps, size_out), dtype=np.int32)
    for sample, (begin, weights) in enumerate(windows):
        index[:, sample] = np.minimum(begin + np.arange(num_taps), size_in - 1)
        weight[: len(weights), sample] = weights
    index.flags.writeable = weight.flags.writeable = False
    return index, weight


class Taps:
    """Resizes one dimension by sums over the weights of each sample, in int32.

    All weights are positive and sum to about 2^22, so int32 holds every sum, and none exceeds 255 after rounding.
    """

    def __init__(self, size_in: int, size_out: int, device: torch.device | str) -> None:
        self.index, self.weight = (torch.tensor(array, device=device) for array in resize_taps(size_in, size_out))

    def __call__(self, lines: Tensor, dim: int) -> Tensor:
        """Resize int32 values 0 to 255, rounded."""
        total = None
        for index, weight in zip(self.index, self.weight, strict=True):
            line = lines.index_select(dim, index)
            weight = weight.view([-1 if axis == dim else 1 for axis in range(lines.dim())])
            total = line.mul_(weight) if total is None else total.addcmul_(line, weight)
        return total.add_(1 << (FRACTION_BITS - 1)).bitwise_right_shift_(FRACTION_BITS)


def _resize_by_taps(columns: Tensor, across: Taps, down: Taps) -> Tensor:
    """Resize uint8 images that are stored column by column, [W, N, H], to [N, size, size]; on a CPU in native code,
    where there is a compiler."""
    native = library("float", _SOURCE) if columns.is_cpu and not torch.compiler.is_compiling() else None
    if native is not None:
        columns, size = columns.contiguous(), across.index.size(1)
        frames = columns.new_empty(columns.size(1), size, size)
        taps = ((one.index.size(0), one.index.data_ptr(), one.weight.data_ptr()) for one in (across, down))
        sizes = torch.get_num_threads(), columns.size(1), columns.size(2), columns.size(0), size
        packed = _ARGUMENTS.pack(*sizes, *chain(*taps), columns.data_ptr(), frames.data_ptr())
        if native.rstg_resize(packed):
            raise MemoryError("the native code ran out of memory")
        return frames
    wide = across(columns.int(), 0)
    return down(wide.permute(1, 2, 0).contiguous(), 1).to(torch.uint8)


def resize_bilinear(images: np.ndarray, size: int) -> np.ndarray:
    """Resize 8-bit images with an antialiased triangle filter.

    First along the rows, then along the columns, in fixed-point arithmetic; each pass ends with rounding to an
    integer. The result is byte for byte that of Pillow's ``Image.resize`` with the bilinear filter.

    Args:
        images: Images as uint8.
        size: Height and width of the result.

    Shapes:
        - **images:** ``[N, H, W]``.
        - **output:** ``[N, size, size]``, uint8.

    Raises:
        ValueError: If the images are of another shape or type.

    Source: how the SyncMNIST generator of Nicolicioiu, Duta, Leordeanu, "Recurrent Space-time Graph Neural Networks",
    NeurIPS 2019, arXiv:1904.05582, resizes frames: Pillow's bilinear filter.

    Example:
        >>> resize_bilinear(np.full((1, 100, 100), 7, dtype=np.uint8), 64).shape
        (1, 64, 64)
    """
    _check_bytes("images", images, 3, "[N, H, W]")
    down, across = (Taps(length, size, "cpu") for length in images.shape[1:])
    return _resize_by_taps(torch.tensor(images, device="cpu").permute(2, 0, 1), across, down).numpy()


def opaque_pixels(images: np.ndarray) -> Pixels:
    """Find the pixels of every image that hide what is under them: those of 10 or brighter.

    Images with fewer of them than others repeat their last one, which then is drawn several times.

    Args:
        images: Images as uint8.

    Shapes:
        - **images:** ``[N, h, w]``.
        - **output:** rows, columns and values, ``[N, K]``, uint8.

    Raises:
        ValueError: If an image has no such pixel.
    """
    flat = images.reshape(len(images), -1)
    opaque = flat >= OPAQUE_FROM
    counts = np.count_nonzero(opaque, axis=1)
    if not counts.all():
        raise ValueError(
            f"expected every digit image to have a pixel of {OPAQUE_FROM} or brighter, "
            f"got none in image {np.argmin(counts)}"
        )
    place = (np.flatnonzero(opaque) % flat.shape[1]).astype(np.int16)
    last, kept = np.cumsum(counts) - 1, np.arange(counts.max()) < counts[:, None]
    pixels = []
    for values in (place // images.shape[2], place % images.shape[2], flat[opaque]):
        padded = np.repeat(values[last].astype(np.uint8)[:, None], counts.max(), axis=1)
        padded[kept] = values
        pixels.append(padded)
    return tuple(pixels)


class ClipRenderer:
    """Draws the frames of clips as :func:`render_clip` describes, many at once, on any device.

    Args:
        pixels: The opaque pixels of all digit images, see :func:`opaque_pixels`.
        size: Height and width of the frames.
        device: The device.
    """

    def __init__(self, pixels: Pixels, size: int, device: torch.device) -> None:
        self.size = size
        self._pixels = [torch.from_numpy(array).to(device) for array in pixels]
        self._stretch = torch.from_numpy(_levels(0, np.arange(256)[:, None]).reshape(-1)).to(device)
        self._taps = Taps(CANVAS, size, device)
        index, weight = resize_taps(CANVAS, size)
        matrix = np.zeros((size, CANVAS))
        np.add.at(matrix, (np.arange(size), index), weight * 2.0**-FRACTION_BITS)
        self._matrix = torch.from_numpy(matrix).to(device)
        self._half = torch.tensor(0.5, dtype=torch.float64, device=device)

    def bytes_per_clip(self, num_digits: int, num_frames: int) -> int:
        """Tell about how much memory the temporary tensors of one clip take."""
        pasted = 40 * num_digits * self._pixels[0].size(1)
        return num_frames * (pasted + 9 * CANVAS * CANVAS + 16 * CANVAS * self.size + 9 * self.size * self.size)

    def __call__(self, images: Tensor, path: Tensor) -> Tensor:
        """Draw the frames of clips, in rounds where there are many.

        Args:
            images: Indices of the digit images, int64.
            path: Top-left corner (row, column) of every digit in every frame, int64.

        Shapes:
            - **images:** ``[B, D]``.
            - **path:** ``[B, D, T, 2]``.
            - **output:** ``[B, T, size, size]``, uint8.
        """
        limit = ROUND_BYTES_CPU if path.device.type == "cpu" else ROUND_BYTES
        at_once = max(1, limit // self.bytes_per_clip(path.size(1), path.size(2)))
        if len(path) > at_once:
            rounds = zip(images.split(at_once), path.split(at_once), strict=True)
            return torch.cat([self(*part) for part in rounds])
        canvas = self._draw(images, path)
        if self.size == CANVAS:
            frames = canvas.permute(1, 2, 0).contiguous()
        elif canvas.device.type == "cpu":
            frames = _resize_by_taps(canvas, self._taps, self._taps)
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
            pixels.index_select(0, images.view(-1)).view(num_digits, num_clips, 1, -1) for pixels in self._pixels
        )
        target = corner[..., None] + torch.add(row.long(), column.long(), alpha=stride)
        value = value.expand_as(target)
        canvas = torch.zeros(CANVAS * stride, dtype=torch.uint8, device=path.device)
        _paste(canvas, target, value)
        frames = canvas.view(CANVAS, -1, CANVAS)
        if num_digits * value.size(-1) < CANVAS * CANVAS:
            # Some of the canvas is black: all frames are stretched from 0 on, and so it is enough to paste once more.
            brightest = canvas.view(CANVAS, -1).amax(0).view(num_clips, num_frames, CANVAS).amax(2, keepdim=True)
            if brightest.device.type == "cpu" and not torch.compiler.is_compiling() and brightest.min() == 255:
                return frames
            level = self._stretch.index_select(0, (brightest.long() * 256 + value).view(-1))
            _paste(canvas, target, level.view_as(target))
        else:
            # Not with digits, for 10 x 28 x 28 < 100 x 100, but with large sprites.
            for place in range(frames.size(1)):
                frames[:, place] = torch.from_numpy(stretch_contrast(frames[:, place].numpy()))
        return frames

    def _resize_by_products(self, columns: Tensor) -> Tensor:
        """Resize by products with the matrix of weights, exact in float64: on CUDA faster than sums, on a CPU not."""
        wide = torch.addmm(self._half, self._matrix, columns.flatten(1).double()).floor_()
        tall = torch.addmm(self._half, wide.view(-1, CANVAS), self._matrix.T)
        frames = tall.view(self.size, -1, self.size).permute(1, 2, 0)
        return frames.to(torch.uint8, memory_format=torch.contiguous_format)


def _paste(canvas: Tensor, target: Tensor, value: Tensor) -> None:
    """Write the pixels of one digit after the other."""
    for place, pixels in zip(target, value, strict=True):
        canvas.scatter_(0, place.reshape(-1), pixels.reshape(-1))


def render_clip(sprites: np.ndarray, path: np.ndarray, size: int = 64) -> np.ndarray:
    """Draw a clip: digit sprites that move along given paths over a black canvas.

    In every frame the sprites are pasted in their order onto a canvas of 100 x 100, and a later sprite hides earlier
    ones where its pixels are 10 or brighter; its darker pixels are transparent. Then each frame is stretched by
    :func:`stretch_contrast` and resized by :func:`resize_bilinear`. The result is byte for byte that of the authors'
    generator ("Recurrent Space-time Graph Neural Networks", Nicolicioiu, Duta, Leordeanu, NeurIPS 2019).

    Args:
        sprites: Sprites as uint8.
        path: Top-left corner (row, column) of every sprite in every frame.
        size: Height and width of the frames.

    Shapes:
        - **sprites:** ``[D, h, w]``.
        - **path:** ``[D, T, 2]``.
        - **output:** ``[T, size, size]``, uint8.

    Raises:
        ValueError: If the shapes or the type do not fit or a sprite would leave the canvas.

    Source: the SyncMNIST generator of Nicolicioiu, Duta, Leordeanu, "Recurrent Space-time Graph Neural Networks",
    NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> sprites = np.full((2, 28, 28), 255, dtype=np.uint8)
        >>> render_clip(sprites, np.zeros((2, 10, 2), dtype=int)).shape
        (10, 64, 64)
    """
    if sprites.ndim != 3 or path.ndim != 3 or path.shape[0] != len(sprites) or path.shape[2] != 2:
        raise ValueError(
            f"expected sprites [D, h, w] and path [D, T, 2], got {list(sprites.shape)} and {list(path.shape)}"
        )
    _check_bytes("sprites", sprites, 3, "[D, h, w]")
    room = np.array([CANVAS - sprites.shape[1], CANVAS - sprites.shape[2]])
    path = path.astype(np.int64)
    if path.size and (path.min() < 0 or (path.max(axis=(0, 1)) > room).any()):
        raise ValueError(
            f"expected top-left corners within 0 to {room.tolist()}, "
            f"got {path.min(axis=(0, 1)).tolist()} to {path.max(axis=(0, 1)).tolist()}"
        )
    visible = (sprites >= OPAQUE_FROM).any(axis=(1, 2))
    if not visible.any() or not path.size:
        return np.zeros((path.shape[1], size, size), dtype=np.uint8)
    render = ClipRenderer(opaque_pixels(sprites[visible]), size, torch.device("cpu"))
    chosen = torch.arange(int(visible.sum()), device="cpu")
    return render(chosen[None], torch.from_numpy(path[visible])[None])[0].numpy()
