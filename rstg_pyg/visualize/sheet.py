"""A figure whose parts are placed by hand, so that distances stay the same whatever it shows; the colours of all
pictures.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

COLOURS = ("#4cc9f0", "#ffb703", "#f15bb5", "#b8a1ff", "#ff6d00", "#b5179e")
"""Of the scales, in the order in which they stand in the graph."""

MARK, TRUE, WRONG = "#a6ff3d", "#1e8e3e", "#d93025"
"""Of what the answer is about, of the true class, of a prediction that is not the true class."""

INK, MUTED, FAINT = "#202124", "#5f6368", "#e3e5e8"
"""Of text, of lesser text and bars, of lines and empty cells."""

LARGEST_SHEET = 6000.0
"""Square inches of a figure: 60 million pixels at 100 an inch, a quarter of a gigabyte."""


def wrapped(title: str | None, width: float) -> str:
    """Break a title into lines for so many inches."""
    return textwrap.fill(title or "", max(int(width / 0.09), 12))


def title_height(title: str) -> float:
    """Return the inches that a wrapped title needs."""
    return 0.14 + 0.2 * len(title.splitlines()) if title else 0.0


class Sheet:
    """A white figure that takes places in inches from its upper left corner. It belongs to no window."""

    def __init__(self, width: float, height: float) -> None:
        if width * height > LARGEST_SHEET:
            raise ValueError(
                f"expected a picture of at most {LARGEST_SHEET:.0f} square inches, got {width:.0f} x {height:.0f}: "
                "draw fewer clips or frames"
            )
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure: Figure = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, x: float, y: float, width: float, height: float, **kwargs: Any) -> Axes:
        kwargs.setdefault("facecolor", "white")  # whatever the style of the user's own pictures
        left, bottom = x / self.width, 1 - (y + height) / self.height
        return self.figure.add_axes((left, bottom, width / self.width, height / self.height), **kwargs)

    def text(self, x: float, y: float, text: str, **kwargs: Any) -> Text:
        return self.figure.text(x / self.width, 1 - y / self.height, text, **kwargs)

    def title(self, x: float, title: str, **kwargs: Any) -> None:
        """Write a wrapped title at the top, from x inches on."""
        if title:
            self.text(x, 0.1, title, fontsize=11, color=INK, va="top", linespacing=1.3, **kwargs)
