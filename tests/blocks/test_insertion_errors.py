"""What insertion refuses, and in what words."""

import pytest
import torch
from torch import nn

from rstg_pyg import RSTGToMap
from rstg_pyg.blocks import insert_rstg, remove_rstg
from rstg_pyg.models import NonLocalBlock

OPTIONS = {"channels": 4, "scales": (2, 1), "num_stages": 1}


class Net(nn.Module):
    """A host with a part that never runs as a module."""

    def __init__(self, layer=nn.Conv3d):
        super().__init__()
        self.layer1 = layer(3, 6, 1)
        self.layer2 = layer(6, 5, 1)
        self.rest = nn.ModuleList([nn.ReLU()])
        self.unused = nn.ReLU()

    def forward(self, x):
        return self.rest[0](self.layer2(self.layer1(x)))


def clips(*shape):
    return torch.randn(*(shape or (2, 3, 4, 8, 8)))


def fails(message, net, blocks, **options):
    """The whole message; the network stays as it is."""
    with pytest.raises(ValueError) as caught:
        insert_rstg(net, blocks, **options)
    assert str(caught.value) == message
    assert not hasattr(net, "rstg_blocks")
    assert not any(module._forward_hooks for module in net.modules())
    assert net.training


def test_a_wrong_name_gets_the_near_ones():
    near, none = "did you mean 'layer1' or 'layer2'?", "no name is like it"
    for name, hint in (("layr1", near), ("layer1.0", near), ("", none), ("backbone", none)):
        fails(f"expected the name of a module of Net, got {name!r} ({hint})", Net(), {"layer2": OPTIONS, name: OPTIONS})


def test_what_does_not_run():
    fails(
        "expected a module that runs, got 'rest', a ModuleList: name one that it holds",
        Net(),
        {"rest": OPTIONS},
        example=clips(),
    )
    fails(
        "expected modules that run when the network does, got 'unused', which the example did not reach",
        Net(),
        {"layer1": OPTIONS, "unused": OPTIONS},
        example=clips(),
    )


def test_blocks_that_cannot_be_made():
    neither = (
        "expected 'example', an input for a dry run, or 'in_channels' among the options of the block after 'layer1', "
        "got neither"
    )
    for block in (OPTIONS, RSTGToMap):
        fails(neither, Net(), {"layer1": block})
    fails(
        "expected a block of 6 channels after 'layer1', got one of 7", Net(), {"layer1": RSTGToMap(7)}, example=clips()
    )
    fails(
        "expected a block of 6 channels after 'layer1', got one of 5",
        Net(),
        {"layer1": {"in_channels": 5}},
        example=clips(),
    )
    with pytest.raises(TypeError, match="expected an option of RSTGToMap, got 'scale' "):
        insert_rstg(Net(), {"layer1": {"scale": (2, 1)}}, example=clips())
    wanted = "expected a block, a dict of options or a function to a block for 'layer1', got "
    fails(f"{wanted}12", Net(), {"layer1": lambda channels: 2 * channels}, example=clips())
    fails(f"{wanted}'res'", Net(), {"layer1": "res"}, example=clips())
    fails("expected 'num_frames' to be a positive int, got 0", Net(), {"layer1": OPTIONS}, num_frames=0)


def test_features_that_are_no_volume():
    flat = nn.Sequential(nn.Flatten(1, 3), nn.ReLU())
    tokens = "got [2, 96, 8]; give layout=(H, W) where they are tokens, [B*T, H*W, C]"
    fails(f"expected features of '0' of shape [B, C, T, H, W], {tokens}", flat, {"0": OPTIONS}, example=clips())
    fails(
        "expected features of 'layer1' of shape [B, C, T, H, W], got [8, 6, 5, 5]; give num_frames where frames are "
        "folded into the batch, [B*T, C, H, W]",
        Net(nn.Conv2d),
        {"layer1": OPTIONS},
        example=clips(8, 3, 5, 5),
    )
    fails(
        "expected features of 'layer1' of shape [B*3, C, H, W], as num_frames is 3, got [8, 6, 5, 5]",
        Net(nn.Conv2d),
        {"layer1": OPTIONS},
        num_frames=3,
        example=clips(8, 3, 5, 5),
    )
    fails(
        f"expected features of '0' of shape [B*3, C, H, W] or [B, C, T, H, W], {tokens}",
        flat,
        {"0": OPTIONS},
        num_frames=3,
        example=clips(),
    )
    pair = nn.Sequential(nn.MaxPool3d(1, return_indices=True))
    fails(
        "expected '0' to return one feature volume, got tuple with 2 tensors of 3, 4 or 5 dimensions; give layout "
        "where one of them is meant",
        pair,
        {"0": OPTIONS},
        example=clips(),
    )


class OneSize(nn.Module):
    """A host for frames of one size, with as many channels as its maps have rows."""

    def __init__(self, side=8):
        super().__init__()
        self.side = side
        self.conv = nn.Conv2d(3, side, 1)

    def forward(self, x):
        assert x.size(-1) == self.side
        return self.conv(x)


def test_a_layout_that_is_not_clear():
    """Nothing is guessed where a dry run on wider frames stops, or without one where C is W."""
    unclear = (
        "expected features of 'conv' that show which dimension holds the channels, got [4, 8, 8, 8]: give "
        "layout='channels_first' or layout='channels_last'"
    )
    frames = clips(4, 3, 8, 8)
    fails(unclear, OneSize(), {"conv": OPTIONS}, num_frames=2, example=frames)
    insert_rstg(OneSize(), {"conv": OPTIONS}, num_frames=2, example=frames, layout="channels_first")(frames)
    net = insert_rstg(OneSize(), {"conv": {"in_channels": 8, **OPTIONS}}, num_frames=2)
    net.rstg_blocks.num_frames = 0
    with pytest.raises(ValueError, match="expected 'num_frames' to be a positive int, got 0"):
        net(frames)
    net.rstg_blocks.num_frames = 2
    with pytest.raises(ValueError) as caught:
        net(frames)
    assert str(caught.value) == unclear
    last = insert_rstg(nn.Sequential(nn.Linear(8, 9)), {"0": {"in_channels": 9, **OPTIONS}}, num_frames=2)
    with pytest.raises(ValueError, match=r"of '0' of 9 channels, got \[4, 3, 8, 9\]; give layout='channels_last'$"):
        last(frames)


def test_layouts_that_are_none_or_do_not_fit():
    net, wanted = nn.Sequential(nn.Linear(8, 6)), "expected 'layout' to be 'channels_first', 'channels_last', or the"
    for layout in ("tokens", (4,), (1, 2, 3, 4), 3, nn.ReLU()):
        with pytest.raises(ValueError, match=f"^{wanted}"):
            insert_rstg(net, {"0": OPTIONS}, example=clips(4, 6, 8), layout=layout)
    blocks = {"0": OPTIONS}
    fails("expected 'layout[1]' to be a positive int, got 0", net, blocks, example=clips(4, 6, 8), layout=(2, 0))
    fails("expected the sizes of a map as 'layout' with class_tokens=1, got None", net, blocks, class_tokens=1)
    fails(
        "expected features of '0' of shape [B*2, 4, C], got [4, 6, 6]; give class_tokens where tokens without a place "
        "come first",
        net,
        blocks,
        example=clips(4, 6, 8),
        layout=(2, 2),
        num_frames=2,
    )
    fails(
        "expected features of '0' of shape [B*T, 6, C], got [4, 6, 6]; give num_frames where frames are folded into "
        "the batch, [B*T, 6, C]",
        net,
        blocks,
        example=clips(4, 6, 8),
        layout=(2, 2),
        class_tokens=2,
    )


def test_features_that_do_not_fit_when_the_network_runs():
    net = insert_rstg(Net(nn.Conv2d), {"layer1": {"in_channels": 6, **OPTIONS}}, num_frames=4)
    with pytest.raises(
        ValueError, match=r"^expected features of 'layer1' of shape \[B\*4, C, H, W\], as num_frames is"
    ):
        net(clips(6, 3, 5, 5))
    wrong = insert_rstg(Net(), {"layer2": {"in_channels": 6, **OPTIONS}})
    with pytest.raises(ValueError, match=r"^expected features of 'layer2' of 6 channels, got \[2, 5, 4, 8, 8\]$"):
        wrong(clips())
    shrinks = insert_rstg(Net(), {"layer1": nn.MaxPool3d(2)})
    with pytest.raises(
        ValueError,
        match=r"^expected the block after 'layer1' to keep the shape \[2, 6, 4, 8, 8\], got \[2, 6, 2, 4, 4\]$",
    ):
        shrinks(clips())


def test_a_module_of_two_names_takes_one_block():
    net = nn.ModuleDict({"0": nn.Conv3d(3, 4, 1)})
    net["again"] = net["0"]
    net.forward = lambda x: net["again"](x)
    with pytest.raises(ValueError, match=r"^expected one block .* got one after '0', which 'again' is too$"):
        insert_rstg(net, {"0": OPTIONS, "again": OPTIONS}, example=clips())
    insert_rstg(net, {"again": OPTIONS}, example=clips())
    with pytest.raises(ValueError, match=r"^expected one block .* got one after 'again', which '0' is too$"):
        insert_rstg(net, {"0": OPTIONS}, example=clips())


def test_what_is_there_already():
    net = insert_rstg(Net(), {"layer1": NonLocalBlock}, example=clips(), num_frames=4)
    with pytest.raises(ValueError, match=r"^expected a module without a block after it, got 'layer1'$"):
        insert_rstg(net, {"layer1": OPTIONS}, example=clips())
    with pytest.raises(ValueError, match=r"^expected the name of a module of Net, got 'rstg_blocks\.layer1'"):
        insert_rstg(net, {"rstg_blocks.layer1": OPTIONS}, example=clips())
    with pytest.raises(ValueError, match=r"^expected num_frames=4 as for the blocks there, got 5$"):
        insert_rstg(net, {"layer2": OPTIONS}, example=clips(), num_frames=5)
    net = Net()
    net.rstg_blocks = nn.ReLU()
    with pytest.raises(ValueError, match=r"^expected a network without an attribute 'rstg_blocks', got ReLU there$"):
        insert_rstg(net, {"layer1": OPTIONS}, example=clips())


def test_a_compiled_network():
    with pytest.raises(ValueError, match=r"^expected a network before it is compiled or wrapped, got OptimizedModule$"):
        insert_rstg(torch.compile(Net(), backend="eager"), {"layer1": OPTIONS}, example=clips())


def test_removing_what_is_not_there():
    with pytest.raises(ValueError, match=r"^expected a network that holds blocks, got Net with none$"):
        remove_rstg(Net())
    net = insert_rstg(Net(), {"layer1": NonLocalBlock}, example=clips())
    with pytest.raises(
        ValueError, match=r"^expected a network that holds blocks after 'layer2', got Net with 'layer1'$"
    ):
        remove_rstg(net, ["layer2"])
    assert net.rstg_blocks.names == ("layer1",)
