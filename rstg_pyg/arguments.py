"""Checks of single arguments that every constructor needs, with one wording for all."""

import difflib
from collections.abc import Collection, Sequence
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
        near = difflib.get_close_matches(str(value), names, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"expected {what} to be one of {', '.join(names)}, got {value!r}{hint}")
