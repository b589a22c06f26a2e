"""The homogeneous form: one graph whose nodes are (region, time)."""

import torch
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.arguments import check_positive, describe, num_dims

MAX_EDGES = 2**26
"""1 GiB of ``edge_index``."""


def spacetime_edge_index(edge_index: Tensor, num_nodes: int, num_frames: int) -> Tensor:
    r"""Unroll a graph over time: node n at time t has the index ``n * num_frames + t``, which is the order of
    ``x.flatten(0, 1)`` for a sequence ``x: [N, T, C]``.

    This is the homogeneous form of "Recurrent Space-time Graph Neural Networks"
    (`arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_).

    Edges, for every t: :math:`(j, t) \to (i, t)` for each edge :math:`j \to i`, and from the past frame
    :math:`(j, t-1) \to (i, t)` for each edge and :math:`(i, t-1) \to (i, t)` for each node.

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
    if num_dims(edge_index) != 2 or edge_index.size(0) != 2 or edge_index.is_floating_point():
        raise ValueError(f"expected integer 'edge_index' of shape [2, E], got {describe(edge_index)}")
    # Sizes are symbols while a program is exported.
    if not torch.compiler.is_compiling():
        check_positive(num_frames=num_frames)
        if not isinstance(num_nodes, int) or num_nodes < 0:
            raise ValueError(f"expected 'num_nodes' to be an int of at least 0, got {describe(num_nodes)}")
        num_edges = num_frames * edge_index.size(1) + (num_frames - 1) * (edge_index.size(1) + num_nodes)
        if num_edges > MAX_EDGES:
            raise ValueError(f"expected at most {MAX_EDGES} edges in all, got {num_edges} with num_frames={num_frames}")
    time = torch.arange(num_frames, device=edge_index.device)
    within = (edge_index[:, :, None] * num_frames + time).flatten(1)
    node = torch.arange(num_nodes, device=edge_index.device)
    past_edges = torch.cat([edge_index, torch.stack([node, node])], 1)
    to_present = past_edges[:, :, None] * num_frames + time[1:]
    across = torch.stack([to_present[0] - 1, to_present[1]]).flatten(1)
    return torch.cat([within, across], 1)


def spacetime_graph(graph: Data, num_frames: int) -> Data:
    r"""Unroll a region graph into one space-time graph, the homogeneous form of "Recurrent Space-time Graph Neural
    Networks" (`arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_): past and present copies of a region are
    neighbours like any others.

    Nodes are (region, t) in the order of ``x.flatten(0, 1)`` for ``x: [N, T, C]``; the edges are those of each frame,
    and t-1 -> t from each region to itself and to its neighbours.

    Args:
        graph: A graph of one frame, such as :func:`~rstg_pyg.region_graph` returns. Its node attributes are repeated
            for each frame; a node sequence ``x: [N, T, C]`` becomes ``x: [N * T, C]``.
        num_frames: Number of frames T.

    Shapes:
        - **output:** ``N * T`` nodes with ``time: [N * T]``, ``edge_index: [2, T * E + (T - 1) * (E + N)]``.

    Raises:
        ValueError: If ``num_frames`` is not positive, ``graph.x`` is not a sequence of that many frames, or there would
            be more than 2^26 edges.

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
        if key == "x":
            if num_dims(value) < 3 or value.size(1) != num_frames:
                raise ValueError(f"expected graph.x of shape [{num_nodes}, {num_frames}, C], got {describe(value)}")
            out.x = value.flatten(0, 1)
        elif key != "edge_index":
            out[key] = value.repeat_interleave(num_frames, 0) if graph.is_node_attr(key) else value
    out.time = torch.arange(num_frames, device=graph.edge_index.device).repeat(num_nodes)
    return out
