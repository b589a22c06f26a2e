"""Where people went, where they went next, where they were predicted to go, and whom they listened to."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module
from torch_geometric.data import Data

from rstg_pyg.arguments import describe
from rstg_pyg.recurrence import RSTG
from rstg_pyg.visualize.explanation import _evaluation, ask_attention
from rstg_pyg.visualize.regions import THICKEST, THINNEST
from rstg_pyg.visualize.sheet import COLOURS, FAINT, INK, MUTED, TRUE, Sheet, title_height, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE, MARGIN, GAP, LEGEND = 3.4, 0.15, 0.25, 0.3
"""Inches: a panel, around everything, between panels, the line that says what is what."""
PREDICTED = COLOURS[4]
LEAST_SHOWN = 0.05
"""Attention below it is not drawn."""


@dataclass(frozen=True)
class ForecastExplanation:
    """What a model made of one window, on the CPU.

    Attributes:
        window: The window.
        prediction: Predicted positions, ``[N, H, 2]``.
        alpha: Attention of the last space stage, the mean over heads, ``[E]``; None of a model without one.
    """

    window: Data
    prediction: Tensor
    alpha: Tensor | None


def explain_forecast(model: Module, window: Data) -> ForecastExplanation:
    """Run a model on a window and return what :func:`draw_trajectories` shows. It runs in evaluation mode, without
    gradients; afterwards every part of it is in the mode in which it was.

    Args:
        model: What is called as :class:`~rstg_pyg.models.Forecaster` is; its attention is found in the
            :class:`~rstg_pyg.RSTG` that ran last.
        window: An item of :class:`~rstg_pyg.datasets.Pedestrians`, or another window with ``edge_time``; without
            ``mask``, everyone is there in every frame.

    Example:
        >>> from rstg_pyg.datasets import Pedestrians
        >>> from rstg_pyg.training.pedestrians import tasks
        >>> from rstg_pyg.visualize import explain_forecast
        >>> task = tasks("data", source="simulated")["pedestrians-eth"]()
        >>> explanation = explain_forecast(task.module("all-temp-stages").model, task.test[0])
        >>> explanation.alpha.shape == explanation.window.edge_time.shape
        True
    """
    kept: list[Tensor] = []
    handles: list[Any] = []
    for module in model.modules():
        if isinstance(module, RSTG):
            handles += ask_attention(module, lambda stages: kept.extend(alpha for _, alpha in stages[-1:]))
    given = {name: window.get(name) for name in ("edge_time", "mask")}
    try:
        with _evaluation(model):
            prediction = model(window.x, window.edge_index, window.get("edge_attr"), window.get("pe"), **given)
    finally:
        for handle in handles:
            handle.remove()
    of_edges = [alpha.mean(-1).cpu() for alpha in kept if alpha.size(0) == window.num_edges]
    return ForecastExplanation(window.cpu(), prediction.cpu(), of_edges[-1] if of_edges else None)


def draw_trajectories(
    explanations: Sequence[ForecastExplanation], names: Sequence[str] | None = None, title: str | None = None
) -> Figure:
    """Draw windows side by side: the frames seen, those that came and those predicted, of everyone who is there in the
    last frame seen; and in that frame whom each listens to, as a line to the listener, wider with more attention.

    Args:
        explanations: From :func:`explain_forecast`.
        names: A line above each panel.
        title: A line above all.

    Returns:
        A matplotlib figure; save it with ``figure.savefig(path)``.

    Raises:
        ValueError: If there is no window, not one name for each, or positions are not in the plane.

    Example:
        >>> from rstg_pyg.datasets import Pedestrians
        >>> from rstg_pyg.training.pedestrians import tasks
        >>> from rstg_pyg.visualize import draw_trajectories, explain_forecast
        >>> task = tasks("data", source="simulated")["pedestrians-eth"]()
        >>> model = task.module("all-temp-stages").model
        >>> figure = draw_trajectories([explain_forecast(model, task.test[i]) for i in (0, 9)], title="untrained")
        >>> figure.savefig("trajectories.png")
    """
    count = len(explanations)
    if count == 0 or (names is not None and len(names) != count):
        raise ValueError(f"expected windows, and a name for each, got {count} and {describe(names)}")
    wrong = [shown.window.x for shown in explanations if shown.window.x.shape[2:] != (2,)]
    if wrong:
        raise ValueError(f"expected windows with 'x' of shape [N, T, 2], got {describe(wrong[0])}")
    width = 2 * MARGIN + count * SIDE + (count - 1) * GAP
    title = wrapped(title, width - 2 * MARGIN)
    top = MARGIN + title_height(title) + (0.22 if names is not None else 0)
    sheet = Sheet(width, top + SIDE + LEGEND)
    sheet.title(width / 2, title, ha="center")
    for number, shown in enumerate(explanations):
        left = MARGIN + number * (SIDE + GAP)
        ax = sheet.axes(left, top, SIDE, SIDE)
        if names is not None:
            sheet.text(left + SIDE / 2, top - 0.06, names[number], fontsize=9, color=INK, ha="center")
        _draw_window(ax, shown)
    kinds = [("seen", COLOURS[0]), ("came", TRUE), ("predicted", PREDICTED), ("listens to", MUTED)]
    for number, (name, colour) in enumerate(kinds):
        left = width / 2 + (number - 2) * 0.85
        sheet.text(left, top + SIDE + 0.12, "—", fontsize=12, color=colour, va="center", weight="bold")
        sheet.text(left + 0.2, top + SIDE + 0.12, name, fontsize=8, color=INK, va="center")
    return sheet.figure


def _draw_window(ax: Axes, shown: ForecastExplanation) -> None:
    from matplotlib.collections import LineCollection

    window = copy(shown.window)
    for name, mask in (("x", "mask"), ("y", "y_mask")):
        if mask not in window:
            window[mask] = torch.ones(window[name].shape[:2], dtype=torch.bool)
    place, here = window.x[:, -1], window.mask[:, -1]
    ways = {COLOURS[0]: _ways(window.x, window.mask), TRUE: _ways(*_from_last(window, window.y, window.y_mask))}
    predicted = here[:, None].expand(-1, shown.prediction.size(1))
    ways[PREDICTED] = _ways(*_from_last(window, shown.prediction, predicted))
    for layer, (colour, lines) in enumerate(ways.items()):
        style = (0, (3, 1.5)) if colour == PREDICTED else "solid"
        ax.add_collection(LineCollection(lines, colors=colour, linewidths=1.5, linestyles=style, zorder=3 + layer))
    if shown.alpha is not None:
        last = window.edge_time == window.x.size(1) - 1
        alpha, (speaker, listener) = shown.alpha[last], window.edge_index[:, last]
        for share, start, end in zip(alpha.tolist(), place[speaker].tolist(), place[listener].tolist(), strict=True):
            if share >= LEAST_SHOWN:
                look = {"linewidth": THINNEST + (THICKEST - THINNEST) * share, "color": MUTED, "alpha": 0.55}
                arrow = {"arrowstyle": "-|>", "shrinkA": 3, "shrinkB": 4, "connectionstyle": "arc3,rad=0.18", **look}
                ax.annotate("", end, start, arrowprops=arrow, zorder=2)
    ax.scatter(*place[here].T.numpy(), s=22, color=COLOURS[0], edgecolors=INK, linewidths=0.6, zorder=7)
    corners = torch.cat([window.x[window.mask], window.y[window.y_mask], shown.prediction[here].flatten(0, 1)])
    low, high = corners.amin(0), corners.amax(0)
    # Equal units, and the same room for every window.
    half = 0.54 * float((high - low).max().clamp(min=1))
    (x, y) = ((low + high) / 2).tolist()
    ax.set(xlim=(x - half, x + half), ylim=(y - half, y + half), xticks=[], yticks=[], aspect="equal")
    metres = 1 if half < 4 else 2 if half < 10 else 5
    ax.plot([x - 0.92 * half, x - 0.92 * half + metres], [y - 0.93 * half] * 2, color=INK, linewidth=1.5)
    ax.text(x - 0.92 * half, y - 0.88 * half, f"{metres} m", fontsize=7, color=INK)
    for side in ax.spines.values():
        side.set_color(FAINT)


def _from_last(window: Data, places: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Frames to come, with the last one seen before them."""
    return torch.cat([window.x[:, -1:], places], 1), torch.cat([window.mask[:, -1:], mask], 1)


def _ways(places: Tensor, mask: Tensor) -> list[Any]:
    """The steps from one frame to the next of those who are there in both, ``[S, 2, 2]``."""
    steps = torch.stack([places[:, :-1], places[:, 1:]], 2)
    return list(steps[mask[:, :-1] & mask[:, 1:]].numpy())
