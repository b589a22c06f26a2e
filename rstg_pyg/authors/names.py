"""The names of the program's variables, and where the array of each goes.

A *placement* says what a variable's array must look like and which pieces of a module's state it fills. The table of a
module is a plain dict of placements by variable name, so that the table of a larger network is its own entries and
those of its parts, joined with ``|``. All names are those of the program, IuliaDuta/RSTG at 788a7a3.
"""

from collections.abc import Callable
from types import EllipsisType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rstg_pyg.authors.block import AuthorsRSTG
from rstg_pyg.authors.networks import FINAL, AuthorsSyncMNISTNet, AuthorsVideoNet
from rstg_pyg.authors.norms import ProgramBatchNorm
from rstg_pyg.authors.stages import AdditiveAttention, NodeLSTM
from rstg_pyg.models.resnet import STAGES, ConvNorm, ResidualBlock, VideoResNet


class Piece(NamedTuple):
    """Values for one entry of a module's ``state_dict``, or for some rows of it.

    Example:
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


def placements(
    module: AuthorsRSTG | AuthorsSyncMNISTNet | AuthorsVideoNet,
    scope: str = "tower",
    graph: str = "whole_graph_model_final",
) -> Placements:
    """List the placements of a block or network, by variable name.

    Args:
        module: Block or network.
        scope: What all names start with.
        graph: Name of the block's own scope in it; a video network has its own names for its blocks.

    Raises:
        ValueError: For another module.

    Example:
        >>> from rstg_pyg.authors import AuthorsRSTG, placements
        >>> placements(AuthorsRSTG(16))["tower/whole_graph_model_final/my_attn/att_conv1/kernel"].shape
        (1, 16, 1)
    """
    root = scope + "/" if scope else ""
    if isinstance(module, AuthorsRSTG):
        return block_placements(module, f"{root}{graph}/", f"{root}positional_emb")
    if isinstance(module, AuthorsVideoNet):
        return _video(module, root)
    if not isinstance(module, AuthorsSyncMNISTNet):
        raise ValueError(
            f"expected an AuthorsRSTG, an AuthorsSyncMNISTNet or an AuthorsVideoNet, got {type(module).__name__}"
        )
    table = block_placements(module.graph, f"{root}{graph}/", f"{root}positional_emb", "graph.")
    for index, convolution in enumerate(module.backbone[::3]):
        table |= _convolution(f"{root}conv{index}/conv2d", f"backbone.{3 * index}", convolution)
    return table | _linear(f"{root}pred", "classifier", module.classifier, ones=3)


def block_placements(block: AuthorsRSTG, scope: str, heatmap: str = "positional_emb", prefix: str = "") -> Placements:
    """List the placements of one block inside any network.

    Args:
        block: The block.
        scope: What the names of the block's variables start with, with its last slash.
        heatmap: Name of the variable that holds the position heatmaps.
        prefix: What the names of the block's entries in the network's ``state_dict`` start with.

    Example:
        >>> from rstg_pyg.authors import AuthorsRSTG, block_placements
        >>> table = block_placements(AuthorsRSTG(16), "tower/whole_graph_model_res3/")
        >>> table["tower/whole_graph_model_res3/send_messages_mlp/send_conv1/kernel"].shape
        (1, 1, 104, 16)
    """
    table = _lstm(scope, f"{prefix}time", block.time)
    table |= _lstm(f"{scope}time_update_extern/", f"{prefix}last_time", block.last_time)
    if block.heatmap is not None:
        table[heatmap] = _copy(f"{prefix}heatmap", block.heatmap)
    if isinstance(block.project_in, nn.Linear):
        table |= _linear(f"{scope}project_i3d", f"{prefix}project_in", block.project_in)
        table |= _linear(f"{scope}project_back_to_i3d", f"{prefix}project_out", block.project_out)
    for name, norm in block.input_norm.named_children():
        variable = "batch_normalization" if name == "batch_norm" else f"before_graf{_suffix(norm)}"
        table |= _norm(f"{scope}{variable}", f"{prefix}input_norm.{name}", norm)
    table |= _send(f"{scope}send_messages_mlp/", f"{prefix}send.", block)
    table |= _attention(scope, prefix, block)
    return table | _update(scope, f"{prefix}update.", block)


def _send(scope: str, prefix: str, block: AuthorsRSTG) -> Placements:
    send = block.send
    width = send.sender.in_features

    def halves(kernel: Tensor) -> list[Piece]:
        rows = kernel[0, 0].t()
        return [Piece(f"{prefix}sender.weight", rows[:, :width]), Piece(f"{prefix}receiver.weight", rows[:, width:])]

    return {
        f"{scope}send_conv1/kernel": Placement((1, 1, 2 * width, block.channels), halves),
        f"{scope}send_conv1/bias": _copy(f"{prefix}sender.bias", send.sender.bias),
        **_linear(f"{scope}send_conv2", f"{prefix}second", send.second, ones=2),
        **_norm(f"{scope}message{_suffix(send.norm)}", f"{prefix}norm", send.norm),
    }


def _attention(scope: str, prefix: str, block: AuthorsRSTG) -> Placements:
    attention, gather = block.attention, block.gather
    kind = "my_attn/" if isinstance(attention, AdditiveAttention) else "dot_product_attn/"
    width = block.channels // attention.heads
    table: Placements = {}
    for head in range(attention.heads):
        outer = f"{scope}attention_head{head}/" if attention.heads > 1 else scope
        rows = slice(head * width, (head + 1) * width) if attention.heads > 1 else ...
        for variable, name in (("att_conv1", "receiver"), ("att_conv2", "sender")):
            layer = getattr(attention, name)
            table |= _linear(f"{outer}{kind}{variable}", f"{prefix}attention.{name}", layer, 1, rows)
        table[f"{outer}{kind}att_bias/biases"] = _copy(f"{prefix}gather.bias", gather.bias, rows)
        if gather.project is not None:
            table |= _linear(f"{outer}messages_proj", f"{prefix}gather.project", gather.project, 2, rows)
    return table | _norm(f"{scope}{kind}att{_suffix(gather.norm)}", f"{prefix}gather.norm", gather.norm)


def _update(scope: str, prefix: str, block: AuthorsRSTG) -> Placements:
    update = block.update
    per_scale = block.update_per_scale
    scope = f"{scope}update_node_mlp_/" if per_scale else f"{scope}update_node_mlp/"
    table = _norm(f"{scope}update{_suffix(update.norm)}", f"{prefix}norm", update.norm)
    for index, mlp in enumerate(update.mlps):
        suffix = f"_type{index + 1}" if per_scale else ""
        for number, layer in enumerate(mlp[::2]):
            name = f"{prefix}mlps.{index}.{2 * number}"
            table |= _linear(f"{scope}update_conv{number + 1}{suffix}", name, layer, ones=1)
    return table


def _lstm(scope: str, prefix: str, stage: NodeLSTM) -> Placements:
    """In torch's four arrays, or as TensorFlow 1.13 saves a cuDNN LSTM.

    The saved kernel is ``[I + C, 4C]``: input rows over state rows, the gates i, c, f, o side by side. There is one
    bias per gate, the sum of the two that the LSTM adds. torch stacks the gates in the order i, f, c, o, has a matrix
    for the input and one for the state, and keeps both biases.
    """
    lstm = stage.lstm
    inputs, width = lstm.input_size, lstm.hidden_size
    names = {key: f"{prefix}.lstm.{name}_l0" for key, name in _LSTM.items()}

    def ordered(rows: Tensor) -> Tensor:
        i, c, f, o = rows.chunk(4)
        return torch.cat([i, f, c, o])

    def kernel_pieces(kernel: Tensor) -> list[Piece]:
        rows = ordered(kernel.t())
        return [Piece(names["w_ih"], rows[:, :inputs]), Piece(names["w_hh"], rows[:, inputs:])]

    def bias_pieces(bias: Tensor) -> list[Piece]:
        return [Piece(names["b_ih"], ordered(bias)), Piece(names["b_hh"], torch.zeros_like(bias))]

    table: Placements = {}
    # The library that saves these puts its own scope's name in front or not, by the way it is used.
    for own in ("cudnn_lstm/", ""):
        cell = f"{scope}{own}rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell/"
        table[f"{cell}kernel"] = Placement((inputs + width, 4 * width), kernel_pieces)
        table[f"{cell}bias"] = Placement((4 * width,), bias_pieces)
    for key, name in _LSTM.items():
        table[f"{scope}cudnn_lstm/{key}"] = _copy(names[key], getattr(lstm, f"{name}_l0"))
    return table


_LSTM = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}


def _suffix(norm: nn.Module) -> str:
    return "_bn" if isinstance(norm, ProgramBatchNorm) else "_ln"


def _video(net: AuthorsVideoNet, root: str) -> Placements:
    network = f"{root}resnet_{net.form}/"
    table = _resnet(net, f"{network}backbone/")
    for place in net.places:
        # The program opens the scope of a block in the backbone's where the block stands inside it.
        scopes = [network] if place == FINAL else [f"{network}backbone/", network]
        # Its two networks name the norm after a block differently.
        norms = [f"{place}_after_graph_ln"]
        if net.form == "c2d" and len(net.places) == 1:
            norms.insert(0, "after_graph_ln")
        for scope in scopes:
            prefix, branch = net.branch(place)
            graph = f"{scope}whole_graph_model_{place}/"
            table |= block_placements(branch.graph, graph, f"{root}positional_emb", f"{prefix}.graph.")
            for norm in norms:
                table[f"{scope}{norm}/beta"] = _copy(f"{prefix}.norm.bias", branch.norm.bias)
                table[f"{scope}{norm}_scale"] = _copy(f"{prefix}.norm.scale", branch.norm.scale)
    return table | _linear(f"{network}pred", "classifier", net.classifier, ones=3)


def _resnet(net: VideoResNet, scope: str) -> Placements:
    """Convolutions and batch norms, without the classifier and what stands between the residual blocks."""

    def conv_norm(variable: str, norm: str, name: str, layers: ConvNorm) -> Placements:
        table = _convolution(f"{scope}{variable}", f"{name}.conv", layers.conv)
        return table | _norm(f"{scope}{norm}", f"{name}.norm", layers.norm)

    table = conv_norm("conv1", "res_conv1_bn", "conv1", net.conv1)
    for stage in STAGES:
        for name, block in getattr(net, stage).named_children():
            if not isinstance(block, ResidualBlock):
                continue
            for branch, part in {"2a": "a", "2b": "b", "2c": "c", "1": "shortcut"}.items():
                layers = getattr(block, part)
                if layers is not None:
                    variable = f"{stage}_{name}_branch{branch}"
                    table |= conv_norm(variable, f"{variable}_bn", f"{stage}.{name}.{part}", layers)
    return table


def _copy(name: str, entry: Tensor, rows: slice | EllipsisType = ...) -> Placement:
    """An array that fills an entry of the module's state, or some rows of it, as it is."""
    return Placement(tuple(entry[rows].shape), lambda array: [Piece(name, array, rows)])


def _linear(scope: str, name: str, layer: nn.Linear, ones: int = 0, rows: slice | EllipsisType = ...) -> Placements:
    """Kernel ``[1, .., 1, in, out]`` and bias of a linear layer, which the program may write as a convolution of size
    1. Only the ``rows`` are filled, for one head of several."""
    shape = (1,) * ones + (layer.in_features, layer.weight[rows].size(0))
    return {
        f"{scope}/kernel": Placement(
            shape, lambda kernel: [Piece(f"{name}.weight", kernel.reshape(shape[-2:]).t(), rows)]
        ),
        f"{scope}/bias": _copy(f"{name}.bias", layer.bias, rows),
    }


def _convolution(scope: str, name: str, layer: nn.Conv2d | nn.Conv3d) -> Placements:
    """Kernel ``[*size, in, out]`` of a convolution, and its bias where it has one."""
    shape = (*layer.kernel_size, layer.in_channels, layer.out_channels)
    order = (len(shape) - 1, len(shape) - 2, *range(len(shape) - 2))
    table = {f"{scope}/kernel": Placement(shape, lambda kernel: [Piece(f"{name}.weight", kernel.permute(order))])}
    if layer.bias is not None:
        table[f"{scope}/bias"] = _copy(f"{name}.bias", layer.bias)
    return table


def _norm(scope: str, name: str, norm: nn.Module) -> Placements:
    """Gain and bias of a norm, and the running statistics of a batch norm; none of an identity."""
    entries = {"gamma": "weight", "beta": "bias"}
    if isinstance(norm, nn.Identity):
        return {}
    if isinstance(norm, ProgramBatchNorm | nn.modules.batchnorm._BatchNorm):
        entries |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    return {f"{scope}/{key}": _copy(f"{name}.{entry}", getattr(norm, entry)) for key, entry in entries.items()}
