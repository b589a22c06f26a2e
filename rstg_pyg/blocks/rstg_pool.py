"""RSTG-to-vec at the end of a network that averages its volume."""

from typing import Any

from torch import Tensor
from torch.nn import Linear, Module

from rstg_pyg.arguments import check_entries, check_options
from rstg_pyg.blocks.to_vec import RSTGToVec
from rstg_pyg.blocks.volume_pool import VolumePool
from rstg_pyg.blocks.zero_start import ZeroLayerNorm
from rstg_pyg.conv import RSTGConv
from rstg_pyg.recurrence import RSTG


class RSTGPool(Module):
    r"""The mean of a volume, plus what :class:`~rstg_pyg.RSTGToVec` makes of it: how the authors of "Recurrent
    Space-time Graph Neural Networks" (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019, `arXiv:1904.05582
    <https://arxiv.org/abs/1904.05582>`_) end C2D and I3D in their program.

    .. math::
        \mathbf{z} = \frac{1}{THW} \sum_{t,y,x} \mathbf{F}_{t,y,x}
        + \mathrm{LayerNorm}\left( \mathbf{W} \sum_i \mathbf{h}_i^{T,K} + \mathbf{b} \right)

    The weight and the bias of the layer norm start at zero, so a network that takes it in place of its average pool
    computes what it did before until they are trained.

    ``step`` takes a stream's next frame and returns what ``forward`` returns for all frames up to it.

    Args:
        in_channels: Size C of the volume's features.
        channels: Size G of the graph's features (default: C).
        **kwargs: Arguments of :class:`~rstg_pyg.RSTGToVec`.

    Shapes:
        - **forward:** ``[B, C, T, H, W] -> [B, C]``; with ``return_attention_weights``,
          ``([B, C], [(edge_index, alpha [E, B, T, heads]), ...])`` with a pair per space stage.
        - **step:** ``[B, C, H, W], state -> ([B, C], state)``.

    Raises:
        ValueError: If an argument is out of its range, or a volume, a frame or a state does not fit.

    Example:
        >>> import torch
        >>> from rstg_pyg.blocks import RSTGPool
        >>> volume = torch.randn(2, 64, 8, 7, 7)
        >>> torch.equal(RSTGPool(64, channels=32)(volume), volume.mean((3, 4)).mean(2))
        True
    """

    def __init__(self, in_channels: int, channels: int | None = None, **kwargs: Any) -> None:
        super().__init__()
        check_options(self, kwargs, RSTGToVec, RSTG, RSTGConv)
        self.to_vec = RSTGToVec(in_channels, channels, **kwargs)
        self.pool = VolumePool(in_channels)
        self.lin_out = Linear(self.to_vec.channels, in_channels)
        self.norm = ZeroLayerNorm(in_channels)
        self.channels = in_channels

    def reset_parameters(self) -> None:
        r"""Reset all learnable parameters; those of the layer norm to zero."""
        for layer in (self.to_vec, self.lin_out, self.norm):
            layer.reset_parameters()

    def forward(self, volume: Tensor, return_attention_weights: bool | None = None) -> Any:
        vector = self.to_vec(volume, return_attention_weights=return_attention_weights)
        vector, *attention = vector if return_attention_weights else (vector,)
        out = self._sum(self.pool(volume), vector)
        return (out, attention[0]) if return_attention_weights else out

    def step(self, frame: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Take the next frame of a stream and the state that the frame before it returned (None at the start)."""
        if state is not None:
            check_entries(state, 2)
        graph_state, mean_state = (None, None) if state is None else state
        vector, graph_state = self.to_vec.step(frame, graph_state)
        mean, mean_state = self.pool.step(frame, mean_state)
        return self._sum(mean, vector), (graph_state, mean_state)

    def _sum(self, mean: Tensor, vector: Tensor) -> Tensor:
        return mean + self.norm(self.lin_out(vector)).to(mean.dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, {self.to_vec.channels}, scales={self.to_vec.pool.scales})"
