"""Buffers that follow from a module's arguments, so that no state dict holds them; and what follows from them."""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.weak import WeakIdKeyDictionary

from rstg_pyg.watched import everything_is_watched

_KEPT = WeakIdKeyDictionary()


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


def kept(constant: Tensor, key: Hashable, make: Callable[[], Any]) -> Any:
    """Return ``make()``, the last result again where ``constant``, from which it follows, and ``key`` are the same.

    Nothing is kept where operations are recorded rather than run (compilers, transforms, captures of CUDA graphs), nor
    of what :func:`torch.inference_mode` made, which does not tell when it is changed, nor of subclasses of Tensor.

    Example:
        >>> import torch
        >>> from rstg_pyg.constant_buffers import kept
        >>> edges = torch.tensor([2, 0, 1])
        >>> first = kept(edges, "sorted", lambda: edges.sort().values)
        >>> kept(edges, "sorted", lambda: edges.sort().values) is first
        True
        >>> edges[0] = 5
        >>> kept(edges, "sorted", lambda: edges.sort().values)
        tensor([0, 1, 5])
    """
    if torch.compiler.is_compiling() or type(constant) is not Tensor or constant.layout != torch.strided:
        return make()
    if constant.is_inference() or everything_is_watched():
        return make()
    if constant.is_cuda and torch.cuda.is_current_stream_capturing():
        return make()
    key = key, constant._version, constant.device, constant.data_ptr()  # The memory, for ``.data`` may exchange it.
    found = _KEPT.get(constant)
    if found is None or found[0] != key:
        with torch.inference_mode(False), torch.no_grad():
            found = _KEPT[constant] = key, make()
    return found[1]
