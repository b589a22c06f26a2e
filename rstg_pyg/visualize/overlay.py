"""Frames of a video with the graph over them and the classes below or beside them, drawn by Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.visualize.regions import STRONGEST, node_levels, scale_colours, scales_of, strongest_edges
from rstg_pyg.visualize.sheet import COLOURS, FAINT, INK, MUTED

Box = tuple[float, float, float, float]
"""Top, left, bottom, right."""

SMALLEST, LARGEST = 360, 720
"""Bounds of the shorter side of the frames as they are shown, so that what is drawn can be read and is drawn fast."""

LONGEST = 4096
"""Bound of the longer side, which encoders take and which a frame of 1 x 10,000 pixels would exceed by far."""

_SMOOTH = 2
"""Pillow's shapes have hard edges: layers are drawn so many times as large."""

_BEND, _POINTS = 0.14, 16
"""Of an arrow: how far it leaves the straight line, and the points of a side."""

_BEST = "#bfe3f7"
_MARGIN, _ROW, _GAP, _TEXT, _NOTE = 12, 27, 4, 15, 12
"""Pixels of a picture of 360 lines: around the list, of a row, between rows, of letters."""


class VideoOverlay:
    """Draws what a network says and where it looks onto the frames of a video, one at a time.

    The list of classes stands below frames that are wider than high and beside others. Pillow draws it: it is there
    wherever videos are read, and takes about 10 ms of a core for a frame of 360 lines.

    Args:
        size: Height and width of the frames.
        graph: The region graph, or None for networks without one.
        box: What the network sees of a frame: top, left, bottom, right, in pixels (default: all of it).
        rows: Number of classes in the list.

    Shapes:
        - **frame:** ``[H, W, 3]`` uint8. **attention:** ``[E]``. **output:** ``[H', W', 3]`` uint8, H' and W' even and
          the same for all frames.

    Raises:
        ValueError: If a frame has another size, or there is not one weight per edge.

    Source: the regions of "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from rstg_pyg import region_graph
        >>> from rstg_pyg.visualize.overlay import VideoOverlay
        >>> overlay = VideoOverlay((240, 320), region_graph((2, 1)), box=(0, 40, 240, 280))
        >>> overlay.draw(np.zeros((240, 320, 3), np.uint8), [("Moving something up", 0.9)], torch.rand(16)).shape
        (560, 480, 3)
    """

    def __init__(self, size: tuple[int, int], graph: Data | None = None, box: Box | None = None, rows: int = 5) -> None:
        self._size = size
        short = min(size)
        scale = min(min(max(short, SMALLEST), LARGEST) / short, LONGEST / max(size))
        height, width = (2 * max(1, round(length * scale / 2)) for length in size)
        unit = max(min(height, width) / SMALLEST, 1)
        box = (0, 0, *size) if box is None else box
        shown = tuple(place * scale for place in box)
        self._shown = (width, height)
        self._graph = None if graph is None else GraphLayer(graph, (height, width), shown, unit)
        self._beside = height > width
        scales = [] if graph is None else scales_of(graph)
        self._strip = ClassStrip(2 * round(200 * unit) if self._beside else width, unit, rows, scales)
        self._strip_height = max(height, _even(self._strip.height)) if self._beside else _even(self._strip.height)

    def draw(
        self, frame: np.ndarray, classes: Sequence[tuple[str, float]], attention: Tensor | None = None
    ) -> np.ndarray:
        """The picture of a frame, the likeliest classes with their probabilities, and the attention at it."""
        from PIL import Image

        if frame.shape != (*self._size, 3):
            raise ValueError(f"expected a frame of shape [{self._size[0]}, {self._size[1]}, 3], got {[*frame.shape]}")
        picture = Image.fromarray(frame)
        if picture.size != self._shown:
            picture = picture.resize(self._shown, Image.Resampling.BICUBIC)
        if self._graph is not None:
            layer = self._graph.draw(attention)
            picture.paste(layer, (0, 0), layer)
        width, height = self._shown
        strip = self._strip.draw(classes, self._strip_height)
        size = (width + strip.width, strip.height) if self._beside else (width, height + strip.height)
        canvas = Image.new("RGB", size, "white")
        canvas.paste(picture, (0, 0))
        canvas.paste(strip, (width, 0) if self._beside else (0, height))
        return np.asarray(canvas)


def _even(length: int) -> int:
    return length + length % 2


class GraphLayer:
    """Draws the cells of a region graph, and the edges of the greatest attention weights, within a box of a picture.

    Cells have faint borders, one colour per scale. An edge runs from the sender, in the colour of its scale, and grows
    wider towards the receiver. Width and opacity follow what counts in :func:`~rstg_pyg.visualize.draw_attention`.

    Args:
        graph: A region graph.
        size: Height and width of the picture.
        box: Where the graph's frame lies in it: top, left, bottom, right. What is outside is darkened.
        unit: Pixels of a picture per pixel of one of 360 lines.
        strongest: Number of edges.

    Shapes:
        - **attention:** ``[E]`` in the order of ``graph.edge_index``.
    """

    def __init__(
        self, graph: Data, size: tuple[int, int], box: Box, unit: float = 1.0, strongest: int = STRONGEST
    ) -> None:
        self._graph = graph
        self._size = size
        self._unit = unit * _SMOOTH
        self._strongest = strongest
        self._colours = [tuple(bytes.fromhex(colour[1:])) for colour in scale_colours(graph)]
        self._levels = node_levels(graph)
        top, left, bottom, right = (length * _SMOOTH for length in box)
        # Nodes of different scales can have the same centre: they are moved apart.
        centre = graph.pos.cpu() + ((torch.tensor(self._levels) - max(self._levels) / 2) * 0.05)[:, None]
        self._places = torch.stack([left + centre[:, 1] * (right - left), top + centre[:, 0] * (bottom - top)], 1)
        self._ground = self._draw_ground((top, left, bottom, right))
        self._drawn: tuple[Tensor | None, Any] = (None, self._finish(self._ground.copy()))

    def draw(self, attention: Tensor | None) -> Any:
        """The layer, an RGBA image of Pillow. It is drawn anew only where the attention is another tensor."""
        if attention is not None and attention is not self._drawn[0]:
            layer = self._ground.copy()
            self._draw_edges(layer, attention)
            self._drawn = attention, self._finish(layer)
        return self._drawn[1]

    def _draw_ground(self, box: Box) -> Any:
        from PIL import Image, ImageDraw

        height, width = (length * _SMOOTH for length in self._size)
        top, left, bottom, right = box
        layer = Image.new("RGBA", (width, height), (0, 0, 0, 90))
        draw = ImageDraw.Draw(layer)
        draw.rectangle((round(left), round(top), round(right) - 1, round(bottom) - 1), fill=(0, 0, 0, 0))
        line = max(2, round(0.9 * self._unit))
        for node, (y0, x0, y1, x1) in enumerate(self._graph.box.tolist()):
            inset = (1 + 2.2 * self._levels[node]) * self._unit
            corners = (
                left + x0 * (right - left) + inset,
                top + y0 * (bottom - top) + inset,
                left + x1 * (right - left) - inset,
                top + y1 * (bottom - top) - inset,
            )
            if corners[2] - corners[0] > 2 * line and corners[3] - corners[1] > 2 * line:
                draw.rectangle(corners, outline=(*self._colours[node], 84), width=line)
        return layer

    def _finish(self, layer: Any) -> Any:
        """Draw the nodes on top, and make the layer as small as the picture."""
        from PIL import ImageDraw

        draw = ImageDraw.Draw(layer)
        for node, (x, y) in enumerate(self._places.tolist()):
            for radius, colour in ((4.1, (0, 0, 0, 150)), (3.1, (*self._colours[node], 255))):
                radius *= self._unit
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        return layer.reduce(_SMOOTH)

    def _draw_edges(self, layer: Any, attention: Tensor) -> None:
        from PIL import ImageDraw

        draw = ImageDraw.Draw(layer)
        # The strongest comes last, on top.
        for j, i, weight in reversed(strongest_edges(self._graph, attention, self._strongest)):
            width = min(max(1.6 * weight, 1.8), 7.0) * self._unit
            opacity = round(255 * min(0.45 + 0.2 * weight, 0.95))
            shape = self._arrow(self._places[j], self._places[i], width)
            draw.line([*shape, shape[0]], fill=(0, 0, 0, opacity // 2), width=max(2, round(1.6 * self._unit)))
            draw.polygon(shape, fill=(*self._colours[j], opacity))

    def _arrow(self, start: Tensor, end: Tensor, width: float) -> list[tuple[float, float]]:
        """The outline of a bent arrow that grows wider, with its head at the rim of the node at its end."""
        along = end - start
        length = along.norm().clamp(min=1e-6)
        middle = (start + end) / 2 + torch.stack([along[1], -along[0]]) * _BEND
        head = max(2.2 * width, 7 * self._unit)
        last = 1 - min(float((4.5 * self._unit + head) / length), 0.8)
        t = torch.linspace(min(float(4 * self._unit / length), 0.2), last, _POINTS)[:, None]
        points = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
        slope = 2 * (1 - t) * (middle - start) + 2 * t * (end - middle)
        slope = slope / slope.norm(dim=1, keepdim=True).clamp(min=1e-6)
        across = torch.stack([-slope[:, 1], slope[:, 0]], 1)
        half = torch.linspace(0.25, 0.5, _POINTS)[:, None] * width
        tip = end - (end - points[-1]) / (end - points[-1]).norm().clamp(min=1e-6) * 4.5 * self._unit
        wings = [points[-1] + across[-1] * head / 2, tip, points[-1] - across[-1] * head / 2]
        outline = [*(points + across * half), *wings, *(points - across * half).flip(0)]
        return [(float(x), float(y)) for x, y in outline]


class ClassStrip:
    """Draws the likeliest classes as rows: a bar as long as the probability, the name, the number.

    Args:
        width: Width of the strip.
        unit: Pixels of the picture per pixel of one of 360 lines.
        rows: Number of classes.
        scales: The grids of the graph, for the legend; empty for networks without one.
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
