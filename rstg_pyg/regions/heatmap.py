"""Gaussian position heatmaps of regions."""

import torch
from torch import Tensor

from rstg_pyg.regions.cells import pixel_overlap

STANDARD_DEVIATION = 2.0
"""Of the Gaussian, in cells of the heatmap's own grid: the authors' value at every scale."""


def cell_heatmaps(cells: Tensor, heatmap_size: int) -> Tensor:
    r"""Draw an unnormalised Gaussian in each region, on a D x D grid over the frame.

    .. math::
        p_n[u, v] = s_n[u, v] \cdot \exp\left(-\frac{(u + \frac12 - c_y)^2 + (v + \frac12 - c_x)^2}{2 \cdot 2^2}\right)

    with :math:`(c_y, c_x)` the centre of region n in grid cells and :math:`s_n[u, v]` the share of grid cell (u, v)
    that lies in the region: 0 or 1 where D divides by the scale, a fraction where a region's border cuts a grid cell.

    Shapes:
        - cells: ``[N, 4]`` from :func:`~rstg_pyg.regions.cells.grid_cells`.
        - output: ``[N, D * D]`` of the default type, row by row.
    """
    row, rows, column, columns = cells.unbind(1)
    along_y = _axis_profile(row, rows, heatmap_size)
    along_x = _axis_profile(column, columns, heatmap_size)
    return (along_y[:, :, None] * along_x[:, None, :]).flatten(1).to(torch.get_default_dtype())


def _axis_profile(index: Tensor, count: Tensor, size: int) -> Tensor:
    centre = (index.double() + 0.5) * size / count
    offset = torch.arange(size) + 0.5 - centre[:, None]
    share = pixel_overlap(index, count, size) / count[:, None].double()
    return share * torch.exp(-(offset**2) / (2 * STANDARD_DEVIATION**2))
