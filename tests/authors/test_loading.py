"""The loader takes every variable or none, and both forms of an LSTM."""

import numpy as np
import pytest
import torch
from program_network import SAVED_CELL, as_saved, program_shapes, random_variables
from torch import nn

from rstg_pyg.authors import (
    AuthorsRSTG,
    AuthorsSyncMNISTNet,
    AuthorsVideoNet,
    Piece,
    Placement,
    block_placements,
    fill,
    load_variables,
    placements,
)

SCOPE = "tower/whole_graph_model_final/"


@pytest.fixture
def block():
    return AuthorsRSTG(4, scales=(2, 1))


@pytest.fixture
def variables(block):
    generator = np.random.default_rng(0)
    return {
        name: generator.standard_normal(placement.shape).astype(np.float32)
        for name, placement in placements(block).items()
        if SAVED_CELL not in name
    }


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_refused(block, variables, match, **kwargs):
    before = state_of(block)
    with pytest.raises(ValueError, match=match):
        load_variables(block, variables, **kwargs)
    assert all(torch.equal(before[name], value) for name, value in block.state_dict().items())


def test_fills_the_whole_state_and_keeps_its_type(block, variables):
    before = state_of(block.double())
    load_variables(block, {name: torch.from_numpy(array) for name, array in variables.items()})
    assert not any(torch.equal(before[name], value) for name, value in block.state_dict().items())
    assert {value.dtype for value in block.state_dict().values()} == {torch.float64}


def test_what_does_not_fit_is_named(block, variables):
    extra = {"tower/other/kernel": np.zeros(3), "global_step": np.zeros(())}
    assert_refused(block, variables | extra, "without a place: global_step, tower/other/kernel")
    name = SCOPE + "my_attn/att_conv1/kernel"
    array = variables[name]
    turned = {name: array.reshape(1, 1, 4)}
    assert_refused(block, variables | turned, r"att_conv1/kernel' of shape \[1, 4, 1\], got \[1, 1, 4\]")
    assert_refused(block, variables | {name: array * np.nan}, f"'{name}' to hold .* got values that are not finite$")
    assert_refused(block, variables | {name: array * 1j}, f"'{name}' to hold .* got torch.complex64 instead of torch.f")
    del variables[SCOPE + "send_messages_mlp/send_conv1/kernel"]
    del variables["tower/positional_emb"]
    expected = f"expected for them: tower/positional_emb, {SCOPE}send_messages_mlp/send_conv1/kernel$"
    assert_refused(block, variables, f"fills: heatmap, send.receiver.weight, send.sender.weight; variables {expected}")


def test_two_variables_for_one_place_are_refused(block, variables):
    assert_refused(block, as_saved(variables) | variables, "expected one variable for")


def test_another_scope_is_refused_unless_named(block, variables):
    moved = {
        name.replace("tower/", "tower/resnet_c2d/").replace("_final", "_res3"): array
        for name, array in variables.items()
    }
    assert_refused(block, moved, "without a place: .*; entries that no variable fills: ")
    load_variables(block, moved, scope="tower/resnet_c2d", graph="whole_graph_model_res3")


def test_ignored_names_are_left_out(block, variables):
    extra = {SCOPE + "my_attn/att_conv1/kernel/Momentum": np.zeros(1), "global_step": np.zeros(())}
    report = load_variables(block, variables | extra, ignore=["*/Momentum", "global_step"])
    assert report.ignored == dict(zip(sorted(extra), ["global_step", "*/Momentum"], strict=True))
    ignored = "ignored 2 variables (1 as 'global_step', 1 as '*/Momentum')"
    assert str(report) == f"placed 22 variables in 23 entries of the module; {ignored}"


def test_the_report_says_what_filled_what(block, variables):
    saved = as_saved(variables)
    report = load_variables(block, saved)
    assert report.placed.keys() == saved.keys()
    assert report.placed[f"{SCOPE}{SAVED_CELL}kernel"] == ("time.lstm.weight_ih_l0", "time.lstm.weight_hh_l0")
    assert {entry for entries in report.placed.values() for entry in entries} == set(block.state_dict())
    assert str(report) == "placed 18 variables in 23 entries of the module; ignored 0 variables"


class TestOfAVideoNetwork:
    """What a name too many, too few or a wrong shape in a whole network says, to the letter."""

    graph = "tower/resnet_i3d/backbone/whole_graph_model_res3/"

    @pytest.fixture
    def net(self):
        return AuthorsVideoNet("i3d", ("res3",), num_classes=5, width=2)

    @pytest.fixture
    def arrays(self):
        return random_variables(program_shapes("i3d", ("res3",)))

    def message(self, net, arrays):
        before = state_of(net)
        with pytest.raises(ValueError) as raised:
            load_variables(net, arrays)
        assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
        return str(raised.value)

    def test_unknown_name(self, net, arrays):
        arrays["tower/resnet_i3d/backbone/res2_3_branch2a/kernel"] = np.zeros((3, 1, 1, 8, 2))
        expected = "variables without a place: tower/resnet_i3d/backbone/res2_3_branch2a/kernel"
        assert self.message(net, arrays) == expected

    def test_missing_names(self, net, arrays):
        del arrays["tower/resnet_i3d/backbone/res3_0_branch1_bn/moving_mean"]
        del arrays[f"{self.graph}cudnn_lstm/{SAVED_CELL}kernel"]
        assert self.message(net, arrays) == (
            "entries that no variable fills: res3.0.shortcut.norm.running_mean, "
            "res3.rstg.graph.time.lstm.weight_hh_l0, res3.rstg.graph.time.lstm.weight_ih_l0; "
            "variables expected for them: tower/resnet_i3d/backbone/res3_0_branch1_bn/moving_mean, "
            f"{self.graph}cudnn_lstm/{SAVED_CELL}kernel"
        )

    def test_wrong_shape(self, net, arrays):
        arrays["tower/resnet_i3d/backbone/conv1/kernel"] = np.zeros((1, 7, 7, 3, 2))
        expected = "expected 'tower/resnet_i3d/backbone/conv1/kernel' of shape [5, 7, 7, 3, 2], got [1, 7, 7, 3, 2]"
        assert self.message(net, arrays) == expected

    def test_another_network(self, net, arrays):
        message = self.message(net, random_variables(program_shapes("c2d", ("final",))))
        assert "without a place: tower/resnet_c2d/after_graph_ln/beta, " in message
        assert "expected for them: tower/resnet_i3d/backbone/conv1/kernel, " in message

    def test_blocks_beside_the_backbone_s_scope(self, net, arrays):
        load_variables(net, arrays)
        expected = state_of(net)
        moved = {
            n.replace("backbone/whole", "whole").replace("backbone/res3_after", "res3_after"): 1 * a
            for n, a in arrays.items()
        }
        other = AuthorsVideoNet("i3d", ("res3",), num_classes=5, width=2)
        load_variables(other, moved)
        assert all(torch.equal(expected[name], value) for name, value in other.state_dict().items())


@pytest.mark.parametrize("own_scope", ["", "cudnn_lstm/"])
def test_saved_form_of_the_lstm_gives_the_same_nodes(block, variables, own_scope):
    volume = torch.randn(2, 4, 3, 6, 6)
    load_variables(block, variables)
    expected = block(volume)
    saved = {name.replace("rnn/multi", own_scope + "rnn/multi"): array for name, array in as_saved(variables).items()}
    load_variables(block, saved)
    torch.testing.assert_close(block(volume), expected)


def test_names_of_the_options_without_a_recording():
    block = AuthorsRSTG(32, channels=16, attention="dot", heads=8, norm="batch")
    table = placements(block)
    shapes = {
        "project_i3d/kernel": (32, 16),
        "project_back_to_i3d/kernel": (16, 32),
        "project_back_to_i3d/bias": (32,),
        "before_graf_bn/moving_variance": (16,),
        "send_messages_mlp/message_bn/gamma": (16,),
        "update_node_mlp/update_bn/moving_mean": (16,),
        "attention_head7/messages_proj/kernel": (1, 1, 16, 2),
        "attention_head0/dot_product_attn/att_conv2/kernel": (1, 16, 2),
        "attention_head3/dot_product_attn/att_bias/biases": (2,),
    }
    assert {name: table[SCOPE + name].shape for name in shapes} == shapes
    assert "att_bn" not in "".join(table)
    assert SCOPE + "my_attn/att_bn/gamma" in placements(AuthorsRSTG(16, norm="batch"))
    arrays = {n: np.ones(p.shape) for n, p in table.items() if SAVED_CELL not in n}
    load_variables(block, arrays)


def test_heads_fill_their_own_rows():
    block = AuthorsRSTG(8, scales=(1,), attention="dot", heads=2, heatmap_size=None)
    kernel = torch.arange(32.0).reshape(1, 8, 4)
    name = SCOPE + "attention_head1/dot_product_attn/att_conv1/kernel"
    (piece,) = placements(block)[name].place(kernel)
    assert piece.name == "attention.receiver.weight"
    assert piece.rows == slice(4, 8)
    assert torch.equal(piece.value, kernel[0].t())


def test_tables_of_blocks_join_into_a_network():
    net = nn.ModuleDict({"a": AuthorsRSTG(4), "b": AuthorsRSTG(4, heatmap_size=None)})
    table = block_placements(net["a"], "a/", "a/map", "a.") | block_placements(net["b"], "b/", "", "b.")
    arrays = {name: np.ones(where.shape) for name, where in table.items() if SAVED_CELL not in name}
    fill(net, table, arrays)
    assert all(bool((value == 1).all()) for value in net.state_dict().values())


def test_fill_leaves_batch_counters_and_takes_scalars():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Module())
    net[1].scale = nn.Parameter(torch.zeros(()))
    names = {"0.weight": (2,), "0.bias": (2,), "0.running_mean": (2,), "0.running_var": (2,)}
    table = {
        name: Placement(shape, lambda array, name=name: [Piece(name, array)])
        for name, shape in (names | {"1.scale": ()}).items()
    }
    fill(net, table, {name: np.full(where.shape, 3.0) for name, where in table.items()})
    assert net[1].scale.item() == 3.0
    assert net[0].num_batches_tracked.item() == 0


def test_other_modules_have_no_table():
    with pytest.raises(ValueError, match="an AuthorsSyncMNISTNet or an AuthorsVideoNet, got Linear"):
        placements(nn.Linear(2, 2))


def test_network_of_the_paper_has_its_variables():
    table = placements(AuthorsSyncMNISTNet(filters=8))
    assert table["tower/conv1/conv2d/kernel"].shape == (3, 3, 8, 8)
    assert table["tower/pred/kernel"].shape == (1, 1, 1, 8, 46)
