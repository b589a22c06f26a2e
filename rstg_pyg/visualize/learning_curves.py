"""Accuracy over training, several models in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rstg_pyg.visualize.sheet import FAINT, MUTED, Sheet, title_height, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Run = tuple[Any, Any]
"""Numbers of clips and the accuracies after them, two arrays of one length."""

CURVES = (
    *("#8a8f98", "#b8860b", "#8c564b", "#e377c2", "#56a3d9"),
    *("#8e6bbf", "#d1495b", "#e07b00", "#009e73", "#1f3a93"),
)
"""Colours, in the order of the curves."""

WIDTH, HEIGHT, CHARACTER = 5.0, 2.95, 0.088
"""Inches: the axes, a character of a name."""

LABEL_DISTANCE = 13.0 / (72 * HEIGHT)
"""13 points between two labels, in heights of the axes."""


def draw_learning_curves(
    curves: Mapping[str, Sequence[Run]],
    title: str | None = None,
    log: bool = False,
    published: Mapping[str, float] | None = None,
    chance: float | None = None,
) -> Figure:
    """Draw accuracy over training clips: the mean over seeds as a line, from the least to the greatest as a band.

    Every line has its name and last accuracy at its end. Colours follow the order of the curves: give rows of a
    published table in its order.

    Args:
        curves: For every name one run per seed, ``(clips, accuracy)``: rising numbers of clips, accuracies within 0..1.
            Of runs of different lengths the range that all have is drawn, with straight lines between their points.
        title: A line above it.
        log: Whether the number of clips has a logarithmic axis.
        published: Accuracies, within 0..1, that are named beside those of the same name.
        chance: Accuracy of a guess, a dotted line.

    Returns:
        A matplotlib figure; save it with ``figure.savefig(path)``.

    Shapes:
        - **clips, accuracy:** ``[P]``, P points, of every run its own.

    Raises:
        ValueError: If there is no curve, a run is not of that form, or the runs of a curve have no range in common.

    Source: the rows of "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> from rstg_pyg.visualize import draw_learning_curves
        >>> runs = [([0, 1000, 2000], [0.02, 0.5, 0.8]), ([0, 1000, 2000], [0.03, 0.6, 0.9])]
        >>> draw_learning_curves({"all-temp": runs}, published={"all-temp": 0.989}).savefig("curves.png")
    """
    if not curves:
        raise ValueError("expected at least one curve, got none")
    lines = {name: _mean_and_band(name, runs, log) for name, runs in curves.items()}
    ends = {name: f"{name}  {100 * mean[-1]:.1f}" for name, (_, mean, *_) in lines.items()}
    papers = {name: f"paper {100 * published[name]:.1f}" for name in lines if published and name in published}
    names_width = CHARACTER * max(map(len, ends.values()))
    title = wrapped(title, WIDTH + 0.5)
    top = 0.2 + title_height(title)
    sheet = Sheet(0.75 + WIDTH + 0.3 + names_width + (0.9 if papers else 0.1), top + HEIGHT + 0.55)
    ax = sheet.axes(0.75, top, WIDTH, HEIGHT)
    start, end = min(clips[0] for clips, *_ in lines.values()), max(clips[-1] for clips, *_ in lines.values())
    ax.set(ylim=(0, 1), xlim=(start, end) if start < end else None, xscale="log" if log else "linear")
    _decorate(ax, chance)
    sheet.title(0.75, title)
    heights = spread([mean[-1] for _, mean, *_ in lines.values()], LABEL_DISTANCE)
    for number, (name, (clips, mean, low, high)) in enumerate(lines.items()):
        colour, dashes = CURVES[number % len(CURVES)], ("-", "--", ":")[number // len(CURVES) % 3]
        if len(curves[name]) > 1:
            ax.fill_between(clips, low, high, color=colour, alpha=0.16, linewidth=0)
        ax.plot(clips, mean, color=colour, linestyle=dashes, linewidth=1.9, label=name, marker="o" * (len(clips) == 1))
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.8, "alpha": 0.6, "relpos": (0, 0.5)}
        style = {"textcoords": "axes fraction", "va": "center", "color": colour, "fontsize": 9, "weight": "bold"}
        place = {"xy": (clips[-1], mean[-1]), "xytext": (1 + 0.3 / WIDTH, heights[number]), "annotation_clip": False}
        ax.annotate(ends[name], arrowprops=line, **place, **style)
        if name in papers:
            style = {"fontsize": 8, "color": MUTED, "va": "center", "transform": ax.transAxes}
            ax.text(1 + (0.3 + names_width) / WIDTH, heights[number], papers[name], **style)
    return sheet.figure


def spread(heights: Sequence[float], distance: float) -> list[float]:
    """Move heights within 0..1 apart until they keep a distance, each as little as that allows, in their order."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    # Minus what the distances take, apart means not falling: pool neighbours that fall to their mean.
    pools: list[tuple[float, int]] = []
    for rank, i in enumerate(order):
        mean, count = heights[i] - rank * distance, 1
        while pools and pools[-1][0] > mean:
            before, number = pools.pop()
            mean, count = (before * number + mean * count) / (number + count), count + number
        pools.append((mean, count))
    highest = max(0.0, 1 - (len(heights) - 1) * distance)
    levels = [min(max(mean, 0.0), highest) for mean, count in pools for _ in range(count)]
    placed = dict(zip(order, (level + rank * distance for rank, level in enumerate(levels)), strict=True))
    return [placed[i] for i in range(len(heights))]


def _mean_and_band(name: str, runs: Sequence[Run], log: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points, mean, least and greatest."""
    if len(runs) == 0:
        raise ValueError(f"expected at least one run of {name!r}, got none")
    arrays = [tuple(np.asarray(part, dtype=float) for part in run) for run in runs]
    for run in arrays:
        if len(run) != 2 or run[0].ndim != 1 or run[0].shape != run[1].shape or run[0].size == 0:
            got = " and ".join(str(list(part.shape)) for part in run)
            raise ValueError(f"expected runs (clips [P], accuracy [P]) of {name!r}, got {got}")
        clips, accuracy = run
        if (np.diff(clips) <= 0).any() or (log and clips[0] <= 0):
            above = " above 0" if log else ""
            raise ValueError(f"expected rising numbers of clips{above} of {name!r}, got {clips.tolist()}")
        if not ((accuracy >= 0) & (accuracy <= 1)).all():
            raise ValueError(f"expected accuracies within 0 to 1 of {name!r}, got {accuracy.tolist()}")
    first, last = max(clips[0] for clips, _ in arrays), min(clips[-1] for clips, _ in arrays)
    if first > last:
        raise ValueError(f"expected runs of {name!r} that share a range of clips, got a start at {first} after {last}")
    points = np.unique(np.concatenate([clips for clips, _ in arrays]))
    points = points[(points >= first) & (points <= last)]
    values = np.stack([np.interp(points, *run) for run in arrays])
    return points, values.mean(0), values.min(0), values.max(0)


def _decorate(ax: Axes, chance: float | None) -> None:
    from matplotlib.ticker import EngFormatter, PercentFormatter

    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(MUTED)
    ax.grid(axis="y", color=FAINT, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(colors=MUTED, labelsize=8.5, length=3)
    ax.tick_params(axis="y", length=0)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_xlabel("training clips", color=MUTED, fontsize=9)
    ax.set_ylabel("accuracy", color=MUTED, fontsize=9)
    if chance is not None:
        ax.axhline(chance, color=MUTED, linestyle=":", linewidth=1)
        place = {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "bottom"}
        ax.text(0.995, chance + 0.008, "chance", fontsize=8, color=MUTED, **place)
