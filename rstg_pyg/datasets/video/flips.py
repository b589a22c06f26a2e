"""Which classes stay what they are in a mirror."""

from __future__ import annotations

import re
from collections.abc import Sequence

FLIPS = ("undirected", "swap", "never")
"""Forms of left-right flips in training:

- ``"undirected"``: only clips of classes whose name has neither the word "left" nor the word "right".
- ``"swap"``: also clips of the other classes whose mirror image is a class, and then the label is that class.
- ``"never"``: none.
"""

_SIDES = {"left": "right", "right": "left"}
_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def mirror_classes(classes: Sequence[str]) -> list[int | None]:
    r"""What every class is when the clip is flipped left to right.

    A class names a direction if the word "left" or "right" stands in its name; "upright" does not. The class in
    the mirror is then the one whose name has the two words exchanged:

    =========================================================  =====================================
    class                                                      in the mirror
    =========================================================  =====================================
    Pushing something from left to right                       Pushing something from right to left
    Turning the camera left while filming something            Turning the camera right while filming something
    Putting something upright on the table                     the same
    Moving something up                                        the same
    =========================================================  =====================================

    Args:
        classes (sequence): The names of the classes.

    Returns:
        list: For each class the number of its mirror image: its own if its name has no direction, :obj:`None` if
        there is no such class.

    Example:
        >>> mirror_classes(["From left to right", "From right to left", "Moving up", "Turning left", "Upright"])
        [1, 0, 2, None, 4]
    """
    numbers = {name.casefold(): number for number, name in enumerate(classes)}
    return [numbers.get(_mirrored(name).casefold()) for name in classes]


def _mirrored(name: str) -> str:
    return _SIDE.sub(lambda side: _SIDES[side[0].lower()], name)
