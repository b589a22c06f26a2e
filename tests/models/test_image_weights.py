"""ResNets for images, taken over time."""

import importlib

import pytest
import torch
from settled import settle

from rstg_pyg.blocks import insert_rstg
from rstg_pyg.models import VideoResNet, load_image_weights

DEPTHS = {18: ("basic", [2, 2, 2, 2], 1), 50: ("bottleneck", [3, 4, 6, 3], 4)}


def imported(module, *names):
    """Parts of a library, or a skip that says why. A torchvision built for another torch raises RuntimeErrors."""
    try:
        return [getattr(importlib.import_module(module), name) for name in names]
    except Exception as error:
        pytest.skip(f"{module} does not work here: {type(error).__name__}: {error}")


def image_net(depth, width=4, name="ResNetModel"):
    make_config, make = imported("transformers", "ResNetConfig", name)
    kind, depths, factor = DEPTHS[depth]
    sizes = [width * factor * 2**number for number in range(4)]
    config = make_config(embedding_size=width, hidden_sizes=sizes, depths=depths, layer_type=kind)
    return settle(make(config)).double()


def as_torchvision(state):
    """The names that torchvision and timm have for those of transformers."""
    named = {}
    for key, value in state.items():
        parts = key.removeprefix("resnet.").split(".")
        kind = parts[-2]
        if parts[0] == "classifier":
            name = "fc"
        elif parts[0] == "embedder":
            name = {"convolution": "conv1", "normalization": "bn1"}[kind]
        else:
            name = f"layer{int(parts[2]) + 1}.{parts[4]}."
            if parts[5] == "shortcut":
                name += {"convolution": "downsample.0", "normalization": "downsample.1"}[kind]
            else:
                name += {"convolution": "conv", "normalization": "bn"}[kind] + str(int(parts[6]) + 1)
        named[f"{name}.{parts[-1]}"] = value
    return named


def video_net(form, depth, width=4):
    return VideoResNet(form, depth, num_classes=5, width=width).double().eval()


def images(batch=2, side=32):
    return torch.randn(batch, 3, side, side, dtype=torch.float64)


@pytest.mark.parametrize(("depth", "num_frames", "border"), [(18, 24, 5), (50, 38, 9)])
def test_i3d_of_a_still_clip_is_the_image_network_far_from_the_ends(depth, num_frames, border):
    """The border: half of the frames that zeros reach before they are pooled in pairs, and those after."""
    images_net, net, x = image_net(depth), video_net("i3d", depth), images()
    load_image_weights(net, images_net.state_dict())
    features = net.features(x.unsqueeze(2).expand(-1, -1, num_frames, -1, -1))
    expected = images_net(x).last_hidden_state
    inner = features[:, :, border:-border]
    assert inner.size(2) > 0
    torch.testing.assert_close(inner, expected.unsqueeze(2).expand_as(inner))
    assert (features[:, :, 0] - expected).abs().max() > 1e-3


@pytest.mark.parametrize("depth", [18, 50])
def test_c2d_of_a_still_clip_is_the_image_network_in_every_frame(depth):
    images_net, net, x = image_net(depth), video_net("c2d", depth), images()
    load_image_weights(net, images_net.state_dict())
    features = net.features(x.unsqueeze(2).expand(-1, -1, 4, -1, -1))
    expected = images_net(x).last_hidden_state
    torch.testing.assert_close(features, expected.unsqueeze(2).expand_as(features))


@pytest.mark.parametrize("names", ["transformers", "torchvision", "wrapped", "without_counters"])
def test_every_way_of_naming_gives_the_same(names):
    source = image_net(18, name="ResNetForImageClassification").state_dict()
    reference, net = video_net("i3d", 18), video_net("i3d", 18)
    net.load_state_dict(reference.state_dict())
    load_image_weights(reference, image_net_backbone(source))
    state = {
        "transformers": source,
        "torchvision": as_torchvision(source),
        "wrapped": {f"module.{key}": value for key, value in as_torchvision(source).items()},
        "without_counters": {key: value for key, value in source.items() if "num_batches" not in key},
    }[names]
    report = load_image_weights(net, state)
    for name, value in reference.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name
    heads = {
        "transformers": "classifier.1",
        "torchvision": "fc",
        "wrapped": "module.fc",
        "without_counters": "classifier.1",
    }
    assert report.left_out == (f"{heads[names]}.weight", f"{heads[names]}.bias")
    counters = tuple(name for name in net.state_dict() if name.endswith("num_batches_tracked"))
    kept = counters if names == "without_counters" else ()
    assert set(report.kept) == {"classifier.weight", "classifier.bias", *kept}
    assert set(report.placed) == set(net.state_dict()) - set(report.kept)


def image_net_backbone(source):
    return {key.removeprefix("resnet."): value for key, value in source.items() if key.startswith("resnet.")}


def test_kernels_are_repeated_over_time_and_divided():
    source, net = image_net(50).state_dict(), video_net("i3d", 50)
    load_image_weights(net, source)
    kernel = source["encoder.stages.1.layers.2.layer.0.convolution.weight"]
    assert net.res3[2].a.conv.weight.shape[2] == 3
    torch.testing.assert_close(net.res3[2].a.conv.weight.sum(2), kernel)
    torch.testing.assert_close(net.res3[2].a.conv.weight[:, :, 0], kernel / 3)
    assert torch.equal(
        net.res3[1].a.conv.weight[:, :, 0], source["encoder.stages.1.layers.1.layer.0.convolution.weight"]
    )


def test_blocks_of_the_video_network_keep_their_weights():
    net = video_net("nonlocal", 18)
    insert_rstg(net, {"res3": {"in_channels": 8, "channels": 4}})
    before = {key: value.clone() for key, value in net.state_dict().items()}
    report = load_image_weights(net, image_net(18).state_dict())
    assert report.left_out == ()
    extra = [key for key in before if "non_local" in key or key.startswith(("rstg_blocks", "classifier"))]
    assert list(report.kept) == extra
    assert all(torch.equal(before[key], net.state_dict()[key]) for key in extra)


@pytest.mark.parametrize("library", ["torchvision.models", "timm.models.resnet"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_networks_of_the_libraries(library, name):
    (make,) = imported(library, name)
    images_net, net, x = settle(make()).double(), video_net("c2d", int(name[-2:]), width=64), images(1)
    load_image_weights(net, images_net.state_dict())
    net.classifier = images_net.fc
    torch.testing.assert_close(net(x.unsqueeze(2).expand(-1, -1, 2, -1, -1)), images_net(x))


def fails(net, state, message):
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        load_image_weights(net, state)
    assert str(caught.value) == message
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_nothing_is_left_unsaid():
    net, source = video_net("i3d", 18), as_torchvision(image_net(18).state_dict())
    wanted = "expected weights of a ResNet-18 for images that fit the network, got: "
    less = {key: value for key, value in source.items() if key != "layer3.1.bn2.running_var"}
    fails(net, less, f"{wanted}res4.1.b.norm.running_var gets nothing")
    fails(
        net,
        {**source, "layer1.0.se.fc.weight": source["bn1.bias"]},
        f"{wanted}layer1.0.se.fc.weight has no place in the network",
    )
    wrong = {**source, "layer2.0.conv1.weight": torch.zeros(8, 4, 1, 1)}
    fails(
        net,
        wrong,
        f"{wanted}layer2.0.conv1.weight is of shape [8, 4, 1, 1], which res3.0.a.conv.weight [8, 4, 3, 3, 3] is not; "
        "res3.0.a.conv.weight gets nothing",
    )
    for value, fault in ((torch.nan, "values that are not finite"), (1j, "torch.complex128 instead of torch.float64")):
        wrong = {**source, "bn1.bias": source["bn1.bias"] * value}
        fails(net, wrong, f"{wanted}{fault} in bn1.bias; conv1.norm.bias gets nothing")
    other = as_torchvision(image_net(50).state_dict())
    with pytest.raises(ValueError, match=r"got: layer1\.0\.downsample\.0\.weight has no place .*; and \d+ more$"):
        load_image_weights(net, other)
    names = "expected weights of a ResNet with the names of torchvision, timm or transformers, got "
    fails(net, {"a.weight": torch.zeros(1), "b": torch.zeros(1)}, f"{names}a.weight, b")
    fails(net, {}, f"{names}none")
