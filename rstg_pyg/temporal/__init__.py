"""Graphs that change as one ``Data``: from and to what people have them in, windows over long series, and mini-batches
of large ones."""

from rstg_pyg.temporal.convert import from_signal, from_snapshots, to_snapshots
from rstg_pyg.temporal.neighbors import NeighborWindows, sample_neighbors
from rstg_pyg.temporal.records import from_events, from_table
from rstg_pyg.temporal.series import Series, pad, slice_frames
from rstg_pyg.temporal.virtual_node import VirtualNode
from rstg_pyg.temporal.windows import Windows

__all__ = [
    "NeighborWindows",
    "Series",
    "VirtualNode",
    "Windows",
    "from_events",
    "from_signal",
    "from_snapshots",
    "from_table",
    "pad",
    "sample_neighbors",
    "slice_frames",
    "to_snapshots",
]
