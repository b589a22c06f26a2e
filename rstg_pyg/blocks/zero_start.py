"""Layers that start as nothing, whoever resets them."""

from torch.nn import BatchNorm3d, LayerNorm, Linear
from torch.nn.init import zeros_

from rstg_pyg.norm import ChannelBatchNorm


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
