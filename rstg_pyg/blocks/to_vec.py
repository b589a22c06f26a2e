"""RSTG-to-vec: from a feature volume to a clip's vector, alone or beside the mean of the volume."""

from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.nn import Linear, Module
from torch_geometric.typing import OptTensor

from rstg_pyg.arguments import check_choice, check_entries, check_memory, check_options, describe
from rstg_pyg.blocks.region_block import Attention, RegionBlock
from rstg_pyg.blocks.to_map import ZeroLayerNorm
from rstg_pyg.blocks.volume_pool import VolumePool, as_clip, masked_readout, step_mean
from rstg_pyg.conv import RSTGConv
from rstg_pyg.ops.frames import check_mask
from rstg_pyg.recurrence import RSTG
from rstg_pyg.recurrence.rstg import SPACE


class RSTGToVec(RegionBlock):
    r"""From a clip's feature volume to one vector, at the end of a backbone: the sum over all nodes at the last time
    step, RSTG-to-vec of "Recurrent Space-time Graph Neural Networks" (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019,
    `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_).

    .. math::
        \mathbf{z} = \sum_i \mathbf{h}_i^{T,K} \qquad \text{or, with readout="mean",} \qquad
        \mathbf{z} = \frac{1}{T} \sum_t \sum_i \mathbf{h}_i^{t,K}

    ``step`` takes a stream's next frame and returns what ``forward`` returns for all frames up to it.

    Args:
        in_channels: Size C of the volume's features.
        channels: Size G of the graph's features (default: C).
        readout: ``"last"`` or ``"mean"`` over time (default: ``"mean"`` for forms without memory, else ``"last"``).
        **kwargs: ``scales``, ``heatmap_size``, ``input_norm``; ``checkpoint=True``, which in training runs the graph
            twice to save memory; and the arguments of :class:`~rstg_pyg.RSTG` (``num_stages``, ``rnn``, ``stages``,
            ...) and :class:`~rstg_pyg.RSTGConv` (``heads``, ``attention``, ...).

    Shapes:
        - **forward:** ``[B, C, T, H, W] -> [B, G]``; with ``return_attention_weights``,
          ``([B, G], [(edge_index, alpha [E, B, T, heads]), ...])`` with a pair per space stage; with a ``mask [B, T]``,
          bool, of the frames that each clip has.
        - **step:** ``[B, C, H, W], state -> ([B, G], state)``, with a ``mask [B]`` of the clips that have the frame.

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
        self.formula["readout"] = readout

    def _read_out(self, x: Tensor, volume: Tensor, mask: OptTensor = None) -> Tensor:
        if mask is not None:
            return masked_readout(x.sum(0), mask, self.readout)
        return x[:, :, -1].sum(0) if self.readout == "last" else x.sum(0).mean(1)

    def step(self, frame: Tensor, state: Any = None, mask: OptTensor = None) -> tuple[Tensor, Any]:
        """Take the next frame of a stream and the state that the frame before it returned (None at the start).

        With ``readout="mean"`` the state is the graph's, the mean in float32 or wider, and the number of frames. Else
        it is the graph's; with a mask, which then every frame of the stream needs, the graph's and the last vectors.
        """
        clip = as_clip(self, frame)
        if self.readout == "mean":
            return step_mean(self, clip, state, mask)
        # The graph's own state holds entries of one kind.
        pair = state if isinstance(state, tuple) and len(state) == 2 else (None, None)
        has_vectors = isinstance(pair[0], tuple) and isinstance(pair[1], Tensor)
        if state is not None and has_vectors != (mask is not None):
            got = "none after frames with one" if mask is None else f"one with a state of {describe(state)}"
            raise ValueError(f"expected a mask in every frame of a stream or in none, got {got}")
        if mask is None:
            return self._vector(clip, state)
        mask, held = check_mask(mask, frame.shape[:1], frame), None
        if state is not None:
            state, held = state
            shape = [frame.size(0), self.channels]
            check_memory("the second entry of the state", held, ["the last vectors"], shape, frame.device)
        vector, state = self._vector(clip, state, mask.unsqueeze(1))
        vector = torch.where(mask.unsqueeze(1), vector, 0 if held is None else held)
        return vector, (state, vector.clone())

    def _vector(self, clip: Tensor, state: Any, mask: OptTensor = None) -> tuple[Tensor, Any]:
        x, state = self.run(clip, state, mask=mask)
        return x[:, :, -1].sum(0), state


class RSTGPool(Module):
    r"""From a feature volume to one vector, in place of a network's average pool: the mean of the volume, plus what
    :class:`~rstg_pyg.RSTGToVec` makes of it. So the authors of "Recurrent Space-time Graph Neural Networks"
    (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019, `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_) end C2D and I3D
    in their program.

    .. math::
        \mathbf{z} = \frac{1}{THW} \sum_{t,y,x} \mathbf{F}_{t,y,x}
        + \mathrm{LayerNorm}\left( \mathbf{W} \sum_i \mathbf{h}_i^{T,K} + \mathbf{b} \right)

    The weight and the bias of the layer norm start at zero, so the network computes what it did before until they are
    trained. ``step`` takes a stream's next frame and returns what ``forward`` returns for all frames up to it.

    Args:
        in_channels: Size C of the volume's features.
        channels: Size G of the graph's features (default: C).
        **kwargs: Arguments of :class:`~rstg_pyg.RSTGToVec`.

    Shapes:
        - **forward:** ``[B, C, T, H, W] -> [B, C]``; with ``return_attention_weights``,
          ``([B, C], [(edge_index, alpha [E, B, T, heads]), ...])`` with a pair per space stage; with a ``mask [B, T]``,
          bool, of the frames that each clip has.
        - **step:** ``[B, C, H, W], state -> ([B, C], state)``, with a ``mask [B]`` of the clips that have the frame.

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

    @overload
    def forward(
        self, volume: Tensor, *, return_attention_weights: Literal[False] | None = None, mask: OptTensor = None
    ) -> Tensor: ...
    @overload
    def forward(
        self, volume: Tensor, *, return_attention_weights: Literal[True], mask: OptTensor = None
    ) -> tuple[Tensor, Attention]: ...
    def forward(self, volume: Tensor, *, return_attention_weights: bool | None = None, mask: OptTensor = None) -> Any:
        if return_attention_weights:
            vector, attention = self.to_vec(volume, return_attention_weights=True, mask=mask)
            return self._sum(self.pool(volume, mask), vector), attention
        return self._sum(self.pool(volume, mask), self.to_vec(volume, mask=mask))

    def step(self, frame: Tensor, state: Any = None, mask: OptTensor = None) -> tuple[Tensor, Any]:
        """Take the next frame of a stream and the state that the frame before it returned (None at the start)."""
        if state is not None:
            check_entries(state, 2)
        graph_state, mean_state = (None, None) if state is None else state
        vector, graph_state = self.to_vec.step(frame, graph_state, mask)
        mean, mean_state = self.pool.step(frame, mean_state, mask)
        return self._sum(mean, vector), (graph_state, mean_state)

    def _sum(self, mean: Tensor, vector: Tensor) -> Tensor:
        return mean + self.norm(self.lin_out(vector)).to(mean.dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, {self.to_vec.channels}, scales={self.to_vec.pool.scales})"
