"""The region graph on its own, in space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch_geometric.data import Data

from rstg_pyg.visualize.palette import COLOURS
from rstg_pyg.visualize.regions import check_drawable, node_levels, scale_colours, scales_of
from rstg_pyg.visualize.sheet import Sheet, title_height, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
