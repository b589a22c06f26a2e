"""Mini-batches of large graphs: some nodes, and the neighbourhoods that their outputs depend on."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.arguments import check_choice, check_positive, describe, is_integer, num_dims
from rstg_pyg.temporal.series import Series, subgraph
from rstg_pyg.temporal.windows import WindowDataset, Windows


def sample_neighbors(data: Data, nodes: Tensor, num_neighbors: Sequence[int], flow: str = "source_to_target") -> Data:
    r"""Cut out some nodes with what they hear over K hops, in all frames together.

    With every neighbour kept (-1), what :class:`~rstg_pyg.RSTG` with K space stages gives at these nodes is what it
    gives on the whole graph (not so with a ``norm`` that takes training-mode statistics over the nodes).

    Args:
        data: The graph, see :class:`Series`.
        nodes: The nodes whose outputs are wanted.
        num_neighbors: For each hop, how many edges into a node are kept at random, in every frame; -1 keeps all.
        flow: Of the convolution, ``"source_to_target"`` or ``"target_to_source"``.

    Shapes:
        - **nodes:** ``[S]`` int64.
        - **output:** as ``data``, of the nodes that were reached and the edges that were kept, in their order;
          **n_id:** ``[N']``, their numbers in ``data``; **seed_mask:** ``[N']`` bool, True at ``nodes``.

    Raises:
        ValueError: If ``data`` is not a graph that changes, or an argument is not as above.
        IndexError: If a node is not there.

    Example:
        >>> data = Data(x=torch.zeros(4, 5, 2), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]))
        >>> part = sample_neighbors(data, torch.tensor([2]), [-1])
        >>> part.n_id.tolist(), part.seed_mask.tolist(), part.edge_index.tolist()
        ([1, 2], [False, True], [[0], [1]])
    """
    check_choice("flow", flow, ("source_to_target", "target_to_source"))
    return _sample(Series(data), nodes, num_neighbors, flow)


def _sample(series: Series, nodes: Tensor, num_neighbors: Sequence[int], flow: str) -> Data:
    data = series.data
    _check_counts(num_neighbors)
    _check_nodes(nodes, series.num_nodes)
    nodes = nodes.long()
    edge_index = data.edge_index if "edge_index" in data else nodes.new_zeros(2, 0)
    source, destination = edge_index if flow == "source_to_target" else edge_index.flip(0)
    place = destination
    if series.edge_time is not None:
        place = destination.long() * series.num_frames + series.edge_time
    device = edge_index.device
    seeds = torch.zeros(series.num_nodes, dtype=torch.bool, device=device)
    seeds[nodes] = True
    reached, newest = seeds, seeds
    kept = torch.zeros(series.num_edges, dtype=torch.bool, device=device)
    for count in num_neighbors:
        edges = newest[destination].nonzero().squeeze(1)
        if count >= 0:
            edges = edges[_at_most(count, place[edges])]
        kept[edges] = True
        heard = torch.zeros_like(seeds)
        heard[source[edges]] = True
        newest = heard & ~reached
        reached = reached | heard
    out = subgraph(data, series.rows, reached, kept)
    out.n_id, out.seed_mask = reached.nonzero().squeeze(1), seeds[reached]
    return out


def _at_most(count: int, group: Tensor) -> Tensor:
    """The places of at most ``count`` random entries of every group."""
    order = torch.randperm(group.size(0), device=group.device)
    order = order[group[order].argsort(stable=True)]
    _, sizes = group[order].unique_consecutive(return_counts=True)
    rank = torch.arange(order.size(0), device=order.device) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return order[rank < count]


class NeighborWindows(WindowDataset):
    r"""Windows of a large graph in parts: each item is a window of some nodes and their sampled neighbourhoods.

    All windows come with every part of the nodes. Losses belong to the nodes where ``seed_mask`` is True.

    Args:
        windows: The windows, see :class:`Windows`.
        num_neighbors: For each hop, how many edges into a node are kept, see :func:`sample_neighbors`; one number for
            each space stage.
        num_seeds: Number of nodes of a part, of which the last may have fewer.
        nodes: The nodes whose outputs are wanted, ``[S]``; all by default.
        flow: Of the convolution.

    Shapes:
        - **item:** as of ``windows``, with ``n_id [N']`` and ``seed_mask [N']``.

    Raises:
        ValueError: If an argument is not as above.
        IndexError: If a node or an item is not there.

    Example:
        >>> from torch_geometric.loader import DataLoader
        >>> data = Data(x=torch.randn(100, 30, 3), edge_index=torch.randint(100, (2, 300)))
        >>> parts = NeighborWindows(Windows(data, history=12, horizon=6), num_neighbors=[5, 5], num_seeds=32)
        >>> len(parts)
        52
        >>> int(next(iter(DataLoader(parts, batch_size=2))).seed_mask.sum())
        64
    """

    what = "part of a window"

    def __init__(
        self,
        windows: Windows,
        num_neighbors: Sequence[int],
        num_seeds: int,
        nodes: Tensor | None = None,
        flow: str = "source_to_target",
    ) -> None:
        if not isinstance(windows, Windows) or windows.present_only:
            got = "some with present_only=True" if isinstance(windows, Windows) else describe(windows)
            raise ValueError(f"expected 'windows' to be Windows of all nodes, got {got}")
        check_positive(num_seeds=num_seeds)
        check_choice("flow", flow, ("source_to_target", "target_to_source"))
        _check_counts(num_neighbors)
        num_nodes = windows.series.num_nodes
        if nodes is None:
            nodes = torch.arange(num_nodes, device=windows.series.data.x.device)
        _check_nodes(nodes, num_nodes)
        self.windows, self.num_neighbors, self.flow = windows, list(num_neighbors), flow
        self.parts = nodes.split(num_seeds)

    def __len__(self) -> int:
        return len(self.windows) * len(self.parts)

    def get(self, index: int) -> Data:
        """Make part number ``index`` of all windows."""
        window, part = divmod(index, len(self.parts))
        # By the rows of the whole series: the sizes of a window may fit by chance what belongs to the graph.
        series = Series(self.windows[window], self.windows.rows)
        return _sample(series, self.parts[part], self.num_neighbors, self.flow)


def _check_counts(num_neighbors: object) -> None:
    counts = num_neighbors if isinstance(num_neighbors, (tuple, list)) else [None]
    if not all(isinstance(count, int) and count >= -1 for count in counts):
        raise ValueError(f"expected 'num_neighbors' to be one int of at least -1 per hop, got {num_neighbors!r}")


def _check_nodes(nodes: object, num_nodes: int) -> None:
    if num_dims(nodes) != 1 or not is_integer(nodes):
        raise ValueError(f"expected integer 'nodes' of shape [S], got {describe(nodes, typed=True)}")
    wrong = nodes[(nodes < 0) | (nodes >= num_nodes)]
    if wrong.numel() > 0:
        raise IndexError(f"expected 'nodes' within 0 to {num_nodes - 1}, got {wrong[0].item()}")
