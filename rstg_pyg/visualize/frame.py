"""One frame of a clip: the image, its regions, the attention, the marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from rstg_pyg.visualize.attention import draw_attention
from rstg_pyg.visualize.clip_set import ClipSet
from rstg_pyg.visualize.palette import FAINT, MARK
from rstg_pyg.visualize.regions import draw_regions

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_frame(ax: Axes, clips: ClipSet, clip: int, t: int, strongest: int) -> None:
    """Draw frame t of a clip with all that is known of it."""
    height, width = clips.size
    ax.imshow(clips.pixels[clip, t].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    ax.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    for spine in ax.spines.values():
        spine.set(edgecolor=FAINT, linewidth=0.8)
    if clips.marks is not None:
        draw_marks(ax, clips.marks[clip, t])
    if clips.graph is not None:
        places = draw_regions(ax, clips.graph, clips.size)
        if clips.alpha is not None:
            draw_attention(ax, clips.graph, clips.alpha[:, clip, t], places, strongest)


def draw_marks(ax: Axes, boxes: Tensor) -> None:
    """Draw boxes (y0, x0, y1, x1) ``[K, 4]`` as bright lines with dark borders; none where a number is NaN."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=3, foreground="black", alpha=0.7)]
    for y0, x0, y1, x1 in boxes[~boxes.isnan().any(1)].tolist():
        ax.add_patch(
            Rectangle(
                (x0, y0),
                x1 - x0,
                y1 - y0,
                fill=False,
                edgecolor=MARK,
                linewidth=1.3,
                path_effects=halo,
                label="mark",
                zorder=2,
            )
        )
