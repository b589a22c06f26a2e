"""The data sets: SyncMNIST, videos in the form of Something-Something, and graphs in time: people, particles, traffic,
and symbols to remember."""

from rstg_pyg.datasets.download import DownloadError
from rstg_pyg.datasets.drawing import render_clip, resize_bilinear, stretch_contrast
from rstg_pyg.datasets.generator import ClipGenerator
from rstg_pyg.datasets.los_loop import LosLoop
from rstg_pyg.datasets.mnist import IDXError, read_idx
from rstg_pyg.datasets.particles import Particles
from rstg_pyg.datasets.pedestrians import Pedestrians
from rstg_pyg.datasets.recall import DelayedRecall
from rstg_pyg.datasets.scenes import (
    NO_SYNC,
    NUM_CLASSES,
    NUM_PAIRS,
    draw_starts,
    label_to_pair,
    pair_to_label,
    walk,
)
from rstg_pyg.datasets.syncmnist import SyncMNIST
from rstg_pyg.datasets.video import SomethingSomething, average_views

__all__ = [
    "NO_SYNC",
    "NUM_CLASSES",
    "NUM_PAIRS",
    "ClipGenerator",
    "DelayedRecall",
    "DownloadError",
    "IDXError",
    "LosLoop",
    "Particles",
    "Pedestrians",
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
