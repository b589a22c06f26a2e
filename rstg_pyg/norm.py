"""Normalisations that a stage's input can take."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import BatchNorm1d, LayerNorm, Module, SyncBatchNorm

from rstg_pyg.watched import is_bare

Norm = str | Callable[[int], Module] | None
"""``"layer_norm"``, ``"batch_norm"``, a function from the number of channels to a module, or None."""


class ChannelBatchNorm(BatchNorm1d):
    """:class:`torch.nn.BatchNorm1d` over the last dimension of ``[*, C]``: every other dimension is a sample.

    Its training-mode statistics run over nodes, frames and clips alike; in evaluation mode it is a fixed affine map.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, x.size(-1))).view(x.shape)


def normalised(norm: Module | None, x: Tensor) -> Tensor:
    """Apply a normalisation of ``[*, C]``, or none. What :class:`torch.nn.SyncBatchNorm` puts in the place of
    :class:`ChannelBatchNorm` takes the second dimension for channels, so it gets two."""
    if norm is None:
        return x
    return norm(x.reshape(-1, x.size(-1))).view(x.shape) if isinstance(norm, SyncBatchNorm) else norm(x)


def layer_norm_of(norm: Module | None, x: Tensor) -> tuple[Any, float] | None:
    """The weight and bias of a layer norm of ``x [*, C]``, and its eps; ``(None, 0.0)`` of no norm; None of another."""
    if norm is None:
        return None, 0.0
    if not is_bare(norm, LayerNorm) or norm.normalized_shape != x.shape[-1:]:
        return None
    return (norm.weight, norm.bias), norm.eps


_NAMED = {"layer_norm": LayerNorm, "batch_norm": ChannelBatchNorm}


def resolve_norm(norm: Norm, channels: int, name: str = "norm") -> Module | None:
    """Build a normalisation of ``[*, channels]``, or None.

    Raises:
        ValueError: If ``norm`` is an unknown name, makes no module, or the number of channels is not known yet.
    """
    if norm is None:
        return None
    if channels < 1:
        raise ValueError(f"expected 'in_channels' to be given where {name!r} is set, got in_channels={channels}")
    if isinstance(norm, str):
        if norm not in _NAMED:
            raise ValueError(f"expected {name!r} to be one of {sorted(_NAMED)}, a function or None, got {norm!r}")
        return _NAMED[norm](channels)
    module = norm(channels) if callable(norm) and not isinstance(norm, Module) else None
    if not isinstance(module, Module):
        raise ValueError(
            f"expected {name!r} to be one of {sorted(_NAMED)}, None, or a function from the number of channels to a "
            f"module, got {norm!r}"
        )
    return module
