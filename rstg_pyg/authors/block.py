"""The space-time block as the authors' program computes it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rstg_pyg.authors.gather import AdditiveAttention, DotAttention, UnmaskedGather
from rstg_pyg.authors.norms import input_norm
from rstg_pyg.authors.send import AllPairsSend
from rstg_pyg.authors.starting_weights import glorot_linear
from rstg_pyg.authors.time_stage import NodeLSTM
from rstg_pyg.authors.update import NodeUpdate
from rstg_pyg.regions import RegionPool, region_graph

TIMED_STAGES = 3
"""The program has a time stage in front of the space stages 0, 1 and 2, never of later ones."""


class AuthorsRSTG(nn.Module):
    r"""Recurrent space-time graph of the authors' program, for weights trained with it.

    .. math::
        v \leftarrow \mathrm{norm}(W_{in}\,\mathrm{pool}(F)); \qquad
        \big[\; v \leftarrow f_{time}(v) \text{ (if } k < 3), \quad
        v \leftarrow f_{space}\big(v, \textstyle\sum_j a_{ij} f_{send}(v_j, v_i)\big)
        \;\big]_{k = 0 .. K-1}; \qquad v \leftarrow W_{out}\,f'_{time}(v)

    This is the variant to load such weights into; it follows the program wherever it departs from
    the text (list in :mod:`rstg_pyg.authors`) and computes all N² pairs of nodes. The clip goes
    through at once: one recurrent call per time stage, one dense computation per space stage. It
    has no frame-by-frame form: layer norm and training-mode batch norm of the node input take
    their statistics over time.

    The stages share their weights. Each part is a submodule (`pool`, `input_norm`, `time`, `send`,
    `attention`, `gather`, `update`, `last_time`, `project_out`), so that forward hooks see every
    intermediate.

    Args:
        in_channels: width C of the feature volume.
        channels: width of the graph where it has its own, between a linear layer in and one out;
            `None` keeps `in_channels` and leaves out both layers.
        scales: grids of regions; the program has `(1,)`, `(2, 1)` and `(3, 2, 1)`.
        num_stages: number K of space stages.
        attention: `"additive"` (the program's "simple") or `"dot"`.
        heads: heads of dot attention; the program has 1 and 8.
        heatmap_size: side D of the position heatmaps; `None` for no positions.
        norm: norm of node input, messages, gathered messages and nodes: `None`, `"layer"` or
            `"batch"`. Dot attention leaves the gathered messages without.
        update_layers: number of layers of the update.
        update_per_scale: gives each scale its own update MLP.
        input_batch_norm: batch norm of the node input in front of `norm`, as for SyncMNIST.

    Shapes:
        - volume: `[B, C, T, H, W]`
        - output: nodes `[B, T, N, C]`, for :class:`AuthorsToVec` and :class:`AuthorsToMap`

    Raises:
        ValueError: for arguments outside these ranges, and for a volume of another shape.

    Source: Nicolicioiu, Duta, Leordeanu, "Recurrent Space-time Graph Neural Networks", NeurIPS
    2019, arXiv:1904.05582; program: IuliaDuta/RSTG at 788a7a3.

    Example:
        >>> import torch
        >>> block = AuthorsRSTG(16, input_batch_norm=True)
        >>> block(torch.randn(2, 16, 5, 6, 6)).shape
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
        for name, value in (
            ("in_channels", in_channels),
            ("channels", width),
            ("num_stages", num_stages),
            ("update_layers", update_layers),
        ):
            if value < 1:
                raise ValueError(f"expected '{name}' to be at least 1, got {value}")
        self.in_channels = in_channels
        self.channels = width
        self.num_stages = num_stages
        self.update_per_scale = update_per_scale

        self.pool = RegionPool(scales)
        if heatmap_size is not None:
            _check_heatmap_size(heatmap_size, self.pool.scales)
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
        for module in (self.time, self.send, self.attention, self.gather, self.update):
            module.reset_parameters()
        self.last_time.reset_parameters()
        for norm in self.input_norm:
            norm.reset_parameters()
        for projection in (self.project_in, self.project_out):
            if isinstance(projection, nn.Linear):
                glorot_linear(projection)

    def forward(self, volume: Tensor) -> Tensor:
        """Nodes `[B, T, N, C]` after the last time stage, of a volume `[B, C, T, H, W]`."""
        if volume.dim() != 5 or volume.size(1) != self.in_channels:
            raise ValueError(f"expected a volume of shape [B, {self.in_channels}, T, H, W], got {list(volume.shape)}")
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
        if heads < 1 or channels % heads:
            raise ValueError(f"expected 'heads' to divide {channels} channels, got {heads}")
        return DotAttention(channels, heads)
    raise ValueError(f"expected 'attention' to be 'additive' or 'dot', got {name!r}")


def _check_heatmap_size(size: int, scales: Sequence[tuple[int, int]]) -> None:
    if any(size % side for scale in scales for side in scale):
        raise ValueError(f"expected 'heatmap_size' to be a multiple of every scale in {list(scales)}, got {size}")
