"""What a forecaster is worth, node by node and over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rstg_pyg.arguments import describe, num_dims
from rstg_pyg.visualize.learning_curves import CURVES
from rstg_pyg.visualize.sheet import FAINT, INK, MUTED, Sheet, title_height, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 6.4, 2.6
"""Inches of the axes of a day."""
MAP, MARGIN, BAR = 5.2, 0.2, 0.12
"""Inches: the longer side of a map, around it, the width of its scale."""
MOST_NODES = 2_000
"""Whose places are found from all their distances."""


def place_nodes(edge_index: Tensor, length: Tensor, num_nodes: int) -> Tensor:
    r"""Lay out a graph in the plane so that distances are about those of shortest ways along its edges, by classical
    scaling: of :math:`-\frac{1}{2} \mathbf{J} \mathbf{D}^2 \mathbf{J}`, D the distances and J what takes away the mean,
    the two greatest eigenvectors. Parts that no edge joins are as far apart as the longest way.

    Args:
        edge_index: The edges, which lead both ways; of several between two nodes the shortest counts.
        length: Of every edge, 0 or more.
        num_nodes: Number N of nodes.

    Shapes:
        - **edge_index:** ``[2, E]``. **length:** ``[E]``. **output:** ``[N, 2]``.

    Raises:
        ValueError: If there are more than 2,000 nodes, or the shapes do not fit each other.

    Source: W. S. Torgerson, "Multidimensional scaling: I. Theory and method", Psychometrika 17, 1952.

    Example:
        >>> place = place_nodes(torch.tensor([[0, 1], [1, 2]]), torch.ones(2), 3)
        >>> (place[0] - place[2]).norm().round().item()
        2.0
    """
    if num_dims(length) != 1 or edge_index.shape != (2, length.size(0)) or num_nodes > MOST_NODES:
        raise ValueError(
            f"expected 'edge_index' [2, E] and 'length' [E] of at most {MOST_NODES:,} nodes, got "
            f"{describe(edge_index)}, {describe(length)} and {num_nodes:,}"
        )
    apart = torch.full((num_nodes**2,), torch.inf, dtype=torch.float64)
    pair = torch.arange(num_nodes**2).view(num_nodes, num_nodes)[tuple(edge_index)]
    apart = apart.scatter_reduce(0, pair, length.double(), "amin").view(num_nodes, num_nodes)
    apart = torch.minimum(apart, apart.T).fill_diagonal_(0)
    for middle in range(num_nodes):
        apart = torch.minimum(apart, apart[:, middle, None] + apart[None, middle])
    near = apart[apart.isfinite()]
    square = torch.where(apart.isfinite(), apart, near.max()).square()
    inner = -0.5 * (square - square.mean(0) - square.mean(1, keepdim=True) + square.mean())
    values, vectors = torch.linalg.eigh(inner)
    return (vectors[:, -2:] * values[-2:].clamp(min=0).sqrt()).flip(1).float()


def draw_node_errors(
    error: Tensor, position: Tensor, edge_index: Tensor, title: str | None = None, label: str = "error"
) -> Figure:
    """Draw a graph with the error of every node as the size and the colour of its dot.

    Args:
        error: Of every node, 0 or more; without a dot where it is not finite.
        position: Where nodes are, as by :func:`place_nodes`.
        edge_index: The edges.
        title: Above the picture.
        label: What the scale says.

    Returns:
        A matplotlib figure; save it with ``figure.savefig(path)``.

    Shapes:
        - **error:** ``[N]``. **position:** ``[N, 2]``. **edge_index:** ``[2, E]``.

    Raises:
        ValueError: If the shapes do not fit each other.

    Example:
        >>> from rstg_pyg.visualize import draw_node_errors
        >>> draw_node_errors(torch.rand(5), torch.rand(5, 2), torch.randint(5, (2, 8))).savefig("map.png")
    """
    from matplotlib.collections import LineCollection

    if num_dims(error) != 1 or num_dims(position) != 2 or position.shape != (error.size(0), 2):
        raise ValueError(f"expected 'error' [N] and 'position' [N, 2], got {describe(error)} and {describe(position)}")
    error, position = error.detach().float().cpu(), position.detach().float().cpu()
    span = (position.amax(0) - position.amin(0)).clamp(min=1e-6)
    width, height = (max(MAP * float(side / span.max()), 1.5) for side in span)
    title = wrapped(title, width + 1.0)
    top = MARGIN + title_height(title)
    sheet = Sheet(MARGIN + width + 1.0, top + height + MARGIN)
    sheet.title(MARGIN, title)
    ax = sheet.axes(MARGIN, top, width, height)
    ax.axis("off")
    ends = position[edge_index.cpu().T]
    ax.add_collection(LineCollection(ends.numpy(), linewidths=0.5, colors=MUTED, alpha=0.25, zorder=1))
    order = error.argsort()
    order = order[error[order].isfinite()]
    error = error[order]
    sizes = 8 + 70 * (error / error[-1:].clamp(min=1e-12))
    style = {"cmap": "plasma_r", "edgecolors": INK, "linewidths": 0.3, "zorder": 2, "vmin": 0}
    dots = ax.scatter(*position[order].T.numpy(), s=sizes.numpy(), c=error.numpy(), **style)
    ax.margins(0.04)
    scale = sheet.figure.colorbar(dots, cax=sheet.axes(MARGIN + width + 0.15, top + 0.1, BAR, height - 0.2))
    scale.outline.set_visible(False)
    scale.ax.tick_params(colors=MUTED, labelsize=8, length=2)
    scale.set_label(label, color=MUTED, fontsize=9)
    return sheet.figure


def draw_forecasts(
    time: Any,
    truth: Any,
    forecasts: Mapping[str, Any],
    title: str | None = None,
    xlabel: str = "time",
    ylabel: str = "value",
) -> Figure:
    """Draw one value over time, and what was predicted of it, each forecast where what it predicts came.

    Args:
        time: Rising numbers.
        truth: What came.
        forecasts: What was predicted, by name; NaN where nothing was.
        title: Above the picture.
        xlabel, ylabel: What the axes are.

    Returns:
        A matplotlib figure; save it with ``figure.savefig(path)``.

    Shapes:
        - **time, truth**, and each of **forecasts:** ``[T]``.

    Raises:
        ValueError: If the shapes do not fit each other.

    Example:
        >>> from rstg_pyg.visualize import draw_forecasts
        >>> draw_forecasts([0, 1, 2], [5.0, 6.0, 6.5], {"an hour before": [5.5, 5.5, 6.0]}).savefig("day.png")
    """
    given = (time, truth, *forecasts.values())
    time, truth, *others = (
        np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=float) for value in given
    )
    if time.ndim != 1 or any(value.shape != time.shape for value in (truth, *others)):
        raise ValueError(
            f"expected 'time', 'truth' and forecasts of one shape [T], got "
            f"{', '.join(str(list(value.shape)) for value in (time, truth, *others))}"
        )
    title = wrapped(title, WIDTH)
    top = 0.2 + title_height(title)
    sheet = Sheet(WIDTH + 0.95, top + HEIGHT + 0.75)
    sheet.title(0.7, title)
    ax = sheet.axes(0.7, top, WIDTH, HEIGHT)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(MUTED)
    ax.grid(axis="y", color=FAINT, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(colors=MUTED, labelsize=8.5, length=3)
    ax.plot(time, truth, color=INK, linewidth=1.8, label="what came")
    for number, (name, values) in enumerate(zip(forecasts, others, strict=True)):
        ax.plot(time, values, color=CURVES[-1 - number % len(CURVES)], linewidth=1.2, label=name)
    ax.set(xlim=(time[0], time[-1]) if len(time) > 1 else None)
    ax.set_xlabel(xlabel, color=MUTED, fontsize=9)
    ax.set_ylabel(ylabel, color=MUTED, fontsize=9)
    place = {"loc": "upper left", "bbox_to_anchor": (0, -0.17), "ncols": 1 + len(forecasts)}
    ax.legend(frameon=False, fontsize=8.5, labelcolor=MUTED, **place)
    return sheet.figure
