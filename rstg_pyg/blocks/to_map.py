"""RSTG-to-map: from a feature volume to one of the same shape, anywhere in a network; and layers that start at zero."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import BatchNorm3d, LayerNorm, Linear
from torch.nn.init import zeros_
from torch_geometric.typing import OptTensor

from rstg_pyg.blocks.region_block import RegionBlock
from rstg_pyg.blocks.volume_pool import as_clip
from rstg_pyg.norm import ChannelBatchNorm
from rstg_pyg.ops.frames import check_mask
from rstg_pyg.regions import RegionProject
from rstg_pyg.regions.cells import Scale


class RSTGToMap(RegionBlock):
    r"""From a feature volume to one of the same shape, anywhere inside a network: every node is spread over its cell,
    the scales are summed, and the result is added to the volume that came in. RSTG-to-map of "Recurrent Space-time
    Graph Neural Networks" (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019, `arXiv:1904.05582
    <https://arxiv.org/abs/1904.05582>`_).

    .. math::
        \mathbf{F}'_t = \mathbf{F}_t + \mathrm{project}\left( \mathbf{W} \mathbf{h}^{t,K} + \mathbf{b} \right)

    :math:`\mathbf{W}` and :math:`\mathbf{b}` start at zero, so a network that takes the block in computes what it did
    before until they are trained. ``step`` takes a stream's next frame and returns that frame's map.

    Args:
        in_channels: Size C of the volume's features.
        channels: Size G of the graph's features (default: C).
        scales: Grids of regions, see :func:`~rstg_pyg.region_graph`.
        **kwargs: ``heatmap_size``, ``input_norm``; ``checkpoint=True``, which in training runs the graph twice
            to save memory; and the arguments of :class:`~rstg_pyg.RSTG` (``num_stages``, ``rnn``, ``stages``, ...) and
            :class:`~rstg_pyg.RSTGConv` (``heads``, ``attention``, ...).

    Shapes:
        - **forward:** ``[B, C, T, H, W] -> [B, C, T, H, W]``; with ``return_attention_weights``,
          ``(volume, [(edge_index, alpha [E, B, T, heads]), ...])`` with a pair per space stage; with a ``mask [B, T]``,
          bool, 0 where a clip has no frame.
        - **step:** ``[B, C, H, W], state -> ([B, C, H, W], state)``, with a ``mask [B]`` of the clips that have it.

    Raises:
        ValueError: If an argument is out of its range, or a volume, a frame or a state does not fit.

    Example:
        >>> import torch
        >>> from rstg_pyg import RSTGToMap
        >>> block, volume = RSTGToMap(64, channels=32), torch.randn(2, 64, 10, 14, 14)
        >>> torch.equal(block(volume), volume)
        True
    """

    def __init__(
        self, in_channels: int, channels: int | None = None, scales: Sequence[Scale] = (3, 2, 1), **kwargs: Any
    ) -> None:
        super().__init__(in_channels, channels, scales, **kwargs)
        self.project = RegionProject(scales)
        self.lin_out = ZeroLinear(self.channels, in_channels)

    def _read_out(self, x: Tensor, volume: Tensor, mask: OptTensor = None) -> Tensor:
        maps = self.project(self.lin_out(x).permute(1, 2, 0, 3), volume.shape[-2:])
        out = volume + maps.transpose(1, 2).to(volume.dtype)
        return out if mask is None else torch.where(mask[:, None, :, None, None], out, 0)

    def step(self, frame: Tensor, state: Any = None, mask: OptTensor = None) -> tuple[Tensor, Any]:
        """Take the next frame of a stream and the state that the frame before it returned (None at the start)."""
        volume = as_clip(self, frame)
        mask = None if mask is None else check_mask(mask, frame.shape[:1], frame).unsqueeze(1)
        x, state = self.run(volume, state, mask=mask)
        return self._read_out(x, volume, mask).squeeze(2), state


class ZeroStart:
    """A layer whose weight and bias start at zero, so that what ends in it changes nothing until it is trained.

    What builds a network on the meta device resets layer by layer, after the modules that hold them: a zero that the
    holder put in would not stay.
    """

    def reset_parameters(self) -> None:
        super().reset_parameters()
        zeros_(self.weight)
        if self.bias is not None:
            zeros_(self.bias)


class ZeroLinear(ZeroStart, Linear):
    """:class:`torch.nn.Linear`, at zero."""


class ZeroLayerNorm(ZeroStart, LayerNorm):
    """:class:`torch.nn.LayerNorm`, at zero."""


class ZeroChannelBatchNorm(ZeroStart, ChannelBatchNorm):
    """:class:`~rstg_pyg.norm.ChannelBatchNorm`, at zero."""


class ZeroBatchNorm3d(ZeroStart, BatchNorm3d):
    """:class:`torch.nn.BatchNorm3d`, at zero."""
