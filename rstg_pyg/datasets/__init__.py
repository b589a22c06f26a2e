r"""Datasets."""

from rstg_pyg.datasets.download import DownloadError
from rstg_pyg.datasets.generator import ClipGenerator
from rstg_pyg.datasets.idx import IDXError, read_idx
from rstg_pyg.datasets.labels import (
    NO_SYNC,
    NUM_CLASSES,
    NUM_PAIRS,
    label_to_pair,
    pair_to_label,
)
from rstg_pyg.datasets.motion import draw_starts, walk
from rstg_pyg.datasets.render import render_clip, stretch_contrast
from rstg_pyg.datasets.resize import resize_bilinear
from rstg_pyg.datasets.syncmnist import SyncMNIST
from rstg_pyg.datasets.video import SomethingSomething, average_views

__all__ = [
    "NO_SYNC",
    "NUM_CLASSES",
    "NUM_PAIRS",
    "ClipGenerator",
    "DownloadError",
    "IDXError",
    "SomethingSomething",
    "SyncMNIST",
    "average_views",
    "draw_starts",
    "label_to_pair",
    "pair_to_label",
    "read_idx",
    "render_clip",
    "resize_bilinear",
    "stretch_contrast",
    "walk",
]
