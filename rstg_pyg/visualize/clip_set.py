"""The clips of a picture and all that is known of them, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.visualize.pixels import to_pixels
from rstg_pyg.visualize.regions import scales_of

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
    is_colour = videos.dim() == 5 and videos.size(4) == 3
    if not (videos.dim() == 4 or is_colour) or 0 in videos.shape:
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
        num_classes = probabilities.size(-1)
        if probabilities.dim() != 3 or probabilities.shape[:2] != (n, num_frames):
            raise ValueError(
                f"expected probabilities of shape [{n}, M] or [{n}, {num_frames}, M], got {list(probabilities.shape)}"
            )
        names = [f"class {c}" for c in range(num_classes)] if classes is None else list(map(str, classes))
        if len(names) != num_classes:
            raise ValueError(f"expected names of {num_classes} classes, got {len(names)}")
    return ClipSet(
        to_pixels(videos),
        graph,
        alpha,
        None if captions is None else list(captions),
        marks,
        probabilities,
        _check_labels(labels, n, len(names)),
        names,
    )


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
