"""Blocks in networks that know nothing of them: what stays, what comes in, what goes wrong."""

import copy
import math
from collections import OrderedDict, defaultdict
from types import MappingProxyType
from typing import NamedTuple

import pytest
import torch
from inserted_hosts import OPTIONS, Net, clips, example, host, inserted, wake
from settled import settle
from torch import Tensor, nn

from rstg_pyg import RSTGToMap
from rstg_pyg.blocks import InsertedBlocks, host_state_dict, insert_rstg, load_host_state_dict, remove_rstg
from rstg_pyg.models import NonLocalBlock, VideoResNet

PLAIN = [
    (2, True, torch.channels_last),
    (2, False, torch.contiguous_format),
    (3, True, torch.contiguous_format),
    (3, False, torch.channels_last_3d),
]
"""Hosts of frames and of clips, in training and evaluation, in either order of the memory."""


class Pair(NamedTuple):
    """What a module may return."""

    features: Tensor
    weights: Tensor


class Returning(nn.Module):
    """A host whose layer returns its features in a container."""

    def __init__(self, wrap):
        super().__init__()
        self.layer = nn.Conv3d(3, 4, 1)
        self.packed = nn.Identity()
        self.packed.forward = wrap

    def forward(self, x):
        return self.packed(self.layer(x))


@pytest.mark.parametrize(("dims", "mode", "format_"), PLAIN)
def test_the_output_and_the_gradients_stay_bit_for_bit(dims, mode, format_):
    net, x = host(dims).to(memory_format=format_).train(mode), example(dims).contiguous(memory_format=format_)

    def run():
        net.zero_grad()
        torch.manual_seed(1)
        out = net(x)
        out.square().sum().backward()
        return [out.detach(), *(p.grad.clone() for p in net.head.parameters())]

    state = copy.deepcopy(net.state_dict())
    before, convolution = run(), net.layer1[0].weight.grad.clone()
    net.load_state_dict(state)
    insert_rstg(net, {"layer1": OPTIONS, "layer2.1": OPTIONS}, example=x, num_frames=4 if dims == 2 else None)
    assert all(torch.equal(old, new) for old, new in zip(before, run(), strict=True))
    torch.testing.assert_close(net.layer1[0].weight.grad, convolution)


def test_a_block_gets_the_features_and_gives_them_on():
    """Against the network written out with the block in its place; the number of frames is free."""
    for dims in (2, 3):
        net = inserted(dims)
        blocks = wake(net).rstg_blocks
        for num_frames in (4, 6):
            blocks.num_frames = None if dims == 3 else num_frames
            x = clips(3, num_frames)
            volume = x if dims == 3 else x.transpose(1, 2).flatten(0, 1)
            out = net(volume)
            for layer, block in ((net.layer1, blocks["layer1"]), (net.layer2, blocks["layer2"])):
                for part in layer:
                    volume = part(volume)
                volume = block(volume if dims == 3 else volume.unflatten(0, (3, num_frames)).transpose(1, 2))
                volume = volume if dims == 3 else volume.transpose(1, 2).flatten(0, 1)
            torch.testing.assert_close(out, net.head(volume.flatten(2).mean(2)))


def test_channels_are_found_by_a_dry_run_that_leaves_no_trace():
    net = Net()
    net.layer2.eval()
    state, modes = copy.deepcopy(net.state_dict()), [m.training for m in net.modules()]
    insert_rstg(net, {"layer1": lambda channels: NonLocalBlock(channels), "layer2": NonLocalBlock}, example=clips())
    assert [block.channels for block in net.rstg_blocks.values()] == [6, 5]
    remove_rstg(net)
    net.layer2[2].register_forward_hook(lambda module, args, output: torch.rand(1) + output)
    x, random = clips(), torch.get_rng_state()
    insert_rstg(net, {"layer2.0": nn.Identity()}, example=x)
    assert torch.equal(torch.get_rng_state(), random)
    remove_rstg(net)
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    insert_rstg(net, {"layer1": nn.Identity()}, example={"x": clips()})
    insert_rstg(net, {"layer2": nn.Identity()}, example=(clips(),))


def test_blocks_take_mode_type_and_device_of_their_host():
    net = insert_rstg(host().double(), {"layer1": {"in_channels": 6, **OPTIONS}})
    assert {p.dtype for p in net.rstg_blocks.parameters()} == {torch.float64}
    assert not any(module.training for module in net.rstg_blocks["layer1"].modules())
    insert_rstg(net, {"layer2": OPTIONS}, example=clips().double())
    assert net(clips().double()).dtype == torch.float64
    made = RSTGToMap(6, **OPTIONS)
    assert inserted(layer1=made).rstg_blocks["layer1"] is made


def test_state_dict_keeps_the_names_of_the_host():
    plain = host()
    state, net = plain.state_dict(), inserted()
    own = list(net.state_dict())
    assert own[: len(state)] == list(state)
    assert all(name.startswith(("rstg_blocks.layer1.", "rstg_blocks.layer2.")) for name in own[len(state) :])
    assert list(host_state_dict(net)) == list(state)
    before = {name: value.clone() for name, value in net.rstg_blocks.state_dict().items()}
    load_host_state_dict(net, state)
    x = clips()
    assert torch.equal(net(x), plain(x))
    assert all(torch.equal(before[name], value) for name, value in net.rstg_blocks.state_dict().items())
    with pytest.raises(RuntimeError, match=r"Missing key\(s\).*rstg_blocks\.layer1\.lin_in\.weight"):
        net.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"head.bias\""):
        load_host_state_dict(net, {name: value for name, value in state.items() if name != "head.bias"})
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: \"more\""):
        load_host_state_dict(net, {**state, "more": torch.zeros(1)})


def test_a_checkpoint_with_blocks_goes_into_a_network_with_blocks():
    net, twin, x = wake(inserted()), inserted(), clips()
    assert not torch.equal(net(x), twin(x))
    twin.load_state_dict(net.state_dict())
    assert torch.equal(net(x), twin(x))


def test_a_network_inside_another():
    outer, plain = nn.Sequential(inserted(), nn.ReLU()), nn.Sequential(host(), nn.ReLU())
    assert list(host_state_dict(outer)) == list(plain.state_dict())
    load_host_state_dict(outer, plain.state_dict())
    x = clips()
    assert torch.equal(outer(x), plain(x))


def test_removal_gives_the_host_back():
    net, x = host(), clips()
    parts, before = [name for name, _ in net.named_modules()], net(x)
    wake(insert_rstg(net, {"layer1": OPTIONS, "layer2": OPTIONS}, example=x))
    after = net(x)
    blocks = remove_rstg(net)
    assert list(blocks) == ["layer1", "layer2"]
    assert torch.equal(net(x), before)
    assert [name for name, _ in net.named_modules()] == parts
    assert not hasattr(net, "rstg_blocks")
    assert not any(module._forward_hooks for module in net.modules())
    assert torch.equal(insert_rstg(net, blocks)(x), after)
    first = remove_rstg(net, ["layer1", "layer1"])
    assert net.rstg_blocks.names == ("layer2",)
    assert torch.equal(insert_rstg(net, first)(x), after)


def test_a_sequential_host_runs_on():
    net = nn.Sequential(nn.Conv3d(3, 4, 1), nn.ReLU())
    x = clips()
    before = net(x)
    assert torch.equal(insert_rstg(net, {"1": OPTIONS}, example=x)(x), before)
    assert not torch.equal(wake(net)(x), before)


def test_gradients_reach_the_blocks_and_they_learn():
    net, x = inserted().train(), clips()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for step in range(2):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        if not step:
            assert all(block.lin_out.weight.grad.abs().sum() > 0 for block in net.rstg_blocks.values())
        optimizer.step()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not silent
    assert all(block.lin_in.weight.grad.abs().sum() > 0 for block in net.rstg_blocks.values())


def test_features_in_containers():
    x = clips()
    for wrap, read in [
        (lambda x: (x, None), lambda out: out[0]),
        (lambda x: [torch.zeros(2), x], lambda out: out[1]),
        (lambda x: Pair(x, x.mean()), lambda out: out.features),
        (lambda x: {"out": x, "aux": torch.zeros(1)}, lambda out: out["out"]),
        (lambda x: {0: x, None: 1}, lambda out: out[0]),
        (lambda x: MappingProxyType({"out": x}), lambda out: out["out"]),
        (lambda x: defaultdict(list, {"out": x}), lambda out: out["nobody"] or out["out"]),
        (lambda x: {"last_hidden_state": x, "pooled": x[..., :1, :1]}, lambda out: out["last_hidden_state"]),
    ]:
        net = Returning(wrap)
        before = net(x)
        insert_rstg(net, {"packed": OPTIONS}, example=x)
        out = net(x)
        assert type(out) is type(before)
        assert torch.equal(read(out), read(before))
        expected = wake(net).rstg_blocks["packed"](read(before))
        torch.testing.assert_close(read(net(x)), expected)


class Last(nn.Module):
    """A host whose ``layer`` has channels last, as many as its maps have rows and columns: 8."""

    def __init__(self, dims):
        super().__init__()
        self.conv = (nn.Conv2d if dims == 2 else nn.Conv3d)(3, 8, 3, padding=1)
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(self.conv(x).movedim(1, -1))


def test_channels_last_are_recognised():
    for dims in (2, 3):
        net, x = Last(dims).eval(), example(dims)
        before = net(x)
        insert_rstg(net, {"conv": OPTIONS, "layer": OPTIONS}, example=x, num_frames=4)
        assert torch.equal(net(x), before)
        after, blocks = wake(net)(x), remove_rstg(net)
        assert torch.equal(net(x), before)
        volume = net.conv(x) if dims == 3 else net.conv(x).unflatten(0, (2, 4)).transpose(1, 2)
        volume = net.layer(blocks["conv"](volume).movedim(1, -1)).movedim(-1, 1)
        expected = blocks["layer"](volume).movedim(1, -1)
        torch.testing.assert_close(after, expected if dims == 3 else expected.flatten(0, 1))


def test_tokens():
    """Those of the map are a volume row by row; those in front stay as they are, and the block never sees them."""
    for layout, others in (((3, 2), 2), ((4, 3, 2), 1), ([3, 2], 0)):
        net, places = nn.Sequential(nn.Linear(5, 7)), math.prod(layout)
        x = torch.randn(2 if len(layout) == 3 else 8, others + places, 5)
        before = net(x)
        insert_rstg(net, {"0": OPTIONS}, example=x, num_frames=4, layout=layout, class_tokens=others)
        assert torch.equal(net(x), before)
        after = wake(net)(x)
        volume = before[:, others:].reshape(2, 4, 3, 2, 7).permute(0, 4, 1, 2, 3)
        expected = net.rstg_blocks["0"](volume).permute(0, 2, 3, 4, 1).reshape(len(x), places, 7)
        torch.testing.assert_close(after[:, others:], expected)
        assert torch.equal(after[:, :others], before[:, :others])
        remove_rstg(net)
        assert torch.equal(net(x), before)


def test_a_second_call_adds_blocks():
    net, x = inserted(layer1=OPTIONS), clips()
    assert insert_rstg(net, {"layer2": OPTIONS}, example=x) is net
    assert net.rstg_blocks.names == ("layer1", "layer2")
    assert isinstance(net.rstg_blocks, InsertedBlocks)
    net(x)


@pytest.mark.parametrize("name", ["update", "keys", "run", "num_frames"])
def test_a_module_with_the_name_of_an_attribute(name):
    net, x = torch.nn.Sequential(OrderedDict({name: torch.nn.Conv3d(3, 4, 1)})), clips()
    before = net(x)
    insert_rstg(net, {name: OPTIONS}, example=x)
    assert torch.equal(net(x), before)
    assert list(remove_rstg(net)) == [name]


def test_a_host_of_this_package():
    net = settle(VideoResNet("i3d", depth=18, num_classes=5, width=4))
    x = torch.rand(2, 3, 4, 32, 32)
    before = net(x)
    insert_rstg(net, {"res3": OPTIONS, "res4.0": OPTIONS}, example=x)
    assert torch.equal(net(x), before)
    assert [block.in_channels for block in net.rstg_blocks.values()] == [8, 16]
    assert not torch.equal(wake(net)(x), before)
