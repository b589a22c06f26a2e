"""The list of classes beside or below the frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rstg_pyg.visualize.palette import COLOURS, FAINT, INK, MUTED

_BEST = "#bfe3f7"
_MARGIN, _ROW, _GAP, _TEXT, _NOTE = 12, 27, 4, 15, 12


class ClassStrip:
    r"""Draws the likeliest classes as rows: a bar as long as the probability, the name, the number.

    Args:
        width: Width of the strip.
        unit: Pixels of the picture per pixel of one of 360 lines.
        rows: Number of classes.
        scales: The grids of the graph, for the legend; empty for networks without one.

    Example:
        >>> from rstg_pyg.visualize.overlay_strip import ClassStrip
        >>> strip = ClassStrip(300, rows=2, scales=[(2, 2), (1, 1)])
        >>> strip.draw([("Moving something up", 0.75)], strip.height).size
        (300, 106)
    """

    def __init__(self, width: int, unit: float = 1.0, rows: int = 5, scales: Sequence[tuple[int, int]] = ()) -> None:
        from PIL import ImageFont

        self._width = width
        self._unit = unit
        self._rows = rows
        self._scales = scales
        self._font, self._note = (ImageFont.load_default(size * unit) for size in (_TEXT, _NOTE))
        self._shortened: dict[str, str] = {}
        lines = rows * (_ROW + _GAP) - _GAP + (_NOTE + 12 if scales else 0)
        self.height = round((2 * _MARGIN + lines) * unit)

    def draw(self, classes: Sequence[tuple[str, float]], height: int) -> Any:
        """The strip, an RGB image of Pillow: the given classes with their probabilities, best first."""
        from PIL import Image, ImageDraw

        strip = Image.new("RGB", (self._width, height), "white")
        draw = ImageDraw.Draw(strip)
        left, right = _MARGIN * self._unit, self._width - _MARGIN * self._unit
        if not classes:
            middle = (_MARGIN + _ROW / 2) * self._unit
            draw.text((left, middle), "waiting for more frames", MUTED, self._font, anchor="lm")
        for number, (name, probability) in enumerate(classes[: self._rows]):
            top = (_MARGIN + number * (_ROW + _GAP)) * self._unit
            bottom, radius = top + _ROW * self._unit, 4 * self._unit
            draw.rounded_rectangle((left, top, right, bottom), radius, fill="#f6f7f8")
            end = left + max(2 * radius, probability * (right - left))
            draw.rounded_rectangle((left, top, end, bottom), radius, fill=FAINT if number else _BEST)
            colour, middle = MUTED if number else INK, (top + bottom) / 2
            inner = 8 * self._unit
            draw.text((right - inner, middle), f"{100 * probability:.0f} %", colour, self._font, anchor="rm")
            draw.text((left + inner, middle), self._fitting(name), colour, self._font, anchor="lm")
        if self._scales:
            self._legend(draw, left, height - (_MARGIN + _NOTE / 2) * self._unit)
        return strip

    def _fitting(self, name: str) -> str:
        """The name, shortened to the room that it has."""
        if name not in self._shortened:
            room = self._width - 2 * (_MARGIN + 8) * self._unit - self._font.getlength("100 %") - 10 * self._unit
            shown = " ".join(name.split())
            while shown and self._font.getlength(shown) > room:
                shown = shown.removesuffix("...")[:-1].rstrip() + "..." if len(shown) > 4 else ""
            self._shortened[name] = shown
        return self._shortened[name]

    def _legend(self, draw: Any, x: float, y: float) -> None:
        radius = 3.5 * self._unit
        for number, (rows, columns) in enumerate(self._scales):
            colour = COLOURS[number % len(COLOURS)]
            draw.ellipse((x, y - radius, x + 2 * radius, y + radius), fill=colour, outline=MUTED)
            x += 2 * radius + 4 * self._unit
            x = self._write(draw, x, y, f"{rows} x {columns}")
        self._write(draw, x, y, "regions;  arrows show attention")

    def _write(self, draw: Any, x: float, y: float, text: str) -> float:
        if x + self._note.getlength(text) <= self._width:
            draw.text((x, y), text, MUTED, self._note, anchor="lm")
        return x + self._note.getlength(text) + 10 * self._unit
