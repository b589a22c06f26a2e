"""Regions and attention as layers over the frames of a video."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.visualize.attention import STRONGEST
from rstg_pyg.visualize.regions import node_levels, scale_colours

Box = tuple[float, float, float, float]

_SMOOTH = 2
"""Pillow's shapes have hard edges: layers are drawn so many times as large."""

_BEND = 0.14
_POINTS = 16


class GraphLayer:
    r"""Draws the cells of a region graph, and the edges of the greatest attention weights, within a box of a picture.

    Cells have faint borders, one colour per scale. An edge runs from the sender, in the colour of its scale, and grows
    wider towards the receiver. As in :func:`draw_attention`, what counts is :math:`\alpha_{ji} |\mathcal{N}(i)|`, the
    weight as a multiple of the uniform one; width and opacity follow it.

    Args:
        graph: A region graph.
        size: Height and width of the picture.
        box: Where the graph's frame lies in it: top, left, bottom, right. What is outside is darkened.
        unit: Pixels of a picture per pixel of one of 360 lines.
        strongest: Number of edges.

    Shapes:
        - **attention:** ``[E]`` in the order of ``graph.edge_index``.

    Example:
        >>> import torch
        >>> from rstg_pyg import region_graph
        >>> from rstg_pyg.visualize.overlay_graph import GraphLayer
        >>> GraphLayer(region_graph((2, 1)), (64, 96), (0, 16, 64, 80)).draw(torch.rand(16)).size
        (96, 64)
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
        self._drawn: tuple[Tensor | None, Any] = (None, _smaller(self._with_nodes(self._ground.copy())))

    def draw(self, attention: Tensor | None) -> Any:
        """The layer, an RGBA image of Pillow. It is drawn anew only where the attention is another tensor."""
        if attention is not None and attention is not self._drawn[0]:
            if attention.shape != (self._graph.num_edges,):
                raise ValueError(
                    f"expected attention weights of shape [{self._graph.num_edges}], got {list(attention.shape)}"
                )
            layer = self._ground.copy()
            self._draw_edges(layer, attention)
            self._drawn = attention, _smaller(self._with_nodes(layer))
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

    def _with_nodes(self, layer: Any) -> Any:
        from PIL import ImageDraw

        draw = ImageDraw.Draw(layer)
        for node, (x, y) in enumerate(self._places.tolist()):
            for radius, colour in ((4.1, (0, 0, 0, 150)), (3.1, (*self._colours[node], 255))):
                radius *= self._unit
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        return layer

    def _draw_edges(self, layer: Any, attention: Tensor) -> None:
        from PIL import ImageDraw

        draw = ImageDraw.Draw(layer)
        source, destination = self._graph.edge_index.cpu()
        degree = destination.bincount(minlength=self._graph.num_nodes)
        relative = attention * degree[destination]
        strongest = relative.topk(min(self._strongest, relative.numel()))
        # The strongest comes last, on top.
        for weight, edge in zip(strongest.values.flip(0).tolist(), strongest.indices.flip(0).tolist(), strict=True):
            j, i = int(source[edge]), int(destination[edge])
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


def _smaller(layer: Any) -> Any:
    return layer.reduce(_SMOOTH)
