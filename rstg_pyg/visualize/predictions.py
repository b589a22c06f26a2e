"""The most probable classes of a clip as a small list of bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from rstg_pyg.visualize.palette import FAINT, INK, MUTED, TRUE, WRONG

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIGN = " (true)"
CHARACTER, NUMBER = 0.068, 0.42
"""Inches that a character of a name and the column of probabilities need."""


def leading_classes(probabilities: Tensor, label: int | None, count: int = 3) -> list[int]:
    """Return the ``count`` most probable classes of ``[M]``, and the true one where it is not among them.

    Example:
        >>> import torch
        >>> from rstg_pyg.visualize.predictions import leading_classes
        >>> leading_classes(torch.tensor([0.1, 0.5, 0.0, 0.4]), label=2, count=2)
        [1, 3, 2]
    """
    leading = probabilities.topk(min(count, probabilities.numel())).indices.tolist()
    return leading if label is None or label in leading else [*leading, label]


def verdict_colour(predicted: int, label: int | None) -> str:
    """Return the colour of a prediction: right, wrong, or unknown."""
    if label is None:
        return INK
    return TRUE if predicted == label else WRONG


def list_width(names: Sequence[str]) -> float:
    """Return the inches that a list of classes needs, or gets where names are very long."""
    longest = max(map(len, names), default=0)
    return min(max(CHARACTER * (longest + len(SIGN)) + NUMBER, 1.2), 2.3)


def draw_predictions(
    ax: Axes, probabilities: Tensor, classes: Sequence[int], names: Sequence[str], label: int | None, rows: int
) -> None:
    """Draw a row per class: its name, its probability and a bar; the true class in a colour of its own.

    Shapes:
        - **probabilities:** ``[M]``. **rows:** number of rows that there is room for.
    """
    room = int((ax.get_position().width * ax.figure.get_figwidth() - NUMBER) / CHARACTER)
    ax.set(xlim=(0, 1), ylim=(rows, 0), xticks=[], yticks=[])
    ax.axis("off")
    for row, index in enumerate(classes):
        value, is_true = float(probabilities[index]), index == label
        colour = TRUE if is_true else MUTED
        style = {"fontsize": 7.5, "color": TRUE if is_true else INK, "weight": "bold" if is_true else "normal"}
        style["va"] = "baseline"
        name = _shortened(names[index], room - len(SIGN)) + SIGN if is_true else _shortened(names[index], room)
        ax.text(0, row + 0.56, name, **style)
        ax.text(1, row + 0.56, f"{value:.0%}", ha="right", **style)
        ax.barh(row + 0.76, 1, height=0.14, color=FAINT)
        ax.barh(row + 0.76, value, height=0.14, color=colour, alpha=1 if is_true else 0.75)


def _shortened(name: str, longest: int) -> str:
    return name if len(name) <= longest else name[: longest - 1].rstrip() + "…"
