"""The pairs of digits of SyncMNIST: what they are called, where they are, and how often each was told right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rstg_pyg.arguments import check_positive
from rstg_pyg.datasets.drawing import CANVAS, SPRITE
from rstg_pyg.datasets.scenes import NO_SYNC, NUM_CLASSES, NUM_PAIRS, label_to_pair
from rstg_pyg.visualize.sheet import FAINT, INK, MUTED, Sheet, title_height, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure


def pair_names() -> list[str]:
    """Name the 46 classes: the two digits, smaller first, or "none".

    Source: the labels of SyncMNIST in "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> from rstg_pyg.visualize import pair_names
        >>> pair_names()[22], pair_names()[45]
        ('1-7', 'none')
    """
    pairs = map(label_to_pair, range(NUM_CLASSES))
    return ["none" if pair is None else f"{pair[1]}-{pair[0]}" for pair in pairs]


def digits_in_step(path: Tensor, sync: Tensor, size: int) -> Tensor:
    """Return the boxes of the two digits of a SyncMNIST clip that move in step.

    A sprite of 28 x 28 whose corner is at (y, x) of the 100 x 100 canvas covers, in y, the pixels from
    ``size / 100 * y - 0.5`` to ``size / 100 * (y + 28) - 0.5``. Whole numbers are the centres of pixels.

    Args:
        path: Corners of the sprites on the canvas, ``path`` of a :class:`~rstg_pyg.SyncMNIST` item or batch.
        sync: Which two digits move in step, or -1, ``sync`` of the same.
        size: Height and width of the frames.

    Returns:
        Boxes (y0, x0, y1, x1) in pixels; NaN where no digits move in step.

    Shapes:
        - **path:** ``[B, D, T, 2]``. **sync:** ``[B, 2]``. **output:** ``[B, T, 2, 4]``.

    Raises:
        ValueError: If the shapes do not fit each other, ``sync`` names a digit that is not there, or
            ``size`` is not positive.

    Source: SyncMNIST in "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> import torch
        >>> from rstg_pyg.visualize import digits_in_step
        >>> path = torch.tensor([[0, 10], [50, 72]]).view(1, 2, 1, 2)
        >>> digits_in_step(path, torch.tensor([[0, 1]]), size=50)
        tensor([[[[-0.5000,  4.5000, 13.5000, 18.5000],
                  [24.5000, 35.5000, 38.5000, 49.5000]]]])
    """
    if path.dim() != 4 or path.size(-1) != 2 or sync.shape != (path.size(0), 2):
        raise ValueError(f"expected path [B, D, T, 2] and sync [B, 2], got {list(path.shape)} and {list(sync.shape)}")
    if sync.numel() and not -1 <= int(sync.min()) <= int(sync.max()) < path.size(1):
        raise ValueError(f"expected 'sync' to hold digits within 0 to {path.size(1) - 1}, or -1, got {sync.tolist()}")
    check_positive(size=size)
    clip = torch.arange(path.size(0), device=path.device)[:, None]
    corner = path[clip, sync.clamp(min=0)].transpose(1, 2).float()
    box = torch.cat([corner, corner + SPRITE], dim=-1) * size / CANVAS - 0.5
    return torch.where(sync[:, None, :, None] < 0, torch.nan, box)


class PairAccuracy(NamedTuple):
    """Accuracy by what moves in step.

    Attributes:
        accuracy: Share of the clips of digits i and j that were told right, ``[10, 10]``, symmetric; NaN where there
            was no such clip, as on the diagonal.
        counts: Number of these clips, ``[10, 10]``.
        none: The same two numbers of the clips in which no two digits move in step.
    """

    accuracy: Tensor
    counts: Tensor
    none: tuple[float, int]

    @classmethod
    def of_counts(cls, counts: Tensor, correct: Tensor) -> PairAccuracy:
        """From the number of clips, and of clips told right, of each of the 46 classes."""
        counts, correct = torch.as_tensor(counts), torch.as_tensor(correct)
        if counts.shape != (NUM_CLASSES,) or correct.shape != (NUM_CLASSES,):
            shapes = f"{list(counts.shape)} and {list(correct.shape)}"
            raise ValueError(f"expected counts and correct of shape [{NUM_CLASSES}], got {shapes}")
        for label, (number, right) in enumerate(zip(counts.tolist(), correct.tolist(), strict=True)):
            if not 0 <= right <= number:
                raise ValueError(
                    f"expected 'correct' within 0 to 'counts' in every class, got {right} of {number} in class {label}"
                )
        high, low = torch.tensor([label_to_pair(label) for label in range(NUM_PAIRS)]).t()
        matrix = torch.zeros(2, 10, 10, dtype=torch.double)
        matrix[:, high, low] = matrix[:, low, high] = torch.stack([counts, correct]).cpu().double()[:, :NUM_PAIRS]
        none = float(correct[NO_SYNC] / counts[NO_SYNC]), int(counts[NO_SYNC])
        return cls((matrix[1] / matrix[0]).float(), matrix[0].long(), none)


def pair_accuracy(labels: Tensor, predictions: Tensor) -> PairAccuracy:
    """Count for every pair of digits how many of its clips were told right.

    Args:
        labels: True classes.
        predictions: Predicted classes.

    Shapes:
        - **labels, predictions:** ``[n]``, whole numbers within 0 to 45.

    Raises:
        ValueError: If they are not of one length, or a label is none of the 46.

    Source: the labels of SyncMNIST in "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> import torch
        >>> from rstg_pyg.visualize import pair_accuracy
        >>> result = pair_accuracy(torch.tensor([22, 22, 45]), torch.tensor([22, 0, 45]))
        >>> float(result.accuracy[7, 1]), int(result.counts[1, 7]), result.none
        (0.5, 2, (1.0, 1))
    """
    labels, predictions = torch.as_tensor(labels).cpu(), torch.as_tensor(predictions).cpu()
    if labels.dim() != 1 or labels.shape != predictions.shape:
        shapes = f"{list(labels.shape)} and {list(predictions.shape)}"
        raise ValueError(f"expected labels and predictions of one shape [n], got {shapes}")
    for name, classes in (("labels", labels), ("predictions", predictions)):
        if classes.is_floating_point() or ((classes < 0) | (classes >= NUM_CLASSES)).any():
            raise ValueError(f"expected {name} to be whole numbers within 0 to {NO_SYNC}, got {classes.tolist()}")
    counts = labels.bincount(minlength=NUM_CLASSES)
    return PairAccuracy.of_counts(counts, labels[labels == predictions].bincount(minlength=NUM_CLASSES))


CELL, LEFT, TOP, BOTTOM = 0.46, 0.6, 0.15, 0.55
"""Inches: a cell, and the borders around the matrix."""


def draw_pair_accuracy(pairs: PairAccuracy, title: str | None = None, lowest: float | None = None) -> Figure:
    """Draw the accuracy for every pair of digits, and where no two move in step, in percent; cells without clips are
    hatched.

    Args:
        pairs: What :func:`pair_accuracy` returns.
        title: A line above it.
        lowest: Where the colours start (default: the least accuracy, rounded down to a tenth).

    Returns:
        A matplotlib figure; save it with ``figure.savefig(path)``.

    Shapes:
        - **pairs.accuracy, pairs.counts:** ``[10, 10]``.

    Raises:
        ValueError: If there is no clip at all, or ``lowest`` is not within 0 to 1.

    Source: SyncMNIST in "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> import torch
        >>> from rstg_pyg.visualize import draw_pair_accuracy, pair_accuracy
        >>> labels, guesses = torch.randint(46, (500,)), torch.randint(46, (500,))
        >>> draw_pair_accuracy(pair_accuracy(labels, guesses), "guesses").savefig("pairs.png")
    """
    from matplotlib import colormaps

    high, low = torch.tril_indices(10, 10, -1)
    columns = (values.tolist() for values in (low, high, pairs.accuracy[high, low], pairs.counts[high, low]))
    # The upper triangle is free for the clips without a pair.
    cells = [*zip(*columns, strict=True), (8, 3.3, *pairs.none)]
    known = [(share, count) for *_, share, count in cells if count]
    if not known:
        raise ValueError("expected the accuracy of at least one clip, got none")
    lowest = min(math.floor(10 * min(known)[0]) / 10, 0.9) if lowest is None else lowest
    if not 0 <= lowest < 1:
        raise ValueError(f"expected 'lowest' to be at least 0 and less than 1, got {lowest}")
    side = 9 * CELL
    title = wrapped(title, side)
    top = TOP + title_height(title)
    sheet = Sheet(LEFT + side + 0.2, top + side + BOTTOM)
    sheet.title(LEFT, title)
    ax = sheet.axes(LEFT, top, side, side)
    ax.set(xlim=(-0.5, 8.5), ylim=(9.5, 0.5), xticks=range(9), yticks=range(1, 10))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, colors=INK, labelsize=10)
    ax.set_xlabel("smaller digit", color=MUTED, fontsize=9)
    ax.set_ylabel("larger digit", color=MUTED, fontsize=9)
    colours = colormaps["YlGnBu"]
    for cell in cells:
        _draw_cell(ax, *cell, lowest, colours)
    ax.text(7.35, 3.3, "no two in step", ha="right", va="center", fontsize=9, color=MUTED)
    total, right = sum(count for _, count in known), round(sum(share * count for share, count in known))
    share = f"{100 * (right / total):.1f} %"
    ax.text(8.5, 0.85, share, ha="right", va="baseline", fontsize=20, color=INK, weight="bold")
    ax.text(8.5, 1.3, f"right of {total:,} clips", ha="right", va="baseline", fontsize=9, color=MUTED)
    _draw_scale(sheet.axes(LEFT + 5.5 * CELL, top + 1.45 * CELL, 3.5 * CELL, 0.12), lowest, colours)
    return sheet.figure


def _draw_cell(ax: Axes, x: float, y: float, value: float, count: int, lowest: float, colours: Colormap) -> None:
    """Draw a cell around (x, y): its accuracy in percent, or hatched where there was no clip."""
    from matplotlib.patches import FancyBboxPatch

    shade = min(max((value - lowest) / (1 - lowest), 0.0), 1.0) if count else 0.0
    look = {"facecolor": "white", "edgecolor": FAINT, "hatch": "/////"}
    if count:
        look = {"facecolor": colours(0.05 + 0.85 * shade), "edgecolor": "none"}
    style = {"boxstyle": "round,pad=0,rounding_size=0.1", "linewidth": 0.8, **look}
    ax.add_patch(FancyBboxPatch((x - 0.45, y - 0.45), 0.9, 0.9, **style))
    if count:
        colour = "white" if shade > 0.55 else INK
        ax.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=10, color=colour)


def _draw_scale(ax: Axes, lowest: float, colours: Colormap) -> None:
    """Draw what the colours mean."""
    shades = [[0.05 + 0.85 * step / 63 for step in range(64)]]
    ax.imshow(shades, cmap=colours, vmin=0, vmax=1, aspect="auto", extent=(100 * lowest, 100, 0, 1))
    ax.spines[:].set_visible(False)
    ax.set(yticks=[], xticks=[100 * lowest, 50 + 50 * lowest, 100])
    ax.xaxis.set_major_formatter("{x:.0f} %")
    ax.tick_params(length=0, labelsize=7.5, colors=MUTED)
