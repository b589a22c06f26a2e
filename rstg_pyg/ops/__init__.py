"""What the space stage computes over edges: plain formulas, and in several faster ways.

Blocks of cache size in PyTorch, native code for processors, Triton for GPUs.
"""

from rstg_pyg.ops.frames import FrameIndex
from rstg_pyg.ops.gather import BACKENDS, GatherSpec, choose_backend, gather
from rstg_pyg.ops.index import GraphIndex
from rstg_pyg.ops.linear import linear
from rstg_pyg.ops.plain import Message

__all__ = ["BACKENDS", "FrameIndex", "GatherSpec", "GraphIndex", "Message", "choose_backend", "gather", "linear"]
