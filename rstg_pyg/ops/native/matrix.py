"""Transposes of matrices, for the gradient of a weight."""

import struct

import torch
from torch import Tensor

from rstg_pyg.ops.native.calls import check, is_available, library_for

_ARGUMENTS = struct.Struct("5q")


def transpose(rows: Tensor) -> Tensor:
    """The transpose of a contiguous matrix, contiguous where the library makes it so, which is faster than PyTorch."""
    if rows.dtype not in (torch.float32, torch.float64) or not is_available(rows.dtype):
        return rows.t()
    out = rows.new_empty(rows.size(1), rows.size(0))
    packed = _ARGUMENTS.pack(torch.get_num_threads(), *rows.shape, rows.data_ptr(), out.data_ptr())
    check(library_for(rows.dtype).rstg_transpose(packed))
    return out
