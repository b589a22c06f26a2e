"""The recurrent graph as a block of a network that sees video: at its end (to-vec) or anywhere inside it (to-map)."""

from rstg_pyg.blocks.inserted_blocks import InsertedBlocks, host_state_dict, load_host_state_dict
from rstg_pyg.blocks.insertion import insert_rstg, remove_rstg
from rstg_pyg.blocks.to_map import RSTGToMap
from rstg_pyg.blocks.to_vec import RSTGPool, RSTGToVec
from rstg_pyg.blocks.volume_pool import VolumePool

__all__ = [
    "InsertedBlocks",
    "RSTGPool",
    "RSTGToMap",
    "RSTGToVec",
    "VolumePool",
    "host_state_dict",
    "insert_rstg",
    "load_host_state_dict",
    "remove_rstg",
]
