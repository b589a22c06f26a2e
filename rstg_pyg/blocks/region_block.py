"""From a feature volume to recurrent region nodes: what both readouts share.

Shape legend: B clips, C channels of the volume, T frames, H x W pixels, N regions, G channels of the graph.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import Identity, Linear

from rstg_pyg.arguments import check_flags, check_options, check_positive, check_type, describe, num_dims
from rstg_pyg.blocks.recomputed import RecomputedRSTG
from rstg_pyg.constant_buffers import ConstantBuffers
from rstg_pyg.conv import RSTGConv
from rstg_pyg.norm import Norm, normalised, resolve_norm
from rstg_pyg.recurrence import RSTG
from rstg_pyg.regions import RegionPool, region_graph
from rstg_pyg.regions.cells import Scale


class RegionBlock(ConstantBuffers):
    r"""Pool a volume to regions and run :class:`~rstg_pyg.RSTG` on them.

    All clips of a batch share one region graph, so they are an inner dimension of the nodes, ``[N, B, T, G]``: the
    90 edges of the default graph serve every frame of every clip.

    Args:
        in_channels: Size C of the volume's features.
        channels: Size G of the graph's features (default: C); a linear layer takes C to G where they differ.
        scales: Grids of regions, see :func:`~rstg_pyg.region_graph`.
        heatmap_size: Side of the position heatmaps, or None for a graph without positions.
        input_norm: Normalisation of the node features, see :class:`~rstg_pyg.RSTGConv`.
        checkpoint: In training, keep what goes into the graph's stages alone and run each a second time in the backward
            pass: less memory, more time, the same numbers (:func:`torch.utils.checkpoint.checkpoint`).
        **kwargs: Arguments of :class:`~rstg_pyg.RSTG`, and through it of :class:`~rstg_pyg.RSTGConv`.
    """

    edge_index: Tensor
    heatmap: Tensor | None

    def __init__(
        self,
        in_channels: int,
        channels: int | None = None,
        scales: Sequence[Scale] = (3, 2, 1),
        heatmap_size: int | None = 6,
        input_norm: Norm = None,
        checkpoint: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        check_options(self, kwargs, RSTG, RSTGConv)
        channels = in_channels if channels is None else channels
        check_positive(in_channels=in_channels, channels=channels)
        check_flags(checkpoint=checkpoint)
        if "pe_channels" in kwargs:
            raise ValueError("expected no 'pe_channels': it follows from heatmap_size (None for no positions)")
        self.in_channels = in_channels
        self.channels = channels
        self.heatmap_size = heatmap_size
        self.pool = RegionPool(scales)
        self.reset_buffers()
        self.lin_in = Identity() if channels == in_channels else Linear(in_channels, channels)
        self.input_norm = resolve_norm(input_norm, channels, "input_norm")
        pe_channels = 0 if self.heatmap is None else self.heatmap.size(1)
        graph_class = RecomputedRSTG if checkpoint else RSTG
        self.rstg = graph_class(channels, pe_channels=pe_channels, **kwargs)

    def constants(self) -> dict[str, Tensor | None]:
        graph = region_graph(self.pool.scales, 1 if self.heatmap_size is None else self.heatmap_size)
        return {"edge_index": graph.edge_index, "heatmap": None if self.heatmap_size is None else graph.heatmap}

    def nodes(self, volume: Tensor) -> Tensor:
        """Pool ``[B, C, T, H, W]`` to the graph's input ``[N, B, T, G]``."""
        if num_dims(volume) != 5 or volume.size(1) != self.in_channels:
            raise ValueError(
                f"expected a feature volume of shape [B, {self.in_channels}, T, H, W], got {describe(volume)}"
            )
        check_type("volume", volume, self)
        return normalised(self.input_norm, self.lin_in(self.pool(volume).permute(2, 0, 3, 1)))

    def run(self, volume: Tensor, state: Any = None, return_attention_weights: bool | None = None) -> Any:
        """Return what :class:`~rstg_pyg.RSTG` returns for a volume: nodes ``[N, B, T, G]``, state, attention."""
        return self.rstg(
            self.nodes(volume),
            self.edge_index,
            pe=self.heatmap,
            state=state,
            return_attention_weights=return_attention_weights,
        )

    def _as_clip(self, frame: Tensor) -> Tensor:
        if num_dims(frame) != 4 or frame.size(1) != self.in_channels:
            raise ValueError(f"expected a frame of shape [B, {self.in_channels}, H, W], got {describe(frame)}")
        return frame.unsqueeze(2)
