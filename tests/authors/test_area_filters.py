"""Region pooling and projection against the authors' own area-resizing filters.

Those filters are files of their repository and stay out of this one: ``RSTG_PYG_REFERENCE`` names the folder that has
``area_resize_filters.npz``.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from rstg_pyg.regions import RegionPool, RegionProject

FOLDER = os.environ.get("RSTG_PYG_REFERENCE")
FILTERS = 2.3e-6
"""How far the authors' float32 filters are off the exact overlaps."""


@pytest.mark.skipif(FOLDER is None, reason="RSTG_PYG_REFERENCE names no folder with area_resize_filters.npz")
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_pooling_and_projection(scale):
    with np.load(Path(FOLDER) / "area_resize_filters.npz", allow_pickle=False) as file:
        filters = {key: torch.from_numpy(file[key]).flatten(2) for key in file.files}
    pooled = {f"{size}x{size}_{scale}x{scale}": size for size in (6, 14, 16, 28, 32)}
    spread = {f"{scale}x{scale}_{size}x{size}": size for size in (14, 16, 28, 32)}
    assert {name for name in filters if f"{scale}x{scale}" in name.split("_")} == {*pooled, *spread}
    assert len(filters) == 27
    for name, size in pooled.items():
        ours = RegionPool((scale,))(torch.eye(size * size).unflatten(1, (size, size)))
        off = (ours - filters[name].flatten(0, 1)).abs().max()
        assert off <= FILTERS, f"{name}: {off:.3g}"
    for name, size in spread.items():
        ours = RegionProject((scale,))(torch.eye(scale * scale), size=(size, size))
        off = (ours - filters[name].movedim(-1, 0)).abs().max()
        assert off <= FILTERS, f"{name}: {off:.3g}"
