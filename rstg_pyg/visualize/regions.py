"""The region graph: on its own in space, over a frame, and its attention as arrows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.arguments import whole_number
from rstg_pyg.visualize.sheet import COLOURS, Sheet, title_height, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGEST_GRAPH = 1024

STRONGEST = 8
"""Number of edges drawn in a frame."""

THINNEST, THICKEST = 0.7, 3.0
"""Points: bounds of an arrow's width."""


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

    Nodes of different scales can have the same centre: each scale is shifted by a few pixels.

    Args:
        ax: Where to draw; x to the right, y downwards, in pixels.
        graph: A region graph, see :func:`~rstg_pyg.region_graph`.
        size: Height and width of the frame.
        alpha: Opacity of the lines.

    Returns:
        Where each node was drawn, (x, y).

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
        corner = (x0 * width - 0.5 + inset, y0 * height - 0.5 + inset)
        sides = (x1 - x0) * width - 2 * inset, (y1 - y0) * height - 2 * inset
        style = {"fill": False, "edgecolor": colours[node], "linewidth": 0.6, "alpha": alpha}
        ax.add_patch(Rectangle(corner, *sides, **style))
        shift = (levels[node] - max(levels) / 2) * 0.05
        centre[node] += shift * torch.tensor([width, height])
    ax.scatter(*centre.t().numpy(), s=10, c=colours, zorder=3, linewidths=0.5, edgecolors="black")
    return centre


def strongest_edges(graph: Data, alpha: Tensor, count: int) -> list[tuple[int, int, float]]:
    """Return sender, receiver and weight of the edges with the greatest attention, the greatest first; the weight is a
    multiple of the uniform one."""
    count = whole_number("strongest", count, 0)
    if alpha.shape != (graph.num_edges,):
        raise ValueError(f"expected attention weights of shape [{graph.num_edges}], got {list(alpha.shape)}")
    destination = graph.edge_index[1].cpu()
    relative = alpha.detach().cpu() * destination.bincount(minlength=graph.num_nodes)[destination]
    greatest = relative.topk(min(count, relative.numel()))
    ends = graph.edge_index.cpu()[:, greatest.indices]
    return list(zip(*ends.tolist(), greatest.values.tolist(), strict=True))


def draw_attention(ax: Axes, graph: Data, alpha: Tensor, places: Tensor, strongest: int = STRONGEST) -> None:
    """Draw the edges with the greatest attention weights as arrows from source to destination.

    What counts is the weight times the number of neighbours of the destination, so that nodes with few neighbours do
    not fill the picture. The width of an arrow is a quarter of a point times that number, within bounds.

    Args:
        ax: Where to draw.
        graph: The region graph.
        alpha: Attention weights in the order of ``graph.edge_index``.
        places: Where the nodes are, from :func:`draw_regions`.
        strongest: Number of edges.

    Shapes:
        - **alpha:** ``[E]``. **places:** ``[N, 2]``.

    Raises:
        ValueError: If there is not one weight per edge.

    Source: the attention of "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> from rstg_pyg import region_graph
        >>> from rstg_pyg.visualize import draw_attention, draw_regions
        >>> graph, ax = region_graph((2, 1)), Figure().add_subplot()
        >>> draw_attention(ax, graph, torch.rand(16), draw_regions(ax, graph, (32, 32)))
    """
    from matplotlib.patheffects import withStroke

    colours = scale_colours(graph)
    for j, i, weight in strongest_edges(graph, alpha, strongest):
        width = min(max(THINNEST, 0.25 * weight), THICKEST)
        ax.annotate(
            "",
            xy=places[i].tolist(),
            xytext=places[j].tolist(),
            arrowprops={
                "arrowstyle": "-|>,head_width=0.13,head_length=0.26",
                "color": colours[j],
                "linewidth": width,
                "shrinkA": 1.5,
                "shrinkB": 2.5,
                "connectionstyle": "arc3,rad=0.14",
                "path_effects": [withStroke(linewidth=width + 0.9, foreground="black", alpha=0.45)],
            },
        )


def draw_graph(graph: Data, title: str | None = None) -> Figure:
    """Draw a region graph in space: a layer per scale, a node per region, thin edges within and across layers.

    Args:
        graph: A region graph, see :func:`~rstg_pyg.region_graph`.
        title: A line above it.

    Returns:
        A matplotlib figure; save it with ``figure.savefig(path)``.

    Shapes:
        - **graph.box:** ``[N, 4]``. **graph.scale:** ``[N, 2]``. **graph.edge_index:** ``[2, E]``.

    Raises:
        ValueError: If the graph has no regions, or more than 1024.

    Source: the graph of "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> from rstg_pyg import region_graph
        >>> from rstg_pyg.visualize import draw_graph
        >>> figure = draw_graph(region_graph((3, 2, 1)))
    """
    from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection

    check_drawable(graph)
    colours, scales = scale_colours(graph), scales_of(graph)
    level = torch.tensor(node_levels(graph), dtype=torch.float)
    place = torch.stack([graph.pos[:, 1], 1 - graph.pos[:, 0], level], dim=1)
    title = wrapped(title, 4.0)
    top = title_height(title)
    sheet = Sheet(4.4, 3.9 + top)
    ax = sheet.axes(-0.3, top - 0.33, 4.7, 4.5, projection="3d")
    for (y0, x0, y1, x1), z, colour in zip(graph.box.tolist(), level.tolist(), colours, strict=True):
        corners = [(x0, 1 - y0, z), (x1, 1 - y0, z), (x1, 1 - y1, z), (x0, 1 - y1, z)]
        ax.add_collection3d(Poly3DCollection([corners], facecolor=colour, alpha=0.13, edgecolor=colour, linewidth=1))
    once = graph.edge_index[:, graph.edge_index[0] < graph.edge_index[1]]
    across = level[once[0]] != level[once[1]]
    for kind, colour, width in ((across, "#9aa0a6", 0.5), (~across, "#3c4043", 1.1)):
        if kind.any():
            ax.add_collection3d(Line3DCollection(place[once[:, kind].t()].numpy(), colors=colour, linewidths=width))
    ax.scatter(*place.t().numpy(), c=colours, s=42, depthshade=False, edgecolor="white", linewidth=0.7)
    for number, (rows, columns) in enumerate(scales):
        colour = COLOURS[number % len(COLOURS)]
        ax.text(1.08, 0.5, number, f"{rows} x {columns}", color=colour, fontsize=11, weight="bold", va="center")
    ax.set(xlim=(0, 1), ylim=(0, 1), zlim=(-0.1, max(1, len(scales) - 1)))
    ax.view_init(elev=17, azim=-64)
    ax.set_box_aspect((1, 1, 1.05), zoom=0.98)
    ax.set_axis_off()
    sheet.title(2.2, title, ha="center")
    return sheet.figure
