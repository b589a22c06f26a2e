"""The authors' normalisations, with their axes, constants and running statistics.

Nodes and messages have one layout, ``[B, T, *, C]``: clips, frames, any number of node axes, channels.
"""

from typing import Any

import torch
from torch import Tensor, nn

TF_BATCH_NORM_EPS = 1e-3
TF_BATCH_NORM_DECAY = 0.99
TF_LAYER_NORM_EPS = 1e-12


class WholeSampleLayerNorm(nn.Module):
    r"""Layer norm over the channels *and* the axes in front of them.

    .. math::
        y = \gamma \odot \frac{x - \mu}{\sqrt{\sigma^2 + 10^{-12}}} + \beta

    with :math:`\mu` and the biased :math:`\sigma^2` taken over the last ``num_axes`` axes together, and :math:`\gamma,
    \beta` one number per channel. For nodes of a frame (``[B, T, N, C]``) that is 2 axes, for messages of a frame
    (``[B, T, N, N, C]``) 3, for the node input, whose statistics run over time as well, 3.

    Args:
        channels: Width of the last axis.
        num_axes: How many trailing axes share their statistics.

    Shapes:
        - **input, output:** ``[*, C]`` with at least ``num_axes`` axes.

    Source: program of Nicolicioiu, Duta, Leordeanu (IuliaDuta/RSTG at 788a7a3); departure 10.

    Example:
        >>> WholeSampleLayerNorm(16, num_axes=2)(torch.randn(2, 5, 14, 16)).shape
        torch.Size([2, 5, 14, 16])
    """

    def __init__(self, channels: int, num_axes: int) -> None:
        super().__init__()
        self.num_axes = num_axes
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the gain to 1 and the bias to 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape[-self.num_axes :]
        normalised = nn.functional.layer_norm(x, shape, eps=TF_LAYER_NORM_EPS)
        return normalised * self.weight + self.bias

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, num_axes={self.num_axes}"


class ProgramBatchNorm(nn.Module):
    r"""Batch norm that counts every frame as one use of the layer, as a loop over frames would.

    .. math::
        y = \gamma \odot \frac{x - \mu}{\sqrt{\sigma^2 + 10^{-3}}} + \beta, \qquad
        \bar\mu \leftarrow 0.99\,\bar\mu + 0.01\,\mu, \quad
        \bar\sigma^2 \leftarrow 0.99\,\bar\sigma^2 + 0.01\,\sigma^2

    In training mode :math:`\mu, \sigma^2` are the frame's own (biased) statistics over clips and node axes. The running
    ones take one update per frame, first frame first, all in one call. The program runs those updates unordered; this
    is one of its possible orders.

    Args:
        channels: Width of the last axis.
        per_frame: False takes all frames as one use of the layer (the node input's norm).
        unbiased: Whether the running variance takes the unbiased variance. The program's framework does so for inputs
            of four axes (node input; messages of a frame), and takes the biased one for three (nodes of a frame).

    Shapes:
        - **input, output:** ``[B, T, *, C]``.

    Source: program (IuliaDuta/RSTG at 788a7a3); departures 1 and 10.

    Example:
        >>> ProgramBatchNorm(16).eval()(torch.randn(2, 5, 14, 16)).shape
        torch.Size([2, 5, 14, 16])
    """

    def __init__(self, channels: int, per_frame: bool = True, unbiased: bool = True) -> None:
        super().__init__()
        self.per_frame = per_frame
        self.unbiased = unbiased
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.register_buffer("running_mean", torch.empty(channels))
        self.register_buffer("running_var", torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set gain and running variance to 1, bias and running mean to 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        self.running_mean.zero_()
        self.running_var.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            inner = tuple(range(2, x.dim() - 1))
            axes = (0, *inner) if self.per_frame else (0, 1, *inner)
            var, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
            self._update_running(mean, var, uses=x.size(1) if self.per_frame else 1, size=x.numel())
        else:
            mean, var = self.running_mean, self.running_var
        scale = torch.rsqrt(var + TF_BATCH_NORM_EPS) * self.weight
        return (x - mean) * scale + self.bias

    @torch.no_grad()
    def _update_running(self, mean: Tensor, var: Tensor, uses: int, size: int) -> None:
        channels = self.weight.numel()
        count = size // (uses * channels)
        if self.unbiased and count > 1:
            var = var * (count / (count - 1))
        steps = torch.arange(uses - 1, -1, -1, device=mean.device, dtype=mean.dtype)
        weights = (1 - TF_BATCH_NORM_DECAY) * TF_BATCH_NORM_DECAY**steps
        for running, fresh in ((self.running_mean, mean), (self.running_var, var)):
            running.mul_(TF_BATCH_NORM_DECAY**uses)
            running.add_((weights @ fresh.reshape(uses, channels)).to(running.dtype))

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, per_frame={self.per_frame}, unbiased={self.unbiased}"


class AfterGraphNorm(nn.Module):
    r"""Layer norm over everything but the batch, then a gain that starts at zero.

    .. math::
        y = s \odot \Big(\frac{x - \mu}{\sqrt{\sigma^2 + 10^{-12}}} + \beta\Big)

    with :math:`s` and :math:`\beta` one number per channel. The zero makes a network that takes the branch in compute
    what it did before, until it is trained.

    Args:
        channels: Width of the features.

    Shapes:
        - **input, output:** ``[B, C, *]``, maps ``[B, C, T, H, W]`` or vectors ``[B, C]``.

    Source: program (IuliaDuta/RSTG at 788a7a3), departure 15.

    Example:
        >>> AfterGraphNorm(16)(torch.randn(2, 16)).abs().max().item()
        0.0
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set gain and bias to 0."""
        nn.init.zeros_(self.scale)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        normalised = nn.functional.layer_norm(x, x.shape[1:], eps=TF_LAYER_NORM_EPS)
        per_channel = (-1,) + (1,) * (x.dim() - 2)
        return self.scale.view(per_channel) * (normalised + self.bias.view(per_channel))

    def extra_repr(self) -> str:
        return f"{self.scale.numel()}"


def stage_norm(norm: str | None, channels: int, node_axes: int) -> nn.Module:
    """The norm of one frame's nodes (``node_axes=1``) or messages (``node_axes=2``).

    Args:
        norm: None, ``"layer"`` or ``"batch"``.
        channels: Width of the last axis.
        node_axes: Axes between time and channels.

    Raises:
        ValueError: For another ``norm``.

    Example:
        >>> stage_norm("layer", 16, node_axes=2)
        WholeSampleLayerNorm(16, num_axes=3)
    """
    if norm is None:
        return nn.Identity()
    return _norm(norm, channels, node_axes + 1, unbiased=node_axes == 2)


def input_norm(norm: str | None, channels: int, batch_norm: bool) -> nn.Sequential:
    """The norms of the node input, whose statistics run over time too.

    Args:
        norm: None, ``"layer"`` or ``"batch"``, as in the stages.
        channels: Width of the last axis.
        batch_norm: Whether SyncMNIST's batch norm comes first.

    Raises:
        ValueError: For another ``norm``.
    """
    layers = nn.Sequential()
    if batch_norm:
        layers.add_module("batch_norm", ProgramBatchNorm(channels, per_frame=False))
    if norm is not None:
        layers.add_module("stage_norm", _norm(norm, channels, 3, per_frame=False))
    return layers


def _norm(norm: Any, channels: int, num_axes: int, **options: bool) -> nn.Module:
    if norm == "layer":
        return WholeSampleLayerNorm(channels, num_axes)
    if norm == "batch":
        return ProgramBatchNorm(channels, **options)
    raise ValueError(f"expected 'norm' to be None, 'layer' or 'batch', got {norm!r}")
