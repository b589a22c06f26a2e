"""The graph of multi-scale regions of a frame."""

from collections.abc import Sequence

import torch
from torch_geometric.data import Data

from rstg_pyg.arguments import check_positive
from rstg_pyg.regions.cells import Scale, cell_boxes, cell_edges, grid_cells
from rstg_pyg.regions.heatmap import cell_heatmaps

MAX_HEATMAP = 2**26
"""256 MiB of ``heatmap``, and twice as much while it is drawn."""


def region_graph(scales: Sequence[Scale] = (3, 2, 1), heatmap_size: int = 6) -> Data:
    r"""Build the graph of regions of "Recurrent Space-time Graph Neural Networks" (Nicolicioiu, Duta, Leordeanu,
    NeurIPS 2019, `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_).

    The frame is cut into a regular grid per scale and every cell is a node, scales in their given order, each row by
    row. Two nodes are joined in both directions when their cells overlap or share a border of positive length, within
    a scale and across scales alike, decided in exact arithmetic; cells that touch in a corner alone are not joined, and
    no node is joined to itself. Scales (3, 2, 1) give 14 nodes and 90 directed edges.

    Args:
        scales: Grids, each an int s (s x s cells) or a pair (rows, columns). Any number, any order.
        heatmap_size: Side D of the position heatmaps: unnormalised Gaussians of standard deviation 2 heatmap cells,
            centred in the node's cell and zero outside it.

    Shapes:
        The nodes and edges of the returned :class:`~torch_geometric.data.Data`, floats of the default type:

        - **edge_index:** ``[2, E]``, sorted by destination, then source.
        - **pos:** ``[N, 2]``, cell centres (y, x), normalised to 0..1.
        - **box:** ``[N, 4]``, cell borders (y0, x0, y1, x1), normalised.
        - **scale:** ``[N, 2]`` int64, (rows, columns) of the grid that the node belongs to.
        - **heatmap:** ``[N, D * D]``, the position input of :class:`~rstg_pyg.RSTGConv`.

    Raises:
        ValueError: If a scale is not a positive int or a pair of them, ``heatmap_size`` is not a positive int, or the
            graph would have more than 2^14 nodes, 2^24 pairs of regions that touch, or 2^26 values in its heatmaps.

    Example:
        >>> from rstg_pyg import region_graph
        >>> region_graph((3, 2, 1))
        Data(edge_index=[2, 90], pos=[14, 2], box=[14, 4], scale=[14, 2], heatmap=[14, 36])
    """
    check_positive(heatmap_size=heatmap_size)
    with torch.device("cpu"):  # The meta device has no numbers to find edges by.
        cells = grid_cells(scales)
        if len(cells) * heatmap_size**2 > MAX_HEATMAP:
            raise ValueError(
                f"expected heatmaps of at most {MAX_HEATMAP} values in all, got {len(cells)} nodes and heatmap_size="
                f"{heatmap_size}"
            )
        box = cell_boxes(cells)
        graph = Data(
            edge_index=cell_edges(scales),
            pos=(box[:, :2] + box[:, 2:]) / 2,
            box=box,
            scale=cells[:, [1, 3]],
            heatmap=cell_heatmaps(cells, heatmap_size),
        )
    return graph.to(torch.get_default_device())
