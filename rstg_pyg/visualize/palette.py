"""Colours that mean the same in every picture."""

COLOURS = ("#4cc9f0", "#ffb703", "#f15bb5", "#b8a1ff", "#ff6d00", "#b5179e")
"""Of the scales, in the order in which they stand in the graph."""

MARK = "#a6ff3d"
"""Of the things in a frame that the answer is about."""

TRUE = "#1e8e3e"
"""Of the true class."""

WRONG = "#d93025"
"""Of a prediction that is not the true class."""

INK, MUTED, FAINT = "#202124", "#5f6368", "#e3e5e8"
"""Of text, of lesser text and bars, of lines and empty cells."""

CURVES = (
    "#8a8f98",
    "#b8860b",
    "#8c564b",
    "#e377c2",
    "#56a3d9",
    "#8e6bbf",
    "#d1495b",
    "#e07b00",
    "#009e73",
    "#1f3a93",
)
"""Of learning curves, in their order."""
