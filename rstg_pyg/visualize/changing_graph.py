"""A graph that changes, in motion: who is there, the edges of the frame, and their attention."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from rstg_pyg.arguments import check_positive, describe, num_dims
from rstg_pyg.ops import FrameIndex, GraphIndex
from rstg_pyg.visualize.animation import movie_writer, saving
from rstg_pyg.visualize.regions import THICKEST, THINNEST
from rstg_pyg.visualize.sheet import COLOURS, FAINT, INK, MUTED, TRUE, WRONG, Sheet, title_height, wrapped

SIDE, MARGIN, LINE = 4.6, 0.15, 0.3
"""Inches: the longer side of the plane, around everything, the line of time."""

LARGEST = 1 << 20
"""Edges and node frames that are drawn at most: more take minutes and cannot be told apart."""


def animate_graph(
    position: Tensor,
    edge_index: Tensor,
    path: str | os.PathLike,
    edge_time: Tensor | None = None,
    mask: Tensor | None = None,
    alpha: Tensor | None = None,
    truth: Tensor | None = None,
    predicted: Tensor | None = None,
    trail: int = 6,
    fps: float = 5,
    title: str | None = None,
    dpi: float = 90,
) -> None:
    """Write a graph whose nodes move as a moving picture: the nodes that are there, the way that each came, and the
    edges of the frame, wider and darker with more attention.

    Args:
        position: Where the nodes are.
        edge_index: Edges, of a frame or with ``edge_time`` of all.
        path: Where to write: a GIF, or an MP4 where its name ends in ``.mp4``; that needs the program ffmpeg. After an
            error, what was there before still is.
        edge_time: The frame of every edge; None where each serves every frame.
        mask: Where a node is there; None for everywhere.
        alpha: Attention weights as :class:`~rstg_pyg.RSTG` returns them, heads included; None to draw all edges alike.
        truth: Which edges there really are, for ``alpha`` that are probabilities: dotted where they are, and over that
            as dark as their probability, in green, or in red where there is none.
        predicted: Where a model took the nodes to be, drawn as rings; NaN in frames of which it said nothing.
        trail: How many frames of a node's way are drawn.
        fps: Frames per second; above 50, some are left out of a GIF, which plays as long.
        title: Above the picture.
        dpi: Pixels per inch; the picture is about 5 inches wide.

    Shapes:
        - **position, predicted:** ``[N, T, 2]``. **edge_index:** ``[2, E]``. **edge_time:** ``[E]``.
        - **mask:** ``[N, T]`` bool. **truth:** ``[E]`` bool.
        - **alpha:** ``[E, T, heads]``, or with ``edge_time`` ``[E, heads]``.

    Raises:
        ValueError: If the shapes do not fit each other, a number is not positive, or ``path`` ends in something else.
        RuntimeError: If an MP4 is asked for and ffmpeg is not there.
        FileNotFoundError: If there is no such folder.

    Source: the attention of "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> import torch
        >>> from rstg_pyg import RSTG
        >>> from rstg_pyg.visualize import animate_graph
        >>> position, edges = torch.rand(5, 4, 2).cumsum(1), torch.randint(5, (2, 20))
        >>> edge_time, mask = torch.randint(4, (20,)), torch.rand(5, 4) < 0.8
        >>> rstg = RSTG(2, num_stages=1, heads=2)
        >>> _, _, [(_, alpha)] = rstg(
        ...     position, edges, edge_time=edge_time, mask=mask, return_attention_weights=True
        ... )
        >>> animate_graph(position, edges, "graph.gif", edge_time, mask, alpha)
    """
    if num_dims(position) != 3 or position.size(2) != 2 or 0 in position.shape:
        raise ValueError(f"expected 'position' of shape [N, T, 2], got {describe(position)}")
    check_positive(trail=trail)
    position = position.detach().float().cpu()
    edge_time, mask = (None if value is None else value.cpu() for value in (edge_time, mask))
    graph = GraphIndex(edge_index.cpu(), position.size(0))
    frames = FrameIndex(position.shape[:2], graph, edge_time, mask)
    number, place = frames.edges.number, frames.edges.place
    if max(number.size(0), frames.num_rows) > LARGEST:
        raise ValueError(f"expected at most {LARGEST} edges and node frames to draw, got {number.size(0)} edges")
    weight = torch.full(number.shape, 0.5)
    if alpha is not None:
        expected = [graph.num_edges, *([position.size(1)] if edge_time is None else [])]
        if num_dims(alpha) != len(expected) + 1 or list(alpha.shape[:-1]) != expected:
            raise ValueError(f"expected 'alpha' of shape {[*expected, 'heads']}, got {describe(alpha)}")
        alpha = alpha.detach().float().cpu().mean(-1)
        weight = alpha[number] if edge_time is not None else alpha[number, place]
    if truth is not None and (
        num_dims(truth) < 0 or truth.dtype != torch.bool or list(truth.shape) != [graph.num_edges]
    ):
        raise ValueError(f"expected a bool 'truth' of shape [{graph.num_edges}], got {describe(truth, typed=True)}")
    if predicted is not None:
        if predicted.shape != position.shape:
            raise ValueError(f"expected 'predicted' of shape {list(position.shape)}, got {describe(predicted)}")
        predicted = predicted.detach().float().cpu()
    path = Path(path)
    writer, shown = movie_writer(path, fps, dpi, position.size(1))
    picture = _Picture(position, frames.there(), predicted, title, trail)
    with saving(writer, picture.sheet.figure, path, dpi):
        for t in shown:
            now = place == t
            ends = graph.source[number[now]], graph.destination[number[now]]
            picture.show(t, *ends, weight[now], None if truth is None else truth.cpu()[number[now]])
            writer.grab_frame()


class _Picture:
    """The plane that the nodes move on, in equal units, and a line of time below it."""

    def __init__(
        self, position: Tensor, there: Tensor, predicted: Tensor | None, title: str | None, trail: int
    ) -> None:
        self.position, self.there, self.predicted, self.trail = position, there, predicted, trail
        shown = position[there]
        low, high = (shown.amin(0), shown.amax(0)) if len(shown) else (torch.zeros(2), torch.ones(2))
        span = (high - low).clamp(min=1e-6)
        room = 0.06 * float(span.max())
        self.limits = [(float(a) - room, float(b) + room) for a, b in zip(low, high, strict=True)]
        sides = [b - a for a, b in self.limits]
        width, height = (max(SIDE * side / max(sides), 1.2) for side in sides)
        full = max(width, 2.5) + 2 * MARGIN
        title = wrapped(title, full - 2 * MARGIN)
        top = MARGIN + title_height(title)
        self.sheet = Sheet(full, top + height + LINE)
        self.sheet.title(full / 2, title, ha="center")
        self.ax = self.sheet.axes((full - width) / 2, top, width, height)
        line = self.sheet.axes(MARGIN, top + height + 0.14, full - 2 * MARGIN - 0.55, 0.04)
        line.axis("off")
        line.set(xlim=(0, position.size(1)), ylim=(0, 1))
        line.barh(0.5, position.size(1), height=1, color=FAINT)
        (self.elapsed,) = line.barh(0.5, 0, height=1, color=MUTED)
        self.counter = self.sheet.text(full - MARGIN, top + height + 0.2, "", fontsize=7.5, color=MUTED, ha="right")

    def show(self, t: int, source: Tensor, destination: Tensor, weight: Tensor, truth: Tensor | None) -> None:
        from matplotlib.collections import LineCollection
        from matplotlib.colors import to_rgba

        ax, at, here = self.ax, self.position[:, t], self.there[:, t]
        ax.clear()
        ax.set(xlim=self.limits[0], ylim=self.limits[1], xticks=[], yticks=[], aspect="equal")
        for side in ax.spines.values():
            side.set_color(FAINT)
        apart = source != destination
        ends = torch.stack([at[source], at[destination]], 1)[apart]
        if truth is None:
            share = (weight[apart] / weight.max().clamp(min=1e-12) if len(weight) else weight[apart]).clamp(0, 1)
            colours = [to_rgba(MUTED, 0.15 + 0.65 * float(one)) for one in share]
        else:
            share, really = weight[apart].clamp(0, 1), truth[apart].tolist()
            colours = [to_rgba(TRUE if is_one else WRONG, float(p)) for p, is_one in zip(share, really, strict=True)]
            lines = LineCollection(ends[really].numpy(), linewidths=0.8, colors=MUTED, linestyles=":", zorder=1)
            ax.add_collection(lines)
        widths = THINNEST + (THICKEST - THINNEST) * share.square()
        ax.add_collection(LineCollection(ends.numpy(), linewidths=widths.numpy(), colors=colours, zorder=1))
        for before in range(max(0, t - self.trail), t):
            both = self.there[:, before] & self.there[:, before + 1]
            ways = self.position[both][:, before : before + 2]
            age = 1 - (t - before) / (self.trail + 1)
            lines = LineCollection(ways.numpy(), linewidths=1.6, colors=[to_rgba(COLOURS[0], age)], zorder=2)
            ax.add_collection(lines)
        ax.scatter(*at[here].T.numpy(), s=34, color=COLOURS[0], edgecolors=INK, linewidths=0.6, zorder=3)
        if self.predicted is not None:
            ax.scatter(*self.predicted[here, t].T.numpy(), s=90, facecolors="none", edgecolors=COLOURS[4], zorder=4)
        self.elapsed.set_width(t + 1)
        self.counter.set_text(f"{t + 1} / {self.position.size(1)}")
