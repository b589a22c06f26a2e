"""The clips of a picture and all that is known of them, checked; how one frame of them is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.visualize.regions import draw_attention, draw_regions, scales_of
from rstg_pyg.visualize.sheet import FAINT, MARK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Labels = Tensor | Sequence[int]


@dataclass(frozen=True)
class ClipSet:
    """Clips with what is drawn over and beside them; made by :func:`check_clips`.

    Shapes:
        - **pixels:** ``[n, T, H, W]`` or ``[n, T, H, W, 3]`` within 0..1. **alpha:** ``[E, n, T]``. **marks:**
          ``[n, T, K, 4]``. **probabilities:** ``[n, T, M]``. **labels:** n. **names:** M.
    """

    pixels: Tensor
    graph: Data | None
    alpha: Tensor | None
    captions: list[str] | None
    marks: Tensor | None
    probabilities: Tensor | None
    labels: list[int | None]
    names: list[str]

    @property
    def num_frames(self) -> int:
        return self.pixels.size(1)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.size(2), self.pixels.size(3)

    def __len__(self) -> int:
        return self.pixels.size(0)


def check_clips(
    videos: Tensor,
    graph: Data | None,
    alpha: Tensor | None,
    captions: Sequence[str] | None,
    marks: Tensor | None,
    probabilities: Tensor | None,
    labels: Labels | None,
    classes: Sequence[str] | None,
) -> ClipSet:
    """Raise unless all of it fits; see :func:`~rstg_pyg.visualize.draw_clips` for what each is."""
    if not (videos.dim() == 4 or (videos.dim() == 5 and videos.size(4) == 3)) or 0 in videos.shape:
        raise ValueError(f"expected videos of shape [n, T, H, W] or [n, T, H, W, 3], got {list(videos.shape)}")
    n, num_frames = videos.shape[:2]
    if graph is not None:
        scales_of(graph)
    if alpha is not None:
        if graph is None:
            raise ValueError("expected a 'graph' for the attention weights 'alpha', got None")
        _expect("alpha", alpha, [graph.num_edges, n, num_frames])
        alpha = alpha.detach().float().cpu()
    if captions is not None and len(captions) != n:
        raise ValueError(f"expected {n} captions, got {len(captions)}")
    if marks is not None:
        marks = marks.detach().float().cpu()
        _expect("marks", marks, [n, num_frames, marks.size(2) if marks.dim() == 4 else "K", 4])
    if probabilities is None:
        names = []
        if labels is not None or classes is not None:
            raise ValueError("expected 'probabilities' with 'labels' or 'classes', got None")
    else:
        probabilities = probabilities.detach().float().cpu()
        if probabilities.dim() == 2:
            probabilities = probabilities[:, None].expand(-1, num_frames, -1)
        if probabilities.dim() != 3 or probabilities.shape[:2] != (n, num_frames):
            raise ValueError(
                f"expected probabilities of shape [{n}, M] or [{n}, {num_frames}, M], got {list(probabilities.shape)}"
            )
        num_classes = probabilities.size(-1)
        names = [f"class {c}" for c in range(num_classes)] if classes is None else list(map(str, classes))
        if len(names) != num_classes:
            raise ValueError(f"expected names of {num_classes} classes, got {len(names)}")
    captions, labels = captions and list(captions), _check_labels(labels, n, len(names))
    return ClipSet(to_pixels(videos), graph, alpha, captions, marks, probabilities, labels, names)


def _expect(name: str, tensor: Tensor, shape: list) -> None:
    if list(tensor.shape) != shape:
        raise ValueError(f"expected {name} of shape [{', '.join(map(str, shape))}], got {list(tensor.shape)}")


def _check_labels(labels: Labels | None, n: int, num_classes: int) -> list[int | None]:
    if labels is None:
        return [None] * n
    labels = torch.as_tensor(labels)
    if labels.shape != (n,) or labels.is_floating_point() or not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f"expected {n} labels within 0 to {num_classes - 1}, got {labels.tolist()}")
    return labels.tolist()


def to_pixels(video: Tensor) -> Tensor:
    """Turn clips into pixels within 0..1: uint8 by 255; floats within 0..1 stay as they are; any other clip is
    stretched from its smallest to its largest value.

    Shapes:
        - **video:** ``[n, *]``. **output:** ``[n, *]`` float, on the CPU.
    """
    pixels = video.detach().cpu()
    if pixels.dtype == torch.uint8:
        return pixels.float() / 255
    pixels = pixels.float()
    if pixels.numel() == 0:
        return pixels
    shape = (-1, *[1] * (pixels.dim() - 1))
    low, high = (extreme.view(shape) for extreme in pixels.flatten(1).aminmax(dim=1))
    stretched = (pixels - low) / (high - low).clamp(min=1e-12)
    return stretched.where((low < 0) | (high > 1), pixels)


def draw_frame(ax: Axes, clips: ClipSet, clip: int, t: int, strongest: int) -> None:
    """Draw frame t of a clip with all that is known of it."""
    height, width = clips.size
    ax.imshow(clips.pixels[clip, t].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    ax.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    for spine in ax.spines.values():
        spine.set(edgecolor=FAINT, linewidth=0.8)
    if clips.marks is not None:
        _draw_marks(ax, clips.marks[clip, t])
    if clips.graph is not None:
        places = draw_regions(ax, clips.graph, clips.size)
        if clips.alpha is not None:
            draw_attention(ax, clips.graph, clips.alpha[:, clip, t], places, strongest)


def _draw_marks(ax: Axes, boxes: Tensor) -> None:
    """Draw boxes (y0, x0, y1, x1) ``[K, 4]`` as bright lines with dark borders; none where a number is NaN."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=3, foreground="black", alpha=0.7)]
    for y0, x0, y1, x1 in boxes[~boxes.isnan().any(1)].tolist():
        style = {"fill": False, "edgecolor": MARK, "linewidth": 1.3, "path_effects": halo, "label": "mark", "zorder": 2}
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, **style))
