"""Attention weights as arrows between regions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.visualize.regions import scale_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STRONGEST = 8
"""Number of edges drawn in a frame."""

THINNEST, THICKEST = 0.7, 3.0
"""Points: bounds of an arrow's width."""


def draw_attention(ax: Axes, graph: Data, alpha: Tensor, places: Tensor, strongest: int = STRONGEST) -> None:
    r"""Draw the edges with the greatest attention weights as arrows from source to destination.

    What counts is :math:`\alpha_{ji} |\mathcal{N}(i)|`, the weight as a multiple of the uniform one, so that nodes
    with few neighbours do not fill the picture; the width of an arrow is a quarter of a point times that number, within
    bounds.

    Args:
        ax: Where to draw.
        graph: The region graph.
        alpha: Attention weights ``[E]`` in the order of ``graph.edge_index``.
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

    if alpha.shape != (graph.num_edges,):
        raise ValueError(f"expected attention weights of shape [{graph.num_edges}], got {list(alpha.shape)}")
    source, destination = graph.edge_index
    degree = destination.bincount(minlength=graph.num_nodes)
    relative = alpha * degree[destination]
    colours = scale_colours(graph)
    for edge in relative.topk(min(strongest, relative.numel())).indices.tolist():
        j, i = int(source[edge]), int(destination[edge])
        width = min(max(THINNEST, 0.25 * float(relative[edge])), THICKEST)
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
