"""Multi-scale regions of a frame: their graph, their features, their positions."""

from rstg_pyg.regions.graph import ToRegionGraph, region_graph, spacetime_edge_index, spacetime_graph
from rstg_pyg.regions.pooling import RegionPool, RegionProject

__all__ = [
    "RegionPool",
    "RegionProject",
    "ToRegionGraph",
    "region_graph",
    "spacetime_edge_index",
    "spacetime_graph",
]
