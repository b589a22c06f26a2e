"""What a network says after a frame."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Prediction:
    r"""What a network says of a video after one of its frames.

    Args:
        index: The number of the frame, from 0.
        frame: The frame itself, as it came.
        logits: Of all frames so far; None as long as the network has not seen enough of them.
        attention: Of the edges of the graph, of the last frame that it was computed for; None for networks without a
            graph, and as ``logits``.
        classes: The names of the classes.

    Shapes:
        - **frame:** ``[H, W, 3]`` uint8. **logits, probabilities:** ``[M]``. **attention:** ``[E]`` in the order of
          ``region_graph(scales).edge_index``. All but the frame on the CPU.

    Example:
        >>> import torch
        >>> frame = torch.zeros(8, 8, 3, dtype=torch.uint8)
        >>> prediction = Prediction(0, frame, torch.tensor([0.0, 2.0, 1.0]), None, ("up", "down", "left"))
        >>> [(name, round(probability, 3)) for name, probability in prediction.top(2)]
        [('down', 0.665), ('left', 0.245)]
    """

    index: int
    frame: Tensor = field(repr=False)
    logits: Tensor | None
    attention: Tensor | None = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)

    @property
    def probabilities(self) -> Tensor | None:
        return None if self.logits is None else self.logits.softmax(0)

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The classes of the highest probabilities, with these, best first; empty without logits."""
        if self.logits is None:
            return []
        values, places = self.probabilities.topk(min(count, len(self.classes)))
        return [(self.classes[place], value) for place, value in zip(places.tolist(), values.tolist(), strict=True)]
