"""Checks of single arguments that every constructor needs, with one wording for all."""

import difflib
import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any


def check_positive(**sizes: Any) -> None:
    """Raise unless every named size is a positive int."""
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"expected {name!r} to be a positive int, got {value!r}")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"expected {name!r} to be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_name(what: str, value: Any, names: Collection[str]) -> None:
    """Raise unless ``value`` is one of many names; the error suggests the nearest."""
    if value not in names:
        raise ValueError(f"expected {what} to be one of {', '.join(names)}, got {value!r}{_near(value, names)}")


def check_options(layer: Any, options: Mapping[str, Any], *further: type) -> None:
    """Raise unless ``layer``, or one of the ``further`` classes that it hands its ``**kwargs`` to, knows each option.

    Options are the arguments with a default: those without one the layer fills in itself.

    Example:
        >>> from torch_geometric.nn import GCNConv, MessagePassing
        >>> check_options(GCNConv(2, 2), {"flwo": "source_to_target"}, MessagePassing)
        Traceback (most recent call last):
        TypeError: expected an option of GCNConv, got 'flwo' (did you mean 'flow'?)
    """
    known = {
        name: None
        for part in (type(layer), *further)
        for cls in part.__mro__
        for name, argument in inspect.signature(cls.__init__).parameters.items()
        if argument.default is not argument.empty
    }
    for name in options:
        if name not in known:
            hint = _near(name, known) or f", not one of {', '.join(known)}"
            raise TypeError(f"expected an option of {type(layer).__name__}, got {name!r}{hint}")


def _near(value: Any, names: Collection[str]) -> str:
    near = difflib.get_close_matches(str(value), names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
