"""The space-time block as the authors' program computes it, and its two readouts."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rstg_pyg.arguments import check_positive, describe, num_dims
from rstg_pyg.authors.norms import input_norm
from rstg_pyg.authors.stages import (
    AdditiveAttention,
    AllPairsSend,
    DotAttention,
    NodeLSTM,
    NodeUpdate,
    UnmaskedGather,
    glorot,
)
from rstg_pyg.blocks.volume_pool import check_volume
from rstg_pyg.regions import RegionPool, RegionProject, region_graph

TIMED_STAGES = 3
"""The program has a time stage in front of the space stages 0, 1 and 2, never of later ones."""


class AuthorsRSTG(nn.Module):
    r"""Recurrent space-time graph of the authors' program, for weights trained with it.

    .. math::
        v \leftarrow \mathrm{norm}(W_{in}\,\mathrm{pool}(F)); \qquad
        \big[\; v \leftarrow f_{time}(v) \text{ (if } k < 3), \quad
        v \leftarrow f_{space}\big(v, \textstyle\sum_j a_{ij} f_{send}(v_j, v_i)\big)
        \;\big]_{k = 0 .. K-1}; \qquad v \leftarrow W_{out}\,f'_{time}(v)

    This is the variant to load such weights into. It follows the program wherever that departs from the text (list in
    :mod:`rstg_pyg.authors`) and computes all N² pairs of nodes. The clip goes through at once: one recurrent call per
    time stage, one dense computation per space stage. It has no form for streams: layer norm and training-mode batch
    norm of the node input take their statistics over time.

    The stages share their weights. Each part is a submodule (``pool``, ``input_norm``, ``time``, ``send``,
    ``attention``, ``gather``, ``update``, ``last_time``, ``project_out``), so forward hooks see every intermediate.

    Args:
        in_channels: Width C of the feature volume.
        channels: Width of the graph where it has its own, between a linear layer in and one out; None keeps
            ``in_channels`` and leaves out both layers.
        scales: Grids of regions; the program has ``(1,)``, ``(2, 1)`` and ``(3, 2, 1)``.
        num_stages: Number K of space stages.
        attention: ``"additive"`` (the program's "simple") or ``"dot"``.
        heads: Heads of dot attention; the program has 1 and 8.
        heatmap_size: Side D of the position heatmaps; None for no positions.
        norm: Norm of node input, messages, gathered messages and nodes: None, ``"layer"`` or ``"batch"``. Dot attention
            leaves the gathered messages without.
        update_layers: Number of layers of the update.
        update_per_scale: Whether each scale has an update MLP of its own.
        input_batch_norm: Whether a batch norm of the node input comes before ``norm``, as for SyncMNIST.

    Shapes:
        - **volume:** ``[B, C, T, H, W]``.
        - **output:** nodes ``[B, T, N, C]``, for :class:`AuthorsToVec` and :class:`AuthorsToMap`.

    Raises:
        ValueError: If an argument is out of its range, or the volume is of another shape.

    Source: Nicolicioiu, Duta, Leordeanu, "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582;
    program: IuliaDuta/RSTG at 788a7a3.

    Example:
        >>> import torch
        >>> from rstg_pyg.authors import AuthorsRSTG
        >>> AuthorsRSTG(16, input_batch_norm=True)(torch.randn(2, 16, 5, 6, 6)).shape
        torch.Size([2, 5, 14, 16])
    """

    def __init__(
        self,
        in_channels: int,
        channels: int | None = None,
        scales: Sequence[int] = (3, 2, 1),
        num_stages: int = 3,
        attention: str = "additive",
        heads: int = 1,
        heatmap_size: int | None = 6,
        norm: str | None = None,
        update_layers: int = 2,
        update_per_scale: bool = False,
        input_batch_norm: bool = False,
    ) -> None:
        super().__init__()
        width = in_channels if channels is None else channels
        check_positive(
            in_channels=in_channels, channels=width, num_stages=num_stages, heads=heads, update_layers=update_layers
        )
        self.in_channels = in_channels
        self.channels = width
        self.num_stages = num_stages
        self.update_per_scale = update_per_scale

        self.pool = RegionPool(scales)
        if heatmap_size is not None:
            check_positive(heatmap_size=heatmap_size)
            scales = list(self.pool.scales)
            if any(heatmap_size % side for scale in scales for side in scale):
                raise ValueError(
                    f"expected 'heatmap_size' to be a multiple of every scale in {scales}, got {heatmap_size}"
                )
        self.heatmap_size = heatmap_size
        regions = self.pool.num_regions
        self.register_buffer("adjacency", torch.empty(regions, regions), persistent=False)
        self.register_buffer("heatmap", None if heatmap_size is None else torch.empty(regions, heatmap_size**2))
        self.heatmap: Tensor | None

        projects = channels is not None
        self.project_in = nn.Linear(in_channels, width) if projects else nn.Identity()
        self.input_norm = input_norm(norm, width, input_batch_norm)
        self.time = NodeLSTM(width)
        self.send = AllPairsSend(width, 0 if heatmap_size is None else heatmap_size**2, norm)
        self.attention = _attention(attention, width, heads)
        self.gather = UnmaskedGather(width, heads, norm if attention == "additive" else None)
        sizes = [rows * columns for rows, columns in self.pool.scales]
        self.update = NodeUpdate(width, update_layers, sizes if update_per_scale else [sum(sizes)], norm)
        self.last_time = NodeLSTM(width)
        self.project_out = nn.Linear(width, in_channels) if projects else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights as the program does: Glorot uniform kernels, zero biases. Make the constants anew."""
        graph = region_graph(self.pool.scales, 1 if self.heatmap_size is None else self.heatmap_size)
        self.adjacency.zero_()[graph.edge_index[1], graph.edge_index[0]] = 1.0
        if self.heatmap is not None:
            self.heatmap.copy_(graph.heatmap)
        parts = (self.time, self.send, self.attention, self.gather, self.update, self.last_time, *self.input_norm)
        for module in parts:
            module.reset_parameters()
        for projection in (self.project_in, self.project_out):
            if isinstance(projection, nn.Linear):
                glorot(projection)

    def forward(self, volume: Tensor) -> Tensor:
        check_volume(self, volume)
        nodes = self.pool(volume.transpose(1, 2))
        nodes = self.input_norm(self.project_in(nodes))
        for stage in range(self.num_stages):
            if stage < TIMED_STAGES:
                nodes = self.time(nodes)
            messages = self.send(nodes, self.heatmap)
            alpha = self.attention(nodes, self.adjacency)
            nodes = self.update(nodes, self.gather(alpha, messages))
        return self.project_out(self.last_time(nodes))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, channels={self.channels}, num_stages={self.num_stages}"


def _attention(name: str, channels: int, heads: int) -> AdditiveAttention | DotAttention:
    if name == "additive":
        if heads != 1:
            raise ValueError(f"expected 'heads' to be 1 with additive attention, got {heads}")
        return AdditiveAttention(channels)
    if name == "dot":
        if channels % heads:
            raise ValueError(f"expected 'heads' to divide {channels} channels, got {heads}")
        return DotAttention(channels, heads)
    raise ValueError(f"expected 'attention' to be 'additive' or 'dot', got {name!r}")


class AuthorsToVec(nn.Module):
    r"""Sum over the nodes, mean over time. The text reads out the last time step instead.

    .. math::
        y = \frac{1}{T} \sum_t \sum_i v_i^t

    Shapes:
        - **nodes:** ``[B, T, N, C]``. **output:** ``[B, C]``.

    Raises:
        ValueError: If the nodes are of another number of axes, or there is no frame.

    Source: paper, RSTG-to-vec (arXiv:1904.05582); program (IuliaDuta/RSTG at 788a7a3), departure 13.

    Example:
        >>> AuthorsToVec()(torch.randn(2, 5, 14, 16)).shape
        torch.Size([2, 16])
    """

    def forward(self, nodes: Tensor) -> Tensor:
        _check_nodes(nodes)
        return nodes.sum(dim=2).mean(dim=1)


class AuthorsToMap(nn.Module):
    r"""Every node spread back over its cell, scales summed.

    .. math::
        Y_{t, y, x} = \sum_n |n \cap (y, x)|\, v_n^t

    with pixels of area 1, see :class:`~rstg_pyg.regions.RegionProject`.

    Args:
        scales: Grids of regions, as in the block.

    Shapes:
        - **nodes:** ``[B, T, N, C]``. **size:** the pair (H, W).
        - **output:** volume ``[B, C, T, H, W]``.

    Raises:
        ValueError: If the nodes are of another number of axes, or not as many as the scales have cells, or there is no
            frame.

    Source: paper, RSTG-to-map (arXiv:1904.05582); program (IuliaDuta/RSTG at 788a7a3), departure 13.

    Example:
        >>> AuthorsToMap()(torch.randn(2, 5, 14, 16), size=(28, 28)).shape
        torch.Size([2, 16, 5, 28, 28])
    """

    def __init__(self, scales: Sequence[int] = (3, 2, 1)) -> None:
        super().__init__()
        self.project = RegionProject(scales)

    def forward(self, nodes: Tensor, size: tuple[int, int]) -> Tensor:
        _check_nodes(nodes)
        return self.project(nodes, size=size).transpose(1, 2)


def _check_nodes(nodes: Tensor) -> None:
    if num_dims(nodes) != 4 or nodes.size(1) < 1:
        raise ValueError(f"expected nodes of shape [B, T >= 1, N, C], got {describe(nodes)}")
