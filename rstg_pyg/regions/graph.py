"""The graph of multi-scale regions: of a frame, on a clip's features, unrolled over time."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from rstg_pyg.arguments import check_edges, check_positive, describe, num_dims
from rstg_pyg.regions.cells import Scale, cell_boxes, cell_edges, grid_cells
from rstg_pyg.regions.pooling import RegionPool, pixel_overlap

MAX_HEATMAP = 2**26
"""256 MiB of ``heatmap``, and twice as much while it is drawn."""

MAX_EDGES = 2**26
"""1 GiB of ``edge_index``."""

STANDARD_DEVIATION = 2.0
"""Of the Gaussian of a heatmap, in cells of the heatmap's own grid: the authors' value at every scale."""


def region_graph(scales: Sequence[Scale] = (3, 2, 1), heatmap_size: int = 6) -> Data:
    r"""Build the graph whose nodes are the regions of a frame at several scales, as in "Recurrent Space-time Graph
    Neural Networks" (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019, `arXiv:1904.05582
    <https://arxiv.org/abs/1904.05582>`_).

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
            heatmap=_heatmaps(cells, heatmap_size),
        )
    return graph.to(torch.get_default_device())


def _heatmaps(cells: Tensor, size: int) -> Tensor:
    r"""Draw an unnormalised Gaussian in each region, on a grid of D x D places over the frame.

    .. math::
        p_n[u, v] = s_n[u, v] \cdot \exp\left(-\frac{(u + \frac12 - c_y)^2 + (v + \frac12 - c_x)^2}{2 \cdot 2^2}\right)

    with :math:`(c_y, c_x)` the centre of region n in places and :math:`s_n[u, v]` the share of place (u, v) that lies
    in the region: 0 or 1 where D divides by the scale, a fraction where a region's border cuts a place.

    Shapes:
        - **output:** ``[N, D * D]`` of the default type, row by row.
    """
    row, rows, column, columns = cells.unbind(1)
    along_y, along_x = _axis_profile(row, rows, size), _axis_profile(column, columns, size)
    return (along_y[:, :, None] * along_x[:, None, :]).flatten(1).to(torch.get_default_dtype())


def _axis_profile(index: Tensor, count: Tensor, size: int) -> Tensor:
    centre = (index.double() + 0.5) * size / count
    offset = torch.arange(size) + 0.5 - centre[:, None]
    share = pixel_overlap(index, count, size) / count[:, None].double()
    return share * torch.exp(-(offset**2) / (2 * STANDARD_DEVIATION**2))


@functional_transform("to_region_graph")
class ToRegionGraph(BaseTransform):
    r"""A PyG transform: from a :class:`~torch_geometric.data.Data` with a feature volume to the sequence of its region
    means (:class:`~rstg_pyg.RegionPool`) on :func:`~rstg_pyg.region_graph`, the input of "Recurrent Space-time Graph
    Neural Networks" (`arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_).

    The stock PyG ``DataLoader`` then batches clips: nodes are concatenated and ``edge_index`` is offset. The volume is
    dropped unless ``keep_volume`` is set; everything else stays.

    Args:
        scales, heatmap_size: See :func:`~rstg_pyg.region_graph`.
        attr: Name of the attribute that holds the volume.
        keep_volume: Keep the volume beside the graph.

    Shapes:
        - **data[attr]:** ``[C, T, H, W]`` or ``[1, C, T, H, W]``; integers are cast to the default type,
          their values unchanged.
        - **output:** ``x: [N, T, C]`` beside the attributes of :func:`~rstg_pyg.region_graph`.

    Raises:
        ValueError: If the attribute is missing or is not such a volume.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from rstg_pyg import ToRegionGraph
        >>> ToRegionGraph((2, 1))(Data(video=torch.rand(3, 10, 64, 64), y=torch.tensor([4]))).x.shape
        torch.Size([5, 10, 3])
    """

    def __init__(
        self,
        scales: Sequence[Scale] = (3, 2, 1),
        heatmap_size: int = 6,
        attr: str = "video",
        keep_volume: bool = False,
    ) -> None:
        self.graph = region_graph(scales, heatmap_size)
        self.pool = RegionPool(scales)
        self.attr = attr
        self.keep_volume = keep_volume

    def forward(self, data: Data) -> Data:
        if not isinstance(data, Data):
            raise ValueError(f"expected a Data with a feature volume {self.attr!r}, got {describe(data)}")
        volume = data.get(self.attr)
        if volume is None:
            raise ValueError(f"expected a feature volume in data[{self.attr!r}], got a Data with {data.keys()}")
        shape = describe(volume)
        if num_dims(volume) == 5 and volume.size(0) == 1:
            volume = volume.squeeze(0)
        if num_dims(volume) != 4:
            raise ValueError(f"expected data[{self.attr!r}] of shape [C, T, H, W] or [1, C, T, H, W], got {shape}")
        if not volume.is_floating_point():
            volume = volume.to(torch.get_default_dtype())
        graph = self.graph.clone().to(volume.device)
        data.x = self.pool.to(volume.device)(volume.transpose(0, 1)).transpose(0, 1).contiguous()
        for key, value in graph:
            data[key] = value
        data.num_nodes = None
        if not self.keep_volume:
            del data[self.attr]
        return data

    def __repr__(self) -> str:
        return f"{type(self).__name__}(scales={self.pool.scales}, attr={self.attr!r})"


def spacetime_edge_index(edge_index: Tensor, num_nodes: int, num_frames: int) -> Tensor:
    r"""Unroll the edges of a frame over time, the homogeneous form of "Recurrent Space-time Graph Neural Networks"
    (`arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_).

    Node n at time t has the index ``n * num_frames + t``, which is the order of ``x.flatten(0, 1)`` for a sequence
    ``x: [N, T, C]``. Edges, for every t: :math:`(j, t) \to (i, t)` for each edge :math:`j \to i`, and from the past
    frame :math:`(j, t-1) \to (i, t)` for each edge and :math:`(i, t-1) \to (i, t)` for each node.

    Args:
        edge_index: Edges of one frame.
        num_nodes: Number of nodes N of one frame.
        num_frames: Number of frames T.

    Shapes:
        - **edge_index:** ``[2, E]``.
        - **output:** ``[2, T * E + (T - 1) * (E + N)]``.

    Raises:
        ValueError: If ``num_frames`` is not positive, or there would be more than 2^26 edges.

    Example:
        >>> from rstg_pyg import region_graph, spacetime_edge_index
        >>> graph = region_graph((2, 1))
        >>> spacetime_edge_index(graph.edge_index, graph.num_nodes, num_frames=3).shape
        torch.Size([2, 90])
    """
    check_edges(edge_index)
    # Sizes are symbols while a program is exported.
    if not torch.compiler.is_compiling():
        check_positive(num_frames=num_frames)
        if not isinstance(num_nodes, int) or num_nodes < 0:
            raise ValueError(f"expected 'num_nodes' to be an int of at least 0, got {describe(num_nodes)}")
        num_edges = num_frames * edge_index.size(1) + (num_frames - 1) * (edge_index.size(1) + num_nodes)
        if num_edges > MAX_EDGES:
            raise ValueError(f"expected at most {MAX_EDGES} edges in all, got {num_edges} with num_frames={num_frames}")
    time, edge_index = torch.arange(num_frames, device=edge_index.device), edge_index.long()
    within = (edge_index[:, :, None] * num_frames + time).flatten(1)
    node = torch.arange(num_nodes, device=edge_index.device)
    past_edges = torch.cat([edge_index, torch.stack([node, node])], 1)
    to_present = past_edges[:, :, None] * num_frames + time[1:]
    across = torch.stack([to_present[0] - 1, to_present[1]]).flatten(1)
    return torch.cat([within, across], 1)


def spacetime_graph(graph: Data, num_frames: int) -> Data:
    r"""Unroll a graph over time, the homogeneous form of "Recurrent Space-time Graph Neural Networks"
    (`arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_): past and present copies of a region are neighbours like
    any others. Nodes and edges are those of :func:`~rstg_pyg.spacetime_edge_index`.

    Args:
        graph: A graph of one frame, such as :func:`~rstg_pyg.region_graph` returns. Its node attributes are repeated
            for each frame; a node sequence ``x: [N, T, C]`` becomes ``x: [N * T, C]``. It has no attributes of edges,
            which edges between frames would lack, and no mask: for nodes that come and go there is
            :class:`~rstg_pyg.RSTG` with ``stages="homogeneous"``.
        num_frames: Number of frames T.

    Shapes:
        - **output:** ``N * T`` nodes with ``time: [N * T]``, ``edge_index: [2, T * E + (T - 1) * (E + N)]``.

    Raises:
        ValueError: If ``num_frames`` is not positive, ``graph.x`` is not a sequence of that many frames, the graph has
            a mask or attributes of edges, or there would be more than 2^26 edges.

    Example:
        >>> from rstg_pyg import region_graph, spacetime_graph
        >>> graph = spacetime_graph(region_graph((3, 2, 1)), num_frames=10)
        >>> graph.num_nodes, graph.num_edges
        (140, 1836)
    """
    if not isinstance(graph, Data) or graph.edge_index is None:
        raise ValueError(f"expected a Data with 'edge_index', got {describe(graph)}")
    num_nodes = graph.num_nodes
    out = Data(edge_index=spacetime_edge_index(graph.edge_index, num_nodes, num_frames))
    for key, value in graph:
        if key == "mask" or (key != "edge_index" and graph.is_edge_attr(key)):
            raise ValueError(f"expected a graph without a mask or attributes of edges, got {key!r}")
        if key == "x":
            if num_dims(value) < 3 or value.size(1) != num_frames:
                raise ValueError(f"expected graph.x of shape [{num_nodes}, {num_frames}, C], got {describe(value)}")
            out.x = value.flatten(0, 1)
        elif key != "edge_index":
            of_nodes = graph.is_node_attr(key)
            if of_nodes and not isinstance(value, Tensor):
                raise ValueError(f"expected tensors of nodes, got graph.{key} as {describe(value)}")
            out[key] = value.repeat_interleave(num_frames, 0) if of_nodes else value
    out.time = torch.arange(num_frames, device=graph.edge_index.device).repeat(num_nodes)
    return out
