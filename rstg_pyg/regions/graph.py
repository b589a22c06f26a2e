"""The graph of multi-scale regions of a frame."""

from collections.abc import Sequence

import torch
from torch_geometric.data import Data

from rstg_pyg.regions.cells import Scale, cell_adjacency, cell_boxes, grid_cells
from rstg_pyg.regions.heatmap import cell_heatmaps


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
        ValueError: If a scale is not a positive int or a pair of them, or ``heatmap_size`` is not a positive int.

    Example:
        >>> from rstg_pyg import region_graph
        >>> region_graph((3, 2, 1))
        Data(edge_index=[2, 90], pos=[14, 2], box=[14, 4], scale=[14, 2], heatmap=[14, 36])
    """
    if not isinstance(heatmap_size, int) or isinstance(heatmap_size, bool) or heatmap_size < 1:
        raise ValueError(f"expected 'heatmap_size' to be a positive int, got {heatmap_size!r}")
    with torch.device("cpu"):  # The meta device has no numbers to find edges by.
        cells = grid_cells(scales)
        box = cell_boxes(cells)
        destination, source = cell_adjacency(cells).nonzero(as_tuple=True)
        graph = Data(
            edge_index=torch.stack([source, destination]),
            pos=(box[:, :2] + box[:, 2:]) / 2,
            box=box,
            scale=cells[:, [1, 3]],
            heatmap=cell_heatmaps(cells, heatmap_size),
        )
    return graph.to(torch.get_default_device())
