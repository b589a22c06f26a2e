"""Checks of arguments, inputs and states, with one wording for all layers."""

import difflib
import inspect
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module


def check_positive(**sizes: Any) -> None:
    """Raise unless every named size is a positive int."""
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"expected {name!r} to be a positive int, got {value!r}")


def whole_number(name: str, value: object, low: int, high: int | None = None) -> int:
    """Return ``value`` as an int; raise unless it is an integer within bounds."""
    span = f"an integer of at least {low}" if high is None else f"an integer within {low} to {high}"
    try:
        number = low - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = low - 1
    if number < low or (high is not None and number > high):
        raise ValueError(f"expected '{name}' to be {span}, got {value!r}")
    return number


def check_flags(**flags: Any) -> None:
    """Raise unless every named flag is True or False."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(f"expected {name!r} to be True or False, got {describe(value)}")


def check_share(name: str, value: Any) -> None:
    """Raise unless ``value`` is a number in [0, 1)."""
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"expected {name!r} in [0, 1), got {describe(value)}")


def num_dims(value: Any) -> int:
    """Number of dimensions of a dense tensor, -1 of anything else."""
    return value.dim() if isinstance(value, Tensor) and value.layout == torch.strided else -1


def is_integer(value: Tensor) -> bool:
    """Whether a tensor holds integers."""
    return not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)


def describe(value: Any, typed: bool = False) -> str:
    """What came, for an error: the shape of a tensor, what a sequence holds, the type of what is long to write.

    Floating point tensors are the usual ones and have no type but with ``typed``, where something else is expected.

    Example:
        >>> describe((torch.zeros(2, 3), torch.tensor(True), None))
        '([2, 3], torch.bool of shape [], None)'
        >>> describe(torch.zeros(2, 3), typed=True), describe([0.5, 1.0])
        ('torch.float32 of shape [2, 3]', 'a list (0.5, 1.0)')
    """
    if isinstance(value, Tensor):
        odd = None if value.is_floating_point() and not typed else value.dtype
        odd = odd if value.layout == torch.strided else value.layout
        return f"{list(value.shape)}" if odd is None else f"{odd} of shape {list(value.shape)}"
    if isinstance(value, list):
        rows = tuple(tuple(row) if isinstance(row, list) else row for row in value)
        return f"a list {'of ' if len(rows) > 4 else ''}{describe(rows, typed)}"
    if isinstance(value, tuple):
        parts = [describe(part, typed) for part in value[:4]]
        return f"({', '.join(parts)})" if len(value) <= 4 else f"{len(value)} entries"
    return repr(value) if value is None or isinstance(value, (int, float)) else type(value).__name__


def check_like(name: str, value: Tensor, layer: Module) -> None:
    """Raise where no weight of ``layer`` is on the device of ``value``, or none has its floating point type, but under
    autocast, which casts."""
    if value.is_floating_point() and torch.compiler.is_compiling():
        return
    weights = []
    for weight in layer.parameters():
        if is_like(value, weight):
            return
        weights.append(weight)
    # What moves weights from place to place leaves some on the meta device until they are called.
    devices = [weight.device for weight in weights if not weight.is_meta]
    if devices and value.device not in devices:
        raise ValueError(f"expected {name!r} on {devices[0]}, as the weights, got {value.device}")
    if value.is_floating_point() and autocasts(value.device.type):
        return
    wanted = next((weight.dtype for weight in weights if weight.is_floating_point()), None)
    fits = any(weight.dtype == value.dtype for weight in weights)
    if not fits and (wanted is not None or not value.is_floating_point()):
        like = "a floating point type" if wanted is None else f"type {wanted}, as the weights"
        raise ValueError(f"expected {name!r} of {like}, got {value.dtype}")


def is_like(value: Tensor, weight: Any) -> bool:
    """Whether ``weight`` is a tensor of the type of ``value``, and on its device."""
    return isinstance(weight, Tensor) and weight.dtype == value.dtype and weight.device == value.device


def check_device(x: Tensor, **given: Any) -> None:
    """Raise unless the given tensors are on the device of ``x``."""
    for name, value in given.items():
        if isinstance(value, Tensor) and value.device != x.device:
            raise ValueError(f"expected {name!r} on {x.device}, as 'x', got {value.device}")


def autocasts(device: str) -> bool:
    """Whether autocast is on for a kind of device, which may be one that has none."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def check_edges(edge_index: Any, form: str = "[2, num_edges]") -> None:
    """Raise unless ``edge_index`` is a tensor ``[2, num_edges]`` of integers."""
    if num_dims(edge_index) != 2 or edge_index.size(0) != 2 or not is_integer(edge_index):
        square = num_dims(edge_index) == 2 and edge_index.size(0) == edge_index.size(1)
        hint = " (dense_to_sparse(adj)[0]?)" if square else ""
        raise ValueError(f"expected integer 'edge_index' of shape {form}, got {describe(edge_index, typed=True)}{hint}")


def check_memory(what: str, memory: Any, names: Sequence[str], shape: Sequence[int], device: torch.device) -> None:
    """Raise unless ``memory`` is a floating point tensor of the shape on the device, or for several names a tuple of so
    many."""
    is_sequence = isinstance(memory, (tuple, list))
    parts = memory if is_sequence else (memory,)
    fit = [isinstance(p, Tensor) and p.is_floating_point() and list(p.shape) == list(shape) for p in parts]
    if is_sequence != (len(names) > 1) or len(parts) != len(names) or not all(fit):
        wanted = f"({', '.join(names)}), each" if len(names) > 1 else names[0]
        raise ValueError(f"expected {what} to be {wanted} of shape {list(shape)}, got {describe(memory)}")
    for part in parts:
        if part.device != device:
            raise ValueError(f"expected {what} on {device}, as the input, got {part.device}")


def check_entries(state: Any, number: int) -> None:
    """Raise unless ``state`` is a tuple of so many entries."""
    got = len(state) if isinstance(state, (tuple, list)) else type(state).__name__
    if got != number:
        raise ValueError(f"expected a state of {number} entries, got {got}")


def check_mean(state: Any, shape: Sequence[int], device: torch.device) -> None:
    """Raise unless ``state`` is that of a mean over a stream: None, or (state, mean of the shape, number of frames, of
    all clips or of each ``[B, 1]``)."""
    if state is not None:
        check_entries(state, 3)
        check_memory("the second entry of the state", state[1], ["a mean"], shape, device)
        count = state[2]
        if not isinstance(count, Tensor) or count.dtype != torch.int64 or count.shape not in ((), (shape[0], 1)):
            raise ValueError(
                f"expected the third entry of the state to be an int64 of shape [] or [{shape[0]}, 1], "
                f"got {describe(count, typed=True)}"
            )


def check_index(what: str, index: Any, count: int) -> None:
    """Raise where ``index``, or a number in a sequence, is that of none of ``count`` things, from either end."""
    if isinstance(index, (Tensor, np.ndarray)) and index.dtype not in (torch.bool, bool):
        index = index.flatten().tolist()
    for number in index if isinstance(index, (tuple, list)) else (index,):
        if isinstance(number, (int, np.integer)) and not -count <= number < count:
            raise IndexError(f"expected the number of a {what} within 0 to {count - 1}, got {number}")


def check_choice(name: str, value: Any, choices: Sequence[str], further: str = "") -> None:
    """Raise unless ``value`` is one of ``choices``; ``further`` says what else it may be."""
    if not isinstance(value, str) or value not in choices:
        choices = ", ".join([*map(repr, choices), *([further] if further else [])])
        raise ValueError(f"expected {name!r} to be one of {choices}, got {value!r}")


def check_name(what: str, value: Any, names: Collection[str]) -> None:
    """Raise unless ``value`` is one of many names; the error suggests the nearest."""
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"expected {what} to be one of {', '.join(names)}, got {value!r}{_near(value, names)}")


def check_options(layer: Any, options: Mapping[str, Any], *further: type) -> None:
    """Raise unless ``layer``, or one of the ``further`` classes that it hands its ``**kwargs`` to, takes each option.

    Options are the arguments with a default: those without one the layer fills in itself. Of what a class has in
    ``refused_options``, a dict to the reasons, none is taken.

    Example:
        >>> from torch_geometric.nn import GCNConv, MessagePassing
        >>> check_options(GCNConv(2, 2), {"flwo": "source_to_target"}, MessagePassing)
        Traceback (most recent call last):
        TypeError: expected an option of GCNConv, got 'flwo' (did you mean 'flow'?)
    """
    parts = (type(layer), *further)
    refused = {name: why for part in parts for name, why in getattr(part, "refused_options", {}).items()}
    known = {
        name: None
        for part in parts
        for cls in part.__mro__
        for name, argument in inspect.signature(cls.__init__).parameters.items()
        if argument.default is not argument.empty
    }
    for name, value in options.items():
        if name in refused:
            raise ValueError(f"expected no {name!r}: {refused[name]}, got {describe(value)}")
        if name not in known:
            hint = _near(name, known) or f", not one of {', '.join(name for name in known if name not in refused)}"
            raise TypeError(f"expected an option of {type(layer).__name__}, got {name!r}{hint}")


def _near(value: Any, names: Collection[str]) -> str:
    near = difflib.get_close_matches(str(value), names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
