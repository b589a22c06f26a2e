"""Where the array of one of the program's variables goes.

A *placement* says what a variable's array must look like and which pieces of a module's state it fills. The table of a
module is a plain dict of placements by variable name, so that the table of a larger network is its own entries and
those of its parts, joined with `|`.
"""

from collections.abc import Callable
from types import EllipsisType
from typing import NamedTuple

from torch import Tensor, nn

from rstg_pyg.authors.norms import ProgramBatchNorm


class Piece(NamedTuple):
    """Values for one entry of a module's `state_dict`, or for some rows of it.

    Example:
        >>> import torch
        >>> Piece("weight", torch.ones(2, 3), slice(0, 2)).name
        'weight'
    """

    name: str
    value: Tensor
    rows: slice | EllipsisType = ...


class Placement(NamedTuple):
    """The shape that a variable's array must have, and a map from it to the pieces that it fills.

    The map only moves numbers about (and fills in zeros), so it serves for gradients as well.

    Example:
        >>> Placement((2, 3), lambda array: [Piece("weight", array.t())]).shape
        (2, 3)
    """

    shape: tuple[int, ...]
    place: Callable[[Tensor], list[Piece]]


Placements = dict[str, Placement]


def copy_placement(name: str, shape: tuple[int, ...], rows: slice | EllipsisType = ...) -> Placement:
    """An array that fills an entry, or some rows of it, as it is.

    Args:
        name: the entry's name.
        shape: the array's shape.
        rows: the rows to fill.

    Example:
        >>> copy_placement("bias", (3,)).shape
        (3,)
    """
    return Placement(shape, lambda array: [Piece(name, array, rows)])


def linear_placements(
    scope: str, name: str, layer: nn.Linear, ones: int = 0, rows: slice | EllipsisType = ...
) -> Placements:
    """Kernel and bias of a linear layer, which the program may write as a convolution of size 1.

    Args:
        scope: what the variables' names start with, without the last slash.
        name: what the entries' names start with, without the last dot.
        layer: the layer.
        ones: leading axes of size 1 of the kernel `[1, .., 1, in, out]`.
        rows: the rows to fill, for one head of several.

    Example:
        >>> linear_placements("pred", "classifier", nn.Linear(8, 3), ones=3)["pred/kernel"].shape
        (1, 1, 1, 8, 3)
    """
    out = layer.weight[rows].size(0)
    shape = (1,) * ones + (layer.in_features, out)
    return {
        f"{scope}/kernel": Placement(
            shape, lambda kernel: [Piece(f"{name}.weight", kernel.reshape(shape[-2:]).t(), rows)]
        ),
        f"{scope}/bias": copy_placement(f"{name}.bias", (out,), rows),
    }


def convolution_placements(scope: str, name: str, layer: nn.Conv2d | nn.Conv3d) -> Placements:
    """Kernel `[*size, in, out]` of a convolution, and its bias where it has one.

    Args:
        scope: what the variables' names start with, without the last slash.
        name: what the entries' names start with, without the last dot.
        layer: the convolution.

    Example:
        >>> convolution_placements("conv1", "conv", nn.Conv3d(3, 8, (5, 7, 7), bias=False))["conv1/kernel"].shape
        (5, 7, 7, 3, 8)
    """
    shape = (*layer.kernel_size, layer.in_channels, layer.out_channels)
    order = (len(shape) - 1, len(shape) - 2, *range(len(shape) - 2))
    table = {f"{scope}/kernel": Placement(shape, lambda kernel: [Piece(f"{name}.weight", kernel.permute(order))])}
    if layer.bias is not None:
        table[f"{scope}/bias"] = copy_placement(f"{name}.bias", (layer.out_channels,))
    return table


def norm_placements(scope: str, name: str, norm: nn.Module) -> Placements:
    """Gain and bias of a norm, and the running statistics of a batch norm; none of an identity.

    Args:
        scope: what the variables' names start with, without the last slash.
        name: what the entries' names start with, without the last dot.
        norm: the norm.

    Example:
        >>> sorted(norm_placements("res_conv1_bn", "norm", nn.BatchNorm3d(8)))
        ['res_conv1_bn/beta', 'res_conv1_bn/gamma', 'res_conv1_bn/moving_mean', 'res_conv1_bn/moving_variance']
    """
    entries = {"gamma": "weight", "beta": "bias"}
    if isinstance(norm, nn.Identity):
        return {}
    if isinstance(norm, ProgramBatchNorm | nn.modules.batchnorm._BatchNorm):
        entries |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    shape = tuple(norm.weight.shape)
    return {f"{scope}/{variable}": copy_placement(f"{name}.{entry}", shape) for variable, entry in entries.items()}
