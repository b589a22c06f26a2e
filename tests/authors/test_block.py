"""The block's options that no recording covers, its borders, and its modules one by one."""

import pytest
import torch
from torch import nn

from rstg_pyg.authors import AuthorsRSTG, AuthorsSyncMNISTNet, AuthorsToMap, AuthorsToVec
from rstg_pyg.authors.norms import ProgramBatchNorm, input_norm, stage_norm
from rstg_pyg.authors.stages import AllPairsSend, DotAttention, UnmaskedGather


def randomise(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)


def test_heads_as_the_program_computes_them():
    torch.manual_seed(0)
    heads, channels, count = 4, 8, 5
    attention = DotAttention(channels, heads)
    gather = UnmaskedGather(channels, heads)
    randomise(attention)
    randomise(gather)
    nodes = torch.randn(2, 3, count, channels)
    messages = torch.randn(2, 3, count, count, channels)
    adjacency = (torch.rand(count, count) < 0.5).float()

    outputs = []
    for head in range(heads):
        rows = slice(head * 2, head * 2 + 2)
        query = nodes @ attention.receiver.weight[rows].t() + attention.receiver.bias[rows]
        key = nodes @ attention.sender.weight[rows].t() + attention.sender.bias[rows]
        products = query.unsqueeze(-2) * key.unsqueeze(-3)
        alpha = (adjacency[..., None] * products).sum(-1).softmax(-1)
        projected = messages @ gather.project.weight[rows].t() + gather.project.bias[rows]
        summed = (alpha.unsqueeze(-1) * projected).sum(-2)
        outputs.append((summed + gather.bias[rows]).relu())
    expected = torch.cat(outputs, dim=-1)
    torch.testing.assert_close(gather(attention(nodes, adjacency), messages), expected)


def test_messages_are_an_mlp_of_the_joined_pair():
    torch.manual_seed(0)
    send = AllPairsSend(4, position_width=9)
    randomise(send)
    nodes, position = torch.randn(2, 3, 5, 4), torch.rand(5, 9)
    first = torch.cat([send.sender.weight, send.receiver.weight], dim=1)
    messages = send(nodes, position)
    for receiver, sender in [(0, 0), (1, 4), (4, 1)]:
        ends = [torch.cat([nodes[:, :, node], position[node].expand(2, 3, 9)], dim=-1) for node in (sender, receiver)]
        hidden = (torch.cat(ends, dim=-1) @ first.t() + send.sender.bias).relu()
        expected = send.second(hidden).relu()
        torch.testing.assert_close(messages[:, :, receiver, sender], expected)


@pytest.mark.parametrize(("node_axes", "unbiased"), [(1, False), (2, True)])
def test_batch_norm_is_a_layer_used_once_per_frame(node_axes, unbiased):
    torch.manual_seed(0)
    norm = ProgramBatchNorm(4, unbiased=unbiased)
    randomise(norm)
    reference = nn.BatchNorm1d(4, eps=1e-3, momentum=0.01)
    reference.load_state_dict(norm.state_dict(), strict=False)
    x = 3 * torch.randn(2, 6, *(5,) * node_axes, 4) + 1
    frames = [reference(frame.flatten(0, -2)).view_as(frame) for frame in x.unbind(1)]
    torch.testing.assert_close(norm(x), torch.stack(frames, dim=1))
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    if unbiased:
        torch.testing.assert_close(norm.running_var, reference.running_var)
    else:
        running = torch.ones(4)
        for frame in x.unbind(1):
            running = 0.99 * running + 0.01 * frame.flatten(0, -2).var(0, correction=0)
        torch.testing.assert_close(norm.running_var, running)
    norm.eval()
    reference.running_var.copy_(norm.running_var)
    expected = reference.eval()(x.flatten(0, -2)).view_as(x)
    torch.testing.assert_close(norm(x), expected)


def test_batch_norm_of_the_node_input_is_used_once():
    torch.manual_seed(0)
    norm = input_norm("batch", 4, batch_norm=False)
    reference = nn.BatchNorm1d(4, eps=1e-3, momentum=0.01)
    x = 3 * torch.randn(2, 6, 5, 4) + 1
    torch.testing.assert_close(norm(x), reference(x.flatten(0, -2)).view_as(x))
    torch.testing.assert_close(norm.stage_norm.running_var, reference.running_var)


def test_layer_norm_spans_all_axes_of_a_frame():
    x = torch.randn(2, 3, 5, 5, 4)
    normalised = stage_norm("layer", 4, node_axes=2)(x)
    torch.testing.assert_close(normalised.mean((-3, -2, -1)), torch.zeros(2, 3), atol=1e-6, rtol=0)
    assert len(input_norm("layer", 4, batch_norm=True)) == 2


@pytest.mark.parametrize(("norm", "heads"), [(None, 1), ("layer", 1), ("batch", 8)])
def test_graph_of_its_own_width(norm, heads):
    block = AuthorsRSTG(12, channels=16, attention="dot", heads=heads, norm=norm)
    nodes = block(torch.randn(2, 12, 3, 7, 9))
    assert nodes.shape == (2, 3, 14, 12)
    assert AuthorsToVec()(nodes).shape == (2, 12)
    assert AuthorsToMap()(nodes, size=(7, 9)).shape == (2, 12, 3, 7, 9)
    nodes.sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())


def test_batch_norms_count_every_stage():
    block = AuthorsRSTG(4, scales=(2, 1), num_stages=4, norm="batch")
    nn.init.zeros_(block.update.norm.running_var)
    nn.init.constant_(block.update.norm.running_mean, 1.0)
    for mlp in block.update.mlps:
        nn.init.zeros_(mlp[-2].weight)
    block(torch.randn(2, 4, 3, 6, 6))
    torch.testing.assert_close(block.update.norm.running_mean, torch.full((4,), 0.99 ** (4 * 3)))


def test_time_stages_stop_after_the_third():
    calls = []
    block = AuthorsRSTG(4, scales=(2, 1), num_stages=5)
    block.time.register_forward_hook(lambda *_: calls.append("time"))
    block.update.register_forward_hook(lambda *_: calls.append("space"))
    block.last_time.register_forward_hook(lambda *_: calls.append("last"))
    block(torch.randn(1, 4, 2, 6, 6))
    assert calls == ["time", "space"] * 3 + ["space"] * 2 + ["last"]


def test_starting_weights_are_glorot():
    block = AuthorsRSTG(64)
    bound = (6 / (2 * (64 + 36) + 64)) ** 0.5
    for layer in (block.send.sender, block.send.receiver):
        assert 0.95 * bound < layer.weight.abs().max() <= bound
    assert block.time.lstm.weight_ih_l0.abs().max() <= (6 / 128) ** 0.5
    assert block.time.lstm.bias_ih_l0.abs().max() == 0


def test_reset_parameters_draws_all_weights_anew():
    block = AuthorsRSTG(8, channels=16, attention="dot", heads=4, norm="batch")
    randomise(block)
    block(torch.randn(2, 8, 3, 6, 6))
    torch.manual_seed(0)
    block.reset_parameters()
    torch.manual_seed(0)
    fresh = AuthorsRSTG(8, channels=16, attention="dot", heads=4, norm="batch")
    torch.manual_seed(0)
    fresh.reset_parameters()
    for name, value in block.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


def test_arguments_are_checked():
    for kwargs, message in (
        ({"in_channels": 0}, "'in_channels' to be a positive int, got 0"),
        ({"channels": 0}, "'channels' to be a positive int, got 0"),
        ({"num_stages": 0}, "'num_stages' to be a positive int, got 0"),
        ({"update_layers": "2"}, "'update_layers' to be a positive int, got '2'"),
        ({"attention": "mean"}, "'attention' to be 'additive' or 'dot', got 'mean'"),
        ({"heads": 8}, "'heads' to be 1 with additive attention, got 8"),
        ({"attention": "dot", "heads": 3}, "'heads' to divide 16 channels, got 3"),
        ({"norm": "group"}, "'norm' to be None, 'layer' or 'batch', got 'group'"),
        ({"heatmap_size": 8}, "'heatmap_size' to be a multiple of every scale in [(3, 3), (2, 2), (1, 1)], got 8"),
        ({"heatmap_size": 0}, "'heatmap_size' to be a positive int, got 0"),
    ):
        with pytest.raises(ValueError) as raised:
            AuthorsRSTG(**({"in_channels": 16} | kwargs))
        assert str(raised.value) == f"expected {message}"


def test_inputs_are_checked():
    with pytest.raises(ValueError, match=r"volume of shape \[B, 16, T, H, W\].*, got \[2, 8, 3, 6, 6"):
        AuthorsRSTG(16)(torch.randn(2, 8, 3, 6, 6))
    with pytest.raises(ValueError, match=r"with T, H and W of at least 1, got \[2, 16, 0, 6, 6\]"):
        AuthorsRSTG(16)(torch.randn(2, 16, 0, 6, 6))
    with pytest.raises(ValueError, match=r"nodes of shape \[B, T >= 1, N, C\], got \[2, 0, 14, 16\]"):
        AuthorsToVec()(torch.randn(2, 0, 14, 16))
    with pytest.raises(ValueError, match=r"video of shape \[B, 1, T, H, W\], got \[2, 10, 64, 64\]"):
        AuthorsSyncMNISTNet(4)(torch.randn(2, 10, 64, 64))
    for side in ((21, 64), (64, 16)):
        with pytest.raises(ValueError, match=f"at least 22 x 22 pixels, got .*{side[0]}, {side[1]}"):
            AuthorsSyncMNISTNet(4)(torch.randn(2, 1, 3, *side))
    with pytest.raises(ValueError, match=r"nodes of shape \[B, T >= 1, N, C\], got \[14, 16\]"):
        AuthorsToVec()(torch.randn(14, 16))
    with pytest.raises(ValueError, match=r"nodes of shape \[B, T >= 1, N, C\], got str"):
        AuthorsToVec()("nodes")
    with pytest.raises(ValueError, match="14"):
        AuthorsToMap()(torch.randn(1, 1, 5, 16), size=(6, 6))


def test_pixels_come_as_integers_or_floats():
    net, pixels = AuthorsSyncMNISTNet(4).eval(), torch.randint(256, (2, 1, 3, 22, 22), dtype=torch.uint8)
    assert torch.equal(net(pixels), net(pixels.float()))
    assert net.double()(pixels).dtype == torch.float64


def test_repr_names_the_arguments():
    assert "16, channels=16, num_stages=3" in repr(AuthorsRSTG(16))
    norm = "ProgramBatchNorm(16, per_frame=True, unbiased=False)"
    assert repr(stage_norm("batch", 16, node_axes=1)) == norm
    assert repr(stage_norm("layer", 16, node_axes=1)) == "WholeSampleLayerNorm(16, num_axes=2)"


def test_state_dict_makes_the_round_trip():
    block, other = (AuthorsRSTG(16, norm="batch", input_batch_norm=True) for _ in range(2))
    volume = torch.randn(2, 16, 3, 6, 6)
    block(volume)
    other.load_state_dict(block.state_dict())
    assert torch.equal(block.eval()(volume), other.eval()(volume))


def test_runs_in_double():
    block = AuthorsRSTG(8, norm="batch").double()
    assert block(torch.randn(1, 8, 2, 6, 6, dtype=torch.float64)).dtype == torch.float64
