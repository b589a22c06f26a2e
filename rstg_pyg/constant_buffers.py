"""Buffers that follow from a module's arguments, so that no state dict holds them."""

from torch import Tensor
from torch.nn import Module


class ConstantBuffers(Module):
    r"""A module whose constants move with it and are made anew by :meth:`reset_buffers`.

    What builds a module on the meta device leaves memory that nobody wrote where buffers stood, and no checkpoint
    mends those. ``reset_parameters`` includes them; a ``_init_weights`` of transformers, which must not touch weights
    that are loaded, calls ``reset_buffers`` alone.

    Example:
        >>> import torch
        >>> from rstg_pyg import RegionPool
        >>> with torch.device("meta"):
        ...     pool = RegionPool((2, 1))
        >>> pool.to_empty(device="cpu").reset_buffers()
        >>> pool(torch.ones(1, 1, 4, 4)).flatten()
        tensor([1., 1., 1., 1., 1.])
    """

    def constants(self) -> dict[str, Tensor | None]:
        """Make the buffers, by name."""
        raise NotImplementedError

    def reset_buffers(self) -> None:
        r"""Make the constants anew, in their type and on their device; where that is meta, on the default device."""
        for name, value in self.constants().items():
            old = self._buffers.get(name)
            here = value is None or old is None or old.is_meta
            self.register_buffer(name, value if here else value.to(old), persistent=False)

    def reset_parameters(self) -> None:
        r"""Reset all learnable parameters and the constants."""
        for child in self.children():
            if hasattr(child, "reset_parameters"):
                child.reset_parameters()
        self.reset_buffers()
