"""Feature maps to region features and back: a pixel that a border cuts counts for the part that lies in the region.

Shape legend: C channels, H x W pixels, N regions, ``*`` any leading dimensions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rstg_pyg.arguments import describe, num_dims
from rstg_pyg.constant_buffers import ConstantBuffers, kept
from rstg_pyg.regions.cells import Scale, grid_cells, parse_scales


class _RegionMap(ConstantBuffers):
    """Holds the cells of the grids; the weights follow the size of the map that comes."""

    cells: Tensor

    def __init__(self, scales: Sequence[Scale] = (3, 2, 1)) -> None:
        super().__init__()
        self.scales = parse_scales(scales)
        self.reset_buffers()

    def constants(self) -> dict[str, Tensor]:
        return {"cells": grid_cells(self.scales)}

    @property
    def num_regions(self) -> int:
        """Number of regions N."""
        return self.cells.size(0)

    def _weight(self, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """What of each pixel counts for each region, ``[N, H * W]``; kept for maps of one size."""
        return kept(self.cells, (type(self), *size, dtype), lambda: self._make_weight(*size, dtype))

    def _make_weight(self, height: int, width: int, dtype: torch.dtype) -> Tensor:
        row, rows, column, columns = self.cells.unbind(1)
        whole_y, whole_x = self._wholes(height, width)
        along_y = pixel_overlap(row, rows, height).to(dtype) / whole_y
        along_x = pixel_overlap(column, columns, width).to(dtype) / whole_x
        return (along_y[:, :, None] * along_x[:, None, :]).flatten(1)

    def _wholes(self, height: int, width: int) -> tuple[Any, Any]:
        """What overlaps along both axes are shares of."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"scales={self.scales}"


class RegionPool(_RegionMap):
    r"""The mean of a feature map in every region of :func:`~rstg_pyg.region_graph`.

    .. math::
        v_n = \frac{\sum_{y,x} |n \cap (y, x)| \, f_{y,x}}{\sum_{y,x} |n \cap (y, x)|}

    with :math:`|n \cap (y, x)|` the area that region n and pixel (y, x) have in common. Method of "Recurrent Space-time
    Graph Neural Networks" (`arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_).

    Args:
        scales: Grids of regions, see :func:`~rstg_pyg.region_graph`.

    Shapes:
        - **input:** features ``[*, C, H, W]`` of any H x W.
        - **output:** region features ``[*, N, C]``.

    Raises:
        ValueError: If the input has fewer than 3 dimensions or is not floating point.

    Example:
        >>> import torch
        >>> from rstg_pyg import RegionPool
        >>> RegionPool((3, 2, 1))(torch.randn(8, 64, 14, 14)).shape
        torch.Size([8, 14, 64])
    """

    def forward(self, features: Tensor) -> Tensor:
        dims = features.dim() if isinstance(features, Tensor) and features.layout == torch.strided else -1
        if dims < 3 or not features.is_floating_point() or 0 in features.shape[-2:]:
            raise ValueError(
                "expected floating point features of shape [*, C, H, W] with H and W of at least 1, got "
                f"{describe(features)}"
            )
        return self._weight(features.shape[-2:], features.dtype) @ features.flatten(-2).transpose(-1, -2)

    def _wholes(self, height: int, width: int) -> tuple[Any, Any]:
        return height, width


class RegionProject(_RegionMap):
    r"""Spread region features over a map: area resizing of every scale's grid, summed over the scales.

    .. math::
        f_{y,x} = \sum_n |n \cap (y, x)| \, v_n

    with pixels of area 1, so that the weights of each scale sum to 1 at every pixel. This is not the transpose of
    :class:`RegionPool`: it keeps the size of the values. Method of "Recurrent Space-time Graph Neural Networks"
    (`arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_), RSTG-to-map.

    Args:
        scales: Grids of regions, see :func:`~rstg_pyg.region_graph`.

    Shapes:
        - **input:** region features ``[*, N, C]``; ``size``, the pair (H, W).
        - **output:** features ``[*, C, H, W]``.

    Raises:
        ValueError: If the input's second last dimension is not the number of regions, it is not floating point, or
            ``size`` is no pair of positive ints.

    Example:
        >>> import torch
        >>> from rstg_pyg import RegionProject
        >>> RegionProject((3, 2, 1))(torch.randn(8, 14, 64), size=(28, 28)).shape
        torch.Size([8, 64, 28, 28])
    """

    def forward(self, regions: Tensor, size: tuple[int, int]) -> Tensor:
        if num_dims(regions) < 2 or regions.size(-2) != self.num_regions or not regions.is_floating_point():
            raise ValueError(
                f"expected floating point region features of shape [*, {self.num_regions}, C] for scales="
                f"{self.scales}, got {describe(regions)}"
            )
        height, width = _map_size(size)
        weight = self._weight((height, width), regions.dtype)
        return (regions.transpose(-1, -2) @ weight).unflatten(-1, (height, width))

    def _wholes(self, height: int, width: int) -> tuple[Any, Any]:
        return self.cells[:, 1:2], self.cells[:, 3:4]


def pixel_overlap(index: Tensor, count: Tensor, size: int) -> Tensor:
    r"""Overlap of cells with pixels along one axis, in units of :math:`1/h` pixel, where nothing is rounded.

    Cell i of h covers :math:`[iH/h, (i+1)H/h]` on an axis of H pixels and pixel y covers :math:`[y, y+1]`; h times
    their common length is the integer :math:`\max(0, \min((i+1)H, (y+1)h) - \max(iH, yh))`.

    Shapes:
        - **index, count:** ``[N]`` int64 (i and h of each cell). **output:** ``[N, size]`` int64.
    """
    pixel = torch.arange(size, device=index.device)
    low = torch.maximum(index[:, None] * size, pixel * count[:, None])
    high = torch.minimum((index[:, None] + 1) * size, (pixel + 1) * count[:, None])
    return (high - low).clamp(min=0)


def _map_size(size: Any) -> tuple[int, int]:
    """The height and width, which are symbols while a program is exported."""
    sides = size if isinstance(size, (tuple, list)) and len(size) == 2 else ()
    if not sides or not all(isinstance(n, (int, torch.SymInt)) and not isinstance(n, bool) and n > 0 for n in sides):
        raise ValueError(f"expected 'size' to be a pair (H, W) of positive ints, got {describe(size)}")
    return sides
