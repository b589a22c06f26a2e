"""The names of the variables of the program's space-time block, and where each goes."""

from torch import Tensor, nn

from rstg_pyg.authors.block import AuthorsRSTG
from rstg_pyg.authors.gather import AdditiveAttention
from rstg_pyg.authors.lstm_form import split_saved_bias, split_saved_kernel
from rstg_pyg.authors.norms import ProgramBatchNorm
from rstg_pyg.authors.placement import (
    Piece,
    Placement,
    Placements,
    copy_placement,
    linear_placements,
    norm_placements,
)
from rstg_pyg.authors.time_stage import NodeLSTM


def block_placements(block: AuthorsRSTG, scope: str, heatmap: str = "positional_emb", prefix: str = "") -> Placements:
    """List the placements of one block inside any network.

    Args:
        block: the block.
        scope: what the names of the block's variables start with, with its last slash.
        heatmap: name of the variable that holds the position heatmaps.
        prefix: what the names of the block's entries in the network's `state_dict` start with.

    Source: variable names of the program, IuliaDuta/RSTG at 788a7a3.

    Example:
        >>> table = block_placements(AuthorsRSTG(16), "tower/whole_graph_model_res3/")
        >>> table["tower/whole_graph_model_res3/send_messages_mlp/send_conv1/kernel"].shape
        (1, 1, 104, 16)
    """
    table = _lstm(scope, f"{prefix}time", block.time)
    table |= _lstm(f"{scope}time_update_extern/", f"{prefix}last_time", block.last_time)
    if block.heatmap is not None:
        shape = tuple(block.heatmap.shape)
        table[heatmap] = Placement(shape, lambda array: [Piece(f"{prefix}heatmap", array)])
    if isinstance(block.project_in, nn.Linear):
        table |= linear_placements(f"{scope}project_i3d", f"{prefix}project_in", block.project_in)
        table |= linear_placements(f"{scope}project_back_to_i3d", f"{prefix}project_out", block.project_out)
    for name, norm in block.input_norm.named_children():
        variable = f"{scope}before_graf{_suffix(norm)}"
        if name == "batch_norm":
            variable = f"{scope}batch_normalization"
        table |= norm_placements(variable, f"{prefix}input_norm.{name}", norm)
    table |= _send(f"{scope}send_messages_mlp/", f"{prefix}send.", block)
    table |= _attention(scope, prefix, block)
    return table | _update(scope, f"{prefix}update.", block)


def _send(scope: str, prefix: str, block: AuthorsRSTG) -> Placements:
    send = block.send
    width = send.sender.in_features

    def halves(kernel: Tensor) -> list[Piece]:
        rows = kernel[0, 0].t()
        return [
            Piece(f"{prefix}sender.weight", rows[:, :width]),
            Piece(f"{prefix}receiver.weight", rows[:, width:]),
        ]

    return {
        f"{scope}send_conv1/kernel": Placement((1, 1, 2 * width, block.channels), halves),
        f"{scope}send_conv1/bias": copy_placement(f"{prefix}sender.bias", (block.channels,)),
        **linear_placements(f"{scope}send_conv2", f"{prefix}second", send.second, ones=2),
        **norm_placements(f"{scope}message{_suffix(send.norm)}", f"{prefix}norm", send.norm),
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
            table |= linear_placements(
                f"{outer}{kind}{variable}", f"{prefix}attention.{name}", layer, ones=1, rows=rows
            )
        table[f"{outer}{kind}att_bias/biases"] = copy_placement(f"{prefix}gather.bias", (width,), rows)
        if gather.project is not None:
            table |= linear_placements(f"{outer}messages_proj", f"{prefix}gather.project", gather.project, 2, rows)
    norm = f"{scope}{kind}att{_suffix(gather.norm)}"
    return table | norm_placements(norm, f"{prefix}gather.norm", gather.norm)


def _update(scope: str, prefix: str, block: AuthorsRSTG) -> Placements:
    update = block.update
    per_scale = block.update_per_scale
    scope = f"{scope}update_node_mlp_/" if per_scale else f"{scope}update_node_mlp/"
    table = norm_placements(f"{scope}update{_suffix(update.norm)}", f"{prefix}norm", update.norm)
    for index, mlp in enumerate(update.mlps):
        suffix = f"_type{index + 1}" if per_scale else ""
        for number, layer in enumerate(mlp[::2]):
            name = f"{prefix}mlps.{index}.{2 * number}"
            table |= linear_placements(f"{scope}update_conv{number + 1}{suffix}", name, layer, ones=1)
    return table


def _lstm(scope: str, prefix: str, stage: NodeLSTM) -> Placements:
    inputs, width = stage.lstm.input_size, stage.lstm.hidden_size
    w_ih, w_hh = f"{prefix}.lstm.weight_ih_l0", f"{prefix}.lstm.weight_hh_l0"
    b_ih, b_hh = f"{prefix}.lstm.bias_ih_l0", f"{prefix}.lstm.bias_hh_l0"

    def kernel_pieces(kernel: Tensor) -> list[Piece]:
        weights = split_saved_kernel(kernel, inputs)
        return [Piece(name, weight) for name, weight in zip((w_ih, w_hh), weights, strict=True)]

    def bias_pieces(bias: Tensor) -> list[Piece]:
        return [Piece(name, part) for name, part in zip((b_ih, b_hh), split_saved_bias(bias), strict=True)]

    table: Placements = {}
    # The library that saves these puts its own scope's name in front or not, by the way it is used.
    for own in ("cudnn_lstm/", ""):
        cell = f"{scope}{own}rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell/"
        table[f"{cell}kernel"] = Placement((inputs + width, 4 * width), kernel_pieces)
        table[f"{cell}bias"] = Placement((4 * width,), bias_pieces)
    return table | {
        f"{scope}cudnn_lstm/w_ih": copy_placement(w_ih, (4 * width, inputs)),
        f"{scope}cudnn_lstm/w_hh": copy_placement(w_hh, (4 * width, width)),
        f"{scope}cudnn_lstm/b_ih": copy_placement(b_ih, (4 * width,)),
        f"{scope}cudnn_lstm/b_hh": copy_placement(b_hh, (4 * width,)),
    }


def _suffix(norm: nn.Module) -> str:
    return "_bn" if isinstance(norm, ProgramBatchNorm) else "_ln"
