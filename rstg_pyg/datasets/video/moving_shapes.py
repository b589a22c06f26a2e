"""Drawn clips of shapes, of classes that only motion tells apart."""

from __future__ import annotations

import colorsys
import math
from typing import NamedTuple

import numpy as np

from rstg_pyg.arguments import check_positive
from rstg_pyg.datasets.random_numbers import uniforms

TEMPLATES = (
    "Pushing [something] from left to right",
    "Pushing [something] from right to left",
    "Moving [something] down",
    "Moving [something] up",
    "Moving [something] and [something] closer to each other",
    "Moving [something] and [something] away from each other",
)
"""The classes, in pairs: a clip of one, played backwards, is a clip of the other."""

# Second words of the generator's key: what is seen, and the noise of single pixels.
_SCENE, _GRAIN = 0x7363656E65, 0x677261696E
_HUES = ("red", "orange", "yellow", "green", "cyan", "blue", "violet", "pink")
_SHAPES = ("disc", "square", "diamond", "ring")
_WAVES = 6


class _Draw:
    """The random numbers of a clip, one after the other."""

    def __init__(self, seed: int, index: int) -> None:
        self._numbers = iter(uniforms(seed, _SCENE, index, 200).tolist())

    def __call__(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * next(self._numbers)

    def several(self, count: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        return np.array([self(low, high) for _ in range(count)])


class MadeClip(NamedTuple):
    r"""A drawn clip.

    Attributes:
        frames: The frames, ``[T, H, W, 3]`` uint8.
        placeholders: The things that fill the brackets of the template, as "red disc".
    """

    frames: np.ndarray
    placeholders: list[str]


def draw_clip(
    template: str, seed: int, index: int, num_frames: int, height: int, width: int, noise: float = 1.0
) -> MadeClip:
    r"""Draw a clip: two things, of which one or both move, before a background that moves by itself.

    Which things, their colours, textures, sizes and places, when and how far they move, how they tremble, and where
    the background drifts is random, and distributed alike for the two classes of a pair. A clip of the second class is
    one of the first, played backwards: neither a single frame nor all of them without their order tell the two apart.

    Args:
        template: One of :data:`TEMPLATES`.
        seed: The seed.
        index: Number of the clip; the clip is a function of the arguments alone.
        num_frames: Number T of frames.
        height: Height H.
        width: Width W.
        noise: How strong background, trembling and grain are; 0 is a still, even background.

    Raises:
        ValueError: If there is no such template, or an argument is out of range.

    Example:
        >>> up, down = (draw_clip(TEMPLATES[i], 0, 0, 8, 32, 48).frames for i in (3, 2))
        >>> bool((up == down[::-1]).all())
        True
    """
    if template not in TEMPLATES:
        raise ValueError(f"expected a template among {', '.join(map(repr, TEMPLATES))}, got {template!r}")
    check_positive(num_frames=num_frames, height=height, width=width)
    if not 0 <= noise < math.inf:
        raise ValueError(f"expected 'noise' to be a finite number of at least 0, got {noise}")
    kind, backwards = divmod(TEMPLATES.index(template), 2)
    draw = _Draw(seed, index)
    time = np.linspace(0, 1, num_frames)
    aspect = width / height
    paths = _paths(draw, kind, time, aspect, noise)
    video = _background(draw, time, height, width, noise)
    names = []
    y, x = (np.arange(height)[:, None] + 0.5) / height, (np.arange(width)[None] + 0.5) / height
    # The first thing lies before the second.
    for path in reversed(paths):
        names.insert(0, _paste(draw, video, path, y, x))
    grain = uniforms(seed, _GRAIN, index, num_frames * height * width).reshape(num_frames, height, width, 1)
    frames = np.clip(video + noise * 0.06 * (grain - 0.5), 0, 1)
    frames = np.rint(frames * 255).astype(np.uint8)
    if backwards:
        frames = frames[::-1]
    return MadeClip(np.ascontiguousarray(frames), names[: template.count("[something]")])


def _progress(draw: _Draw, time: np.ndarray) -> np.ndarray:
    """From 0 to 1, smoothly, with pauses before and after."""
    start, end = draw(0, 0.2), draw(0.8, 1)
    part = np.clip((time - start) / (end - start), 0, 1)
    return part * part * (3 - 2 * part)


def _paths(draw: _Draw, kind: int, time: np.ndarray, aspect: float, noise: float) -> list[np.ndarray]:
    """Centres (y, x) of both things over time, in heights of the frame. What moves stays within the central square."""
    moved = _progress(draw, time)
    corner = np.array([0.0, (aspect - 1) / 2])
    travel, slope = draw(0.35, 0.55), draw(-0.15, 0.15)
    if kind == 2:
        # Both move, along a line through their middle.
        angle = draw(-0.9, 0.9)
        middle = corner + draw.several(2, 0.45, 0.55)
        along = np.array([np.sin(angle), np.cos(angle)]) * (1 if draw() < 0.5 else -1)
        apart = (0.13 + travel / 2 * (1 - moved))[:, None] * along
        paths = [middle + apart, middle - apart]
    else:
        axis = 1 - kind
        start = (1 - travel) * draw(0.3, 0.7)
        path = np.empty((len(time), 2))
        path[:, axis] = start + travel * moved
        path[:, 1 - axis] = draw(0.3, 0.7) + slope * (moved - 0.5)
        still = draw.several(2, 0.1, 0.9) * (1, aspect)
        paths = [corner + path, np.broadcast_to(still, path.shape)]
    return [path + noise * 0.012 * _tremble(draw, time) for path in paths]


def _tremble(draw: _Draw, time: np.ndarray) -> np.ndarray:
    """A small movement to and fro, (T, 2)."""
    rate, phase = draw.several(2, 2, 5), draw.several(2)
    return np.sin(2 * np.pi * (time[:, None] * rate + phase))


def _background(draw: _Draw, time: np.ndarray, height: int, width: int, noise: float) -> np.ndarray:
    """A sum of waves that drifts in a random direction, (T, H, W, 3)."""
    colour = draw.several(3, 0.25, 0.6)
    waves = draw.several(2 * _WAVES, -2.5, 2.5).reshape(_WAVES, 2)
    phases = draw.several(_WAVES)
    strength = noise * 0.07 * draw.several(3 * _WAVES, -1, 1).reshape(_WAVES, 3)
    drift = noise * draw.several(2, -0.4, 0.4)
    y, x = np.arange(height) / height, np.arange(width) / height
    rows = np.exp(2j * np.pi * np.outer(y, waves[:, 0]))
    columns = np.exp(2j * np.pi * np.outer(waves[:, 1], x))
    shift = np.exp(2j * np.pi * (phases - time[:, None] * (waves @ drift)))
    video = np.empty((len(time), height, width, 3))
    for channel in range(3):
        weights = shift * strength[:, channel]
        video[..., channel] = ((rows * weights[:, None]) @ columns).real + colour[channel]
    return video


def _paste(draw: _Draw, video: np.ndarray, path: np.ndarray, y: np.ndarray, x: np.ndarray) -> str:
    """Draw one thing into all frames and return what it is."""
    hue, shape = draw(), _SHAPES[int(draw() * len(_SHAPES))]
    colour = np.array(colorsys.hsv_to_rgb(hue, draw(0.5, 1), draw(0.6, 1)))
    radius = draw(0.09, 0.14)
    stripes, phase, turn = draw(4, 9), draw(), draw(0, 2 * np.pi)
    edge = y[1, 0] - y[0, 0]
    for frame, (top, left) in zip(video, path, strict=True):
        down, right = y - top, x - left
        far = _distance(shape, down, right, radius)
        cover = np.clip((radius - far) / edge + 0.5, 0, 1)[..., None]
        texture = np.sin(2 * np.pi * (stripes * (down * np.sin(turn) + right * np.cos(turn)) + phase))
        frame += cover * (colour * (0.85 + 0.15 * texture[..., None]) - frame)
    return f"{_HUES[int(hue * len(_HUES))]} {shape}"


def _distance(shape: str, down: np.ndarray, right: np.ndarray, radius: float) -> np.ndarray:
    """Below the radius within a shape, above it outside."""
    if shape == "square":
        return 1.1 * np.maximum(abs(down), abs(right))
    if shape == "diamond":
        return 0.85 * (abs(down) + abs(right))
    far = np.hypot(down, right)
    return far if shape == "disc" else 0.6 * radius + 1.5 * abs(far - 0.75 * radius)
