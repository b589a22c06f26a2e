"""Frames of a video with the graph over them and the classes below or beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.visualize.overlay_graph import Box, GraphLayer
from rstg_pyg.visualize.overlay_strip import ClassStrip
from rstg_pyg.visualize.regions import scales_of

SMALLEST, LARGEST = 360, 720
"""Bounds of the shorter side of the frames as they are shown, so that what is drawn can be read and is drawn fast."""


LONGEST = 4096
"""Bound of the longer side, which encoders take and which a frame of 1 x 10,000 pixels would exceed by far."""


class VideoOverlay:
    r"""Draws what a network says and where it looks onto the frames of a video, one at a time.

    The list of classes stands below frames that are wider than high and beside others. Pillow draws it: it is there
    wherever videos are read, and takes about 10 ms of a core for a frame of 360 lines.

    Args:
        size: Height and width of the frames.
        graph: The region graph, or None for networks without one.
        box: What the network sees of a frame: top, left, bottom, right, in pixels (default: all of it).
        rows: Number of classes in the list.

    Shapes:
        - **frame:** ``[H, W, 3]`` uint8. **attention:** ``[E]``. **output:** ``[H', W', 3]`` uint8, H' and W' even and
          the same for all frames.

    Raises:
        ValueError: If a frame has another size, or there is not one weight per edge.

    Source: the regions of "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from rstg_pyg import region_graph
        >>> from rstg_pyg.visualize.overlay import VideoOverlay
        >>> overlay = VideoOverlay((240, 320), region_graph((2, 1)), box=(0, 40, 240, 280))
        >>> overlay.draw(np.zeros((240, 320, 3), np.uint8), [("Moving something up", 0.9)], torch.rand(16)).shape
        (560, 480, 3)
    """

    def __init__(self, size: tuple[int, int], graph: Data | None = None, box: Box | None = None, rows: int = 5) -> None:
        self._size = size
        short = min(size)
        scale = min(min(max(short, SMALLEST), LARGEST) / short, LONGEST / max(size))
        height, width = (2 * max(1, round(length * scale / 2)) for length in size)
        unit = max(min(height, width) / SMALLEST, 1)
        box = (0, 0, *size) if box is None else box
        self._shown = (width, height)
        self._graph = None
        if graph is not None:
            shown = tuple(place * scale for place in box)
            self._graph = GraphLayer(graph, (height, width), shown, unit)
        self._beside = height > width
        scales = [] if graph is None else scales_of(graph)
        self._strip = ClassStrip(2 * round(200 * unit) if self._beside else width, unit, rows, scales)
        self._strip_height = max(height, _even(self._strip.height)) if self._beside else _even(self._strip.height)

    def draw(
        self, frame: np.ndarray, classes: Sequence[tuple[str, float]], attention: Tensor | None = None
    ) -> np.ndarray:
        """The picture of a frame, the likeliest classes with their probabilities, and the attention at it."""
        from PIL import Image

        if frame.shape != (*self._size, 3):
            raise ValueError(f"expected a frame of shape [{self._size[0]}, {self._size[1]}, 3], got {[*frame.shape]}")
        picture = Image.fromarray(frame)
        if picture.size != self._shown:
            picture = picture.resize(self._shown, Image.Resampling.BICUBIC)
        if self._graph is not None:
            layer = self._graph.draw(attention)
            picture.paste(layer, (0, 0), layer)
        width, height = self._shown
        strip = self._strip.draw(classes, self._strip_height)
        if self._beside:
            canvas, place = Image.new("RGB", (width + strip.width, strip.height), "white"), (width, 0)
        else:
            canvas, place = Image.new("RGB", (width, height + strip.height), "white"), (0, height)
        canvas.paste(picture, (0, 0))
        canvas.paste(strip, place)
        return np.asarray(canvas)


def _even(length: int) -> int:
    return length + length % 2
