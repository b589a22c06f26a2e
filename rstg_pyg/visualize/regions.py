"""The cells of a region graph, drawn over a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.visualize.palette import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


LARGEST_GRAPH = 1024


def scales_of(graph: Data) -> list[tuple[int, int]]:
    """Return the grids (rows, columns) of a region graph, in their order."""
    if "box" not in graph or "scale" not in graph:
        raise ValueError(f"expected a region graph with 'box' and 'scale', got a Data with {graph.keys()}")
    return list(dict.fromkeys(map(tuple, graph.scale.tolist())))


def check_drawable(graph: Data) -> None:
    """Raise where a graph has more regions than can be told apart; each takes several kilobytes a frame."""
    if graph.num_nodes > LARGEST_GRAPH:
        raise ValueError(f"expected a graph of at most {LARGEST_GRAPH} regions to draw, got {graph.num_nodes}")


def node_levels(graph: Data) -> list[int]:
    """Return for every node the place of its scale among :func:`scales_of`."""
    scales = scales_of(graph)
    return [scales.index(tuple(scale)) for scale in graph.scale.tolist()]


def scale_colours(graph: Data) -> list[str]:
    """Return a colour per node, the same for all nodes of a scale."""
    return [COLOURS[level % len(COLOURS)] for level in node_levels(graph)]


def draw_regions(ax: Axes, graph: Data, size: tuple[int, int], alpha: float = 0.32) -> Tensor:
    """Draw the cells of a region graph over a frame, one colour per scale.

    Nodes of different scales can have the same centre; each scale is shifted by a few pixels so that they stay apart.

    Args:
        ax: Where to draw; x to the right, y downwards, in pixels.
        graph: A region graph, see :func:`~rstg_pyg.region_graph`.
        size: Height and width of the frame.
        alpha: Opacity of the lines.

    Returns:
        Where each node was drawn, ``[N, 2]`` (x, y).

    Shapes:
        - **graph.box:** ``[N, 4]``. **graph.scale:** ``[N, 2]``. **output:** ``[N, 2]``.

    Raises:
        ValueError: If the graph has no regions, or more than 1024.

    Source: the regions of "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from rstg_pyg import region_graph
        >>> from rstg_pyg.visualize import draw_regions
        >>> draw_regions(Figure().add_subplot(), region_graph((2, 1)), (32, 32)).shape
        torch.Size([5, 2])
    """
    from matplotlib.patches import Rectangle

    check_drawable(graph)
    height, width = size
    colours, levels = scale_colours(graph), node_levels(graph)
    boxes, centre = graph.box.cpu(), graph.pos.cpu().flip(1) * torch.tensor([width, height]) - 0.5
    for node, (y0, x0, y1, x1) in enumerate(boxes.tolist()):
        inset = 0.35 * levels[node] * min(width, height) / 32
        ax.add_patch(
            Rectangle(
                (x0 * width - 0.5 + inset, y0 * height - 0.5 + inset),
                (x1 - x0) * width - 2 * inset,
                (y1 - y0) * height - 2 * inset,
                fill=False,
                edgecolor=colours[node],
                linewidth=0.6,
                alpha=alpha,
            )
        )
        shift = (levels[node] - max(levels) / 2) * 0.05
        centre[node] += shift * torch.tensor([width, height])
    ax.scatter(*centre.t().numpy(), s=10, c=colours, zorder=3, linewidths=0.5, edgecolors="black")
    return centre
