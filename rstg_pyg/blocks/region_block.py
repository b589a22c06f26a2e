"""From a feature volume to recurrent nodes of its regions, in training with stages that run twice to save memory.

Shape legend: B clips, C channels of the volume, T frames, H x W pixels, N regions, G channels of the graph.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal, overload

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import Identity, Linear, Module
from torch.utils.checkpoint import checkpoint as run_twice
from torch_geometric.typing import OptTensor

from rstg_pyg.arguments import check_flags, check_options, check_positive
from rstg_pyg.blocks.volume_pool import check_volume
from rstg_pyg.constant_buffers import ConstantBuffers
from rstg_pyg.conv import RSTGConv
from rstg_pyg.formula import Formula
from rstg_pyg.norm import Norm, normalised, resolve_norm
from rstg_pyg.ops import FrameIndex, GraphIndex
from rstg_pyg.ops.frames import check_mask
from rstg_pyg.recurrence import RSTG
from rstg_pyg.recurrence.rstg import State
from rstg_pyg.regions import RegionPool, region_graph
from rstg_pyg.regions.cells import Scale
from rstg_pyg.watched import is_transformed

Attention = list[tuple[Tensor, Tensor]]
"""Of every space stage ``(edge_index [2, E], alpha [E, B, T, heads])``."""


class RegionBlock(Formula, ConstantBuffers):
    r"""From a feature volume to the nodes of its regions, after :class:`~rstg_pyg.RSTG` ran on them.

    With a ``mask [B, T]``, clips may be of different lengths or lack frames: where it is False, a frame is as if left
    out, whatever stands there. (Of the homogeneous form, the frame after it then hears none before.)

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
    refused_options: ClassVar = {
        "pe_channels": "it follows from heatmap_size (None for no positions)",
        "edge_dim": "the edges between regions have no features",
    }

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
        self.in_channels, self.channels = in_channels, channels
        self.heatmap_size = heatmap_size
        self.pool = RegionPool(scales)
        self.formula = {"scales": self.pool.scales}
        self.reset_buffers()
        self.lin_in = Identity() if channels == in_channels else Linear(in_channels, channels)
        self.input_norm = resolve_norm(input_norm, channels, "input_norm")
        graph_class = RecomputedRSTG if checkpoint else RSTG
        self.rstg = graph_class(channels, pe_channels=0 if self.heatmap is None else self.heatmap.size(1), **kwargs)

    def constants(self) -> dict[str, Tensor | None]:
        graph = region_graph(self.pool.scales, 1 if self.heatmap_size is None else self.heatmap_size)
        return {"edge_index": graph.edge_index, "heatmap": None if self.heatmap_size is None else graph.heatmap}

    def nodes(self, volume: Tensor, mask: OptTensor = None) -> Tensor:
        """Pool ``[B, C, T, H, W]`` to the graph's input ``[N, B, T, G]``; 0 in frames that are not there."""
        check_volume(self, volume)
        # Frame by frame, as backbones make them: with channels last nothing is reordered on the way.
        x = self.pool(volume.transpose(1, 2)).permute(2, 0, 1, 3)
        if mask is None:
            x = self.lin_in(x)
            return x if self.input_norm is None else normalised(self.input_norm, x)
        frames = FrameIndex(x.shape[:-1], mask=check_mask(mask, x.shape[1:-1], x).expand(x.shape[:-1]))
        return frames.put(normalised(self.input_norm, self.lin_in(frames.take(x))))

    @overload
    def run(
        self,
        volume: Tensor,
        state: State | None = None,
        return_attention_weights: Literal[False] | None = None,
        mask: OptTensor = None,
    ) -> tuple[Tensor, State]: ...
    @overload
    def run(
        self,
        volume: Tensor,
        state: State | None = None,
        *,
        return_attention_weights: Literal[True],
        mask: OptTensor = None,
    ) -> tuple[Tensor, State, Attention]: ...
    def run(
        self,
        volume: Tensor,
        state: State | None = None,
        return_attention_weights: bool | None = None,
        mask: OptTensor = None,
    ) -> Any:
        """Return what :class:`~rstg_pyg.RSTG` returns for a volume: nodes ``[N, B, T, G]``, state, attention."""
        x = self.nodes(volume, mask)
        return self.rstg(
            x,
            GraphIndex(self.edge_index, x.size(0), self.rstg._flow, is_constant=True),
            pe=self.heatmap,
            state=state,
            return_attention_weights=return_attention_weights,
            mask=None if mask is None else mask.expand(x.shape[:-1]),
        )

    @overload
    def forward(
        self, volume: Tensor, *, return_attention_weights: Literal[False] | None = None, mask: OptTensor = None
    ) -> Tensor: ...
    @overload
    def forward(
        self, volume: Tensor, *, return_attention_weights: Literal[True], mask: OptTensor = None
    ) -> tuple[Tensor, Attention]: ...
    def forward(self, volume: Tensor, *, return_attention_weights: bool | None = None, mask: OptTensor = None) -> Any:
        x, _, *attention = self.run(volume, None, return_attention_weights, mask)
        out = self._read_out(x, volume, mask)
        return (out, *attention) if return_attention_weights else out

    def _read_out(self, x: Tensor, volume: Tensor, mask: OptTensor = None) -> Tensor:
        """Return what the block makes of the nodes ``[N, B, T, G]`` and the volume that they came from."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.channels}, scales={self.pool.scales})"


class RecomputedRSTG(RSTG):
    r"""A :class:`~rstg_pyg.RSTG` that in training keeps what goes into its stages alone, as "Training Deep Nets with
    Sublinear Memory Cost" (Chen, Xu, Zhang, Guestrin, 2016, `arXiv:1604.06174 <https://arxiv.org/abs/1604.06174>`_).

    The backward pass runs a stage once more, goes through it and forgets it again. Names of weights, outputs and
    gradients are those of :class:`~rstg_pyg.RSTG`.
    """

    def _index(self, edge_index: Any, num_nodes: int) -> Any:
        index = super()._index(edge_index, num_nodes)
        if torch.compiler.is_compiling() and isinstance(index, GraphIndex):
            index.by_source  # noqa: B018  A stage that is run twice may change nothing outside: the index sorts now.
        return index

    def _stage_modules(self) -> list[tuple[str, Any]]:
        stages = super()._stage_modules()
        if not (self.training and torch.is_grad_enabled()):
            return stages
        return [(stage, partial(run_recomputed, module)) for stage, module in stages]


def run_recomputed(module: Module, *args: Any, **kwargs: Any) -> Any:
    r"""Return ``module(*args, **kwargs)``, and run it again in the backward pass instead of keeping what it makes.

    The second run draws the random numbers of the first, has the parameters of the first, which
    :func:`torch.func.functional_call` may have lent to it, and works on copies of the buffers that the first began
    with, so that running statistics of batch norms move once. Hooks on the module are called by both runs.

    Under a compiler a module with buffers runs as it is, as does everything under the transforms of :mod:`torch.func`,
    which take no hooks on what autograd keeps.
    """
    is_compiling, buffers = torch.compiler.is_compiling(), dict(module.named_buffers())
    if is_transformed() or (buffers and is_compiling):
        return module(*args, **kwargs)
    if is_compiling:  # Parameters are inputs of compiled code, lent ones too.
        return run_twice(module, *args, use_reentrant=False, **kwargs)
    buffers = {name: buffer.clone() for name, buffer in buffers.items()}
    parameters, has_run = dict(module.named_parameters()), False

    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal has_run
        if not has_run:
            has_run = True
            return module(*args, **kwargs)
        own = dict(module.named_parameters())
        first = {name: value for name, value in parameters.items() if value is not own.get(name)}
        first.update((name, buffer.clone()) for name, buffer in buffers.items())
        return functional_call(module, first, args, kwargs) if first else module(*args, **kwargs)

    return run_twice(run, *args, use_reentrant=False, **kwargs)
