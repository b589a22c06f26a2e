"""Recurrent Space-time Graph networks for PyTorch Geometric.

Layout: ``regions`` (multi-scale grid graphs) -> ``conv`` (the space stage, on ``kernels``) -> ``recurrence`` (time
stages, alternation) -> ``models`` (RSTG-to-vec, RSTG-to-map, insertion into any network, classifiers, ResNets) ->
``training`` -> ``predict``; ``datasets`` (SyncMNIST, Something-Something); ``visualize``; ``authors`` (the authors'
program, exactly); ``allocator``.
"""

from rstg_pyg.conv import RSTGConv
from rstg_pyg.datasets import SomethingSomething, SyncMNIST
from rstg_pyg.models import FrameCNN, RSTGToMap, RSTGToVec, VideoClassifier, insert_rstg, remove_rstg
from rstg_pyg.recurrence import RSTG, TimeStage
from rstg_pyg.regions import (
    RegionPool,
    RegionProject,
    ToRegionGraph,
    region_graph,
    spacetime_edge_index,
    spacetime_graph,
)

__version__ = "0.1.0"

__all__ = [
    "RSTG",
    "FrameCNN",
    "RSTGConv",
    "RSTGToMap",
    "RSTGToVec",
    "RegionPool",
    "RegionProject",
    "SomethingSomething",
    "SyncMNIST",
    "TimeStage",
    "ToRegionGraph",
    "VideoClassifier",
    "insert_rstg",
    "region_graph",
    "remove_rstg",
    "spacetime_edge_index",
    "spacetime_graph",
]
