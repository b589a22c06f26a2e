"""RSTG-to-vec: a clip's feature vector."""

from typing import Any

from torch import Tensor

from rstg_pyg.arguments import check_choice, check_mean
from rstg_pyg.blocks.frame_vectors import next_mean
from rstg_pyg.blocks.region_block import RegionBlock
from rstg_pyg.recurrence.rstg import SPACE


class RSTGToVec(RegionBlock):
    r"""RSTG-to-vec of "Recurrent Space-time Graph Neural Networks" (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019,
    `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_): the sum over all nodes at the last time step.

    .. math::
        \mathbf{z} = \sum_i \mathbf{h}_i^{T,K} \qquad \text{or, with readout="mean",} \qquad
        \mathbf{z} = \frac{1}{T} \sum_t \sum_i \mathbf{h}_i^{t,K}

    It stands at the end of a backbone and takes its feature volume. ``step`` takes a stream's next frame and returns
    what ``forward`` returns for all frames up to it.

    Args:
        in_channels: Size C of the volume's features.
        channels: Size G of the graph's features (default: C).
        readout: ``"last"`` or ``"mean"`` over time (default: ``"mean"`` for forms without memory, else ``"last"``).
        **kwargs: ``scales``, ``heatmap_size``, ``input_norm``; ``checkpoint=True``, which in training runs the graph
            twice to save memory; and the arguments of :class:`~rstg_pyg.RSTG` (``num_stages``, ``rnn``, ``stages``,
            ...) and :class:`~rstg_pyg.RSTGConv` (``heads``, ``attention``, ...).

    Shapes:
        - **forward:** ``[B, C, T, H, W] -> [B, G]``; with ``return_attention_weights``,
          ``([B, G], [(edge_index, alpha [E, B, T, heads]), ...])`` with a pair per space stage.
        - **step:** ``[B, C, H, W], state -> ([B, G], state)``.

    Raises:
        ValueError: If an argument is out of its range, or a volume, a frame or a state does not fit.

    Example:
        >>> import torch
        >>> from rstg_pyg import RSTGToVec
        >>> head = RSTGToVec(64, channels=32)
        >>> head(torch.randn(2, 64, 10, 14, 14)).shape
        torch.Size([2, 32])
        >>> vector, state = head.step(torch.randn(2, 64, 14, 14), None)
    """

    def __init__(
        self, in_channels: int, channels: int | None = None, readout: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(in_channels, channels, **kwargs)
        if readout is None:
            readout = "mean" if set(self.rstg.stages) == {SPACE} else "last"
        check_choice("readout", readout, ("last", "mean"))
        self.readout = readout

    def forward(self, volume: Tensor, return_attention_weights: bool | None = None) -> Any:
        x, _, *attention = self.run(volume, return_attention_weights=return_attention_weights)
        vector = x[:, :, -1].sum(0) if self.readout == "last" else x.sum(0).mean(1)
        return (vector, attention[0]) if return_attention_weights else vector

    def step(self, frame: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Take the next frame of a stream and the state that the frame before it returned (None at the start).

        With ``readout="mean"`` the state is the graph's, the mean in float32 or wider, and the number of frames.
        """
        if self.readout == "last":
            x, state = self.run(self._as_clip(frame), state)
            return x[:, :, -1].sum(0), state
        clip = self._as_clip(frame)
        check_mean(state, [frame.size(0), self.channels])
        state, *memory = (None,) if state is None else state
        x, state = self.run(clip, state)
        mean, *memory = next_mean(x[:, :, -1].sum(0), *memory)
        return mean, (state, *memory)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.channels}, scales={self.pool.scales})"
