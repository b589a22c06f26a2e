"""Recurrent Space-time Graph networks for PyTorch Geometric.

The heart, which ``import rstg_pyg`` loads: ``regions`` (multi-scale grid graphs) -> ``conv`` (the space stage, on
``ops``) -> ``recurrence`` (time stages, alternation) -> ``blocks`` (to-vec, to-map, insertion into any network).

Beside it, loaded when first asked for: ``models`` (backbones, rows of the paper's tables), ``datasets`` (SyncMNIST,
Something-Something), ``temporal`` (data of graphs that change), ``training``, ``predict``, ``visualize`` and
``authors`` (the authors' program, exactly), ``allocator`` (memory that is kept) and ``graphgym``.
"""

import importlib
from typing import TYPE_CHECKING, Any

from rstg_pyg.blocks import RSTGPool, RSTGToMap, RSTGToVec, insert_rstg, remove_rstg
from rstg_pyg.conv import RSTGConv
from rstg_pyg.recurrence import RSTG, TimeStage
from rstg_pyg.regions import (
    RegionPool,
    RegionProject,
    ToRegionGraph,
    region_graph,
    spacetime_edge_index,
    spacetime_graph,
)

if TYPE_CHECKING:
    from rstg_pyg import allocator, authors, datasets, graphgym, models, predict, temporal, training, visualize  # noqa: F401
    from rstg_pyg.datasets import SomethingSomething, SyncMNIST
    from rstg_pyg.models import FrameCNN, VideoClassifier

__version__ = "0.2.0"

__all__ = [
    "RSTG",
    "FrameCNN",
    "RSTGConv",
    "RSTGPool",
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

_ROOMS = "allocator", "authors", "datasets", "graphgym", "models", "predict", "temporal", "training", "visualize"
_BESIDE = {
    **{name: name for name in _ROOMS},
    **dict.fromkeys(("SomethingSomething", "SyncMNIST"), "datasets"),
    **dict.fromkeys(("FrameCNN", "VideoClassifier"), "models"),
}


def __getattr__(name: str) -> Any:
    if name not in _BESIDE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_BESIDE[name]}")
    return module if name == _BESIDE[name] else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_BESIDE})
