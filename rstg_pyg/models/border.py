"""Maps with their border repeated, in whatever layout they lie."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Conv2d, Module


def repeat_border(maps: Tensor) -> Tensor:
    """Put one more row and column of the same values around maps.

    It is :func:`torch.nn.functional.pad` with ``mode="replicate"``, whose gradient comes in another layout than
    compilers are told for maps with channels last, so that compiled networks would stop at it: they join slices.

    Shapes:
        - **input:** ``[N, C, H, W]`` or ``[N, C, T, H, W]``. **output:** the same with H + 2 and W + 2.

    Example:
        >>> import torch
        >>> from rstg_pyg.models.border import repeat_border
        >>> repeat_border(torch.tensor([[[[1.0, 2.0]]]]))[0, 0, 0]
        tensor([1., 1., 2., 2.])
    """
    if not torch.compiler.is_compiling():
        return F.pad(maps, (1, 1, 1, 1) + (0, 0) * (maps.dim() == 5), mode="replicate")
    for dim in (-2, -1):
        maps = torch.cat((maps.narrow(dim, 0, 1), maps, maps.narrow(dim, -1, 1)), dim)
    return maps


class RepeatBorder(Module):
    """:func:`repeat_border` as a layer."""

    def forward(self, maps: Tensor) -> Tensor:
        return repeat_border(maps)


class RepeatBorderConv2d(Conv2d):
    """A convolution with kernels of 3 x 3 of maps whose border is repeated: they keep their size."""

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(repeat_border(maps))
