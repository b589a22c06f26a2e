"""The ResNets for videos: their form, their batch statistics, their pixels, their errors."""

import copy

import pytest
import torch
from settled import settle
from torch.nn.functional import batch_norm, conv3d, max_pool3d, relu

from rstg_pyg.models import NonLocalBlock, VideoResNet

I3D_50 = {"res2": [3, 3, 3], "res3": [3, 1, 3, 1], "res4": [3, 1, 3, 1, 3, 1], "res5": [1, 3, 1]}
I3D_18 = {"res2": [3, 3], "res3": [3, 1], "res4": [3, 1], "res5": [1, 3]}


def make(form="i3d", depth=18, **options):
    return VideoResNet(form, depth, **{"num_classes": 5, "width": 4, **options})


def video(num_frames=4, side=32, batch=2):
    return torch.rand(batch, 3, num_frames, side, side)


def blocks(stage):
    return [block for name, block in stage.named_children() if name.isdigit()]


@pytest.mark.parametrize(("depth", "expected"), [(50, I3D_50), (18, I3D_18)])
def test_the_kernels_over_time(depth, expected):
    for form in ("c2d", "i3d", "nonlocal"):
        net = make(form, depth)
        assert net.conv1.conv.kernel_size == (1 if form == "c2d" else 5, 7, 7)
        for stage, frames in expected.items():
            parts = blocks(getattr(net, stage))
            side = 1 if depth == 50 else 3
            lengths = [1 if form == "c2d" else number for number in frames]
            assert [block.a.conv.kernel_size for block in parts] == [(length, side, side) for length in lengths], form
            others = [part.conv for block in parts for part in (block.b, block.c, block.shortcut) if part]
            assert all(conv.kernel_size[0] == 1 and conv.stride[0] == 1 for conv in others)


def test_the_sizes_of_the_papers():
    net = VideoResNet("i3d", 50)
    assert net.widths == {"res2": 256, "res3": 512, "res4": 1024, "res5": 2048}
    assert net.out_channels == net.classifier.in_features == 2048
    assert net.classifier.out_features == 174
    assert sum(p.numel() for p in make("c2d", 50, width=64, num_classes=1000).parameters()) == 25557032
    assert sum(p.numel() for p in make("c2d", 18, width=64, num_classes=1000).parameters()) == 11689512
    assert {m.eps for m in net.modules() if isinstance(m, torch.nn.BatchNorm3d)} == {1e-5}


@pytest.mark.parametrize(
    ("depth", "options", "sides"),
    [
        (18, {}, (16, 16, 8, 4, 2)),
        (50, {}, (16, 16, 8, 4, 2)),
        (50, {"res5_stride": 1}, (16, 16, 8, 4, 4)),
        (18, {"pool_padding": 0}, (15, 15, 8, 4, 2)),
    ],
    ids=["18", "50", "res5_stride", "pool_padding"],
)
def test_frames_and_sides_of_every_stage(depth, options, sides):
    net, seen = make(depth=depth, **options), []
    for name in ("pool1", "res2", "res3", "res4", "res5"):
        net.get_submodule(name).register_forward_hook(lambda module, args, output: seen.append(output.shape[2:]))
    net(video(num_frames=6, side=64))
    assert seen == [(6 if number < 2 else 3, side, side) for number, side in enumerate(sides)]


def plain(net, x):
    """The network written out."""

    def layer(part, x):
        conv, norm = part.conv, part.norm
        x = conv3d(x, conv.weight, None, conv.stride, [size // 2 for size in conv.kernel_size])
        return batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)

    x = max_pool3d(relu(layer(net.conv1, x)), (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage in ("res2", "res3", "res4", "res5"):
        for part in getattr(net, stage):
            if isinstance(part, NonLocalBlock):
                x = part(x)
                continue
            out = relu(layer(part.a, x))
            out = layer(part.b, out)
            out = out if part.c is None else layer(part.c, relu(out))
            x = relu(out + (x if part.shortcut is None else layer(part.shortcut, x)))
        if stage == "res2":
            x = torch.maximum(x[:, :, 0::2], x[:, :, 1::2])
    return x


@pytest.mark.parametrize(("form", "depth"), [("c2d", 18), ("i3d", 18), ("nonlocal", 18), ("i3d", 50)])
def test_it_is_its_formula(form, depth):
    net, x = settle(make(form, depth)).double(), video().double()
    expected = plain(net, x)
    torch.testing.assert_close(net.features(x), expected)
    torch.testing.assert_close(net(x), net.classifier(expected.mean((2, 3, 4))))


def test_non_local_blocks_come_after_every_second_block_of_res3_and_res4():
    for depth, places in ((50, {"res3": [1, 3], "res4": [1, 3, 5]}), (18, {"res3": [1], "res4": [1]})):
        net = make("nonlocal", depth)
        found = [name for name, module in net.named_modules() if isinstance(module, NonLocalBlock)]
        assert found == [f"{stage}.non_local{number}" for stage, numbers in places.items() for number in numbers]
        order = [name for name, _ in net.res3.named_children()]
        assert order.index("non_local1") == order.index("1") + 1
        own = set(make("i3d", depth).state_dict())
        assert own == {name for name in net.state_dict() if "non_local" not in name}


def test_a_new_non_local_network_is_its_i3d():
    i3d, net, x = settle(make()), make("nonlocal").eval(), video()
    net.load_state_dict(i3d.state_dict(), strict=False)
    assert torch.equal(net(x), i3d(x))


def test_frames_of_c2d_do_not_meet_before_they_are_pooled():
    net, x = settle(make("c2d")), video(num_frames=6)
    changed = x.clone()
    changed[:, :, 3] = 0
    moved = (net.features(changed) - net.features(x)).abs().amax((0, 1, 3, 4)) > 0
    assert moved.tolist() == [False, True, False]
    net = settle(make("i3d"))
    assert ((net.features(changed) - net.features(x)).abs().amax((0, 1, 3, 4)) > 0).all()


def test_frozen_statistics_stay_while_the_rest_learns():
    net = settle(make("nonlocal", frozen_bn=True)).train()
    assert net.training
    assert net.dropout.training
    buffers, before = copy.deepcopy(dict(net.named_buffers())), copy.deepcopy(dict(net.named_parameters()))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    clips = video()
    out = net(clips)
    assert torch.equal(out, copy.deepcopy(net).eval()(clips))
    out.square().sum().backward()
    optimizer.step()
    assert all(torch.equal(buffers[name], value) for name, value in net.named_buffers())
    assert not any(torch.equal(before[name], value) for name, value in net.named_parameters() if "norm." in name)
    loose = make("nonlocal").train()
    buffers = copy.deepcopy(dict(loose.named_buffers()))
    loose(video())
    assert not torch.equal(buffers["res4.0.a.norm.running_mean"], loose.res4[0].a.norm.running_mean)


def test_dropout():
    net, x = make(dropout=0.5, frozen_bn=True), video()
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_pixels_are_normalised_and_floats_are_not():
    net = make().eval()
    pixels = torch.randint(256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    floats = (pixels.movedim(1, -1) / 255 - mean) / std
    torch.testing.assert_close(net(pixels), net(floats.movedim(-1, 1)))
    assert net.double()(pixels).dtype == torch.float64
    grey = make(in_channels=1).eval()
    torch.testing.assert_close(grey(pixels[:, :1]), grey(pixels[:, :1] / 255))


@pytest.mark.parametrize("form", ["c2d", "i3d", "nonlocal"])
def test_a_batch_equals_its_members_and_learns(form):
    net, x = settle(make(form)).double(), video(batch=3).double()
    torch.testing.assert_close(net(x), torch.cat([net(clip[None]) for clip in x]))
    net.train()(x).square().sum().backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_errors():
    for options, message in (
        ({"form": "r3d"}, "expected 'form' to be one of 'c2d', 'i3d', 'nonlocal', got 'r3d'"),
        ({"depth": 34}, "expected 'depth' to be 18 or 50, got 34"),
        ({"res5_stride": 3}, "expected 'res5_stride' to be 2 or 1, got 3"),
        ({"pool_padding": 2}, "expected 'pool_padding' to be 1 or 0, got 2"),
        ({"dropout": 1.0}, r"expected 'dropout' in [0, 1), got 1.0"),
        ({"width": 0}, "expected 'width' to be a positive int, got 0"),
    ):
        with pytest.raises(ValueError) as caught:
            make(**options)
        assert str(caught.value) == message
    wanted = "expected a video of shape [B, 3, T, H, W] with T of at least 2 and H and W of at least "
    for padding, least, shape in (
        (1, 1, (2, 1, 4, 8, 8)),
        (1, 1, (2, 3, 1, 8, 8)),
        (0, 5, (2, 3, 4, 4, 8)),
        (1, 1, (3, 4, 8, 8)),
    ):
        with pytest.raises(ValueError) as caught:
            make(pool_padding=padding)(torch.rand(shape))
        assert str(caught.value) == f"{wanted}{least}, got {list(shape)}"
    make(pool_padding=0).eval()(video(2, 5))
    make().eval()(video(2, 1))
