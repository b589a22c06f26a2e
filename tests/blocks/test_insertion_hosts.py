"""Blocks in networks of other libraries: a ResNet for frames of transformers, a ResNet for clips of torchvision."""

import copy
import importlib

import pytest
import torch

from rstg_pyg.blocks import host_state_dict, insert_rstg, load_host_state_dict, remove_rstg

OPTIONS = {"channels": 6, "scales": (2, 1), "num_stages": 1}


def imported(module, *names):
    """Parts of a library, or a skip that says why. A torchvision built for another torch raises RuntimeErrors."""
    try:
        return [getattr(importlib.import_module(module), name) for name in names]
    except Exception as error:
        pytest.skip(f"{module} does not work here: {type(error).__name__}: {error}")


def frame_host(name="ResNetForImageClassification"):
    make_config, make = imported("transformers", "ResNetConfig", name)
    config = make_config(
        embedding_size=4, hidden_sizes=[4, 8, 12, 16], depths=[1, 2, 1, 1], layer_type="basic", num_labels=5
    )
    return make(config).eval()


def frames(batch=2, num_frames=4):
    return torch.randn(batch * num_frames, 3, 32, 32)


def wake(net):
    for block in net.rstg_blocks.values():
        torch.nn.init.normal_(block.lin_out.weight)
    return net


def test_frames_of_transformers():
    """After a block of a stage, the stem, and the encoder, which returns an output of transformers' own."""
    for place in ("resnet.encoder.stages.2.layers.0", "resnet.encoder", "resnet.embedder"):
        net, x = frame_host(), frames()
        state, before = copy.deepcopy(net.state_dict()), net(x).logits
        insert_rstg(net, {place: OPTIONS}, num_frames=4, example=x)
        assert torch.equal(net(x).logits, before)
        load_host_state_dict(net, state)
        assert torch.equal(net(x).logits, before)
        assert list(host_state_dict(net)) == list(state)
        wake(net)
        after = net(pixel_values=x).logits
        assert not torch.equal(after, before)
        twin = copy.deepcopy(net)
        torch.testing.assert_close(twin(x).logits, after)
        after.sum().backward()
        assert net.rstg_blocks[place.replace(".", "__")].lin_in.weight.grad.abs().sum() > 0
        remove_rstg(net)
        assert torch.equal(net(x).logits, before)


def test_a_block_sees_the_order_of_the_frames():
    """Without a block, each frame has its logits; with one, they depend on the frames before, and on no other clip."""
    x = frames()
    net = wake(insert_rstg(frame_host(), {"resnet.encoder.stages.1": OPTIONS}, num_frames=4, example=x))
    logits = net(x).logits
    changed = x.clone()
    changed[1] = 0
    moved = (net(changed).logits - logits).abs().amax(1) > 1e-6
    assert moved.tolist() == [False, True, True, True] + [False] * 4
    net.rstg_blocks.num_frames = 8
    assert (net(changed).logits - net(x).logits).abs().amax(1).gt(1e-6).tolist() == [False] + [True] * 7


def test_the_stages_that_a_backbone_returns():
    """Where an output holds the features twice, both are those of the block."""
    net, x = frame_host("ResNetModel"), frames()
    wake(insert_rstg(net, {"encoder": OPTIONS}, num_frames=4, example=x))
    out = net(x, output_hidden_states=True)
    assert torch.equal(out.hidden_states[-1], out.last_hidden_state)
    torch.testing.assert_close(out.pooler_output[..., 0, 0], out.last_hidden_state.mean((2, 3)))


VIT = {"image_size": 32, "patch_size": 8, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}


@pytest.mark.parametrize(
    ("host", "config", "places", "options"),
    [
        (
            "ConvNextForImageClassification",
            {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2},
            ["convnext.encoder.stages.0.layers.0.pwconv2", "convnext.encoder.stages.0", "convnext.encoder"],
            {},
        ),
        (
            "SwinForImageClassification",
            {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
            ["swin.embeddings", "swin.encoder.layers.0.blocks.0"],
            {"layout": (8, 8)},
        ),
        ("ViTForImageClassification", VIT, ["vit.embeddings", "vit.layers.0"], {"layout": (4, 4), "class_tokens": 1}),
        (
            "VideoMAEForVideoClassification",
            {**VIT, "num_frames": 4},
            ["videomae.encoder.layer.0", "videomae.encoder"],
            {"layout": (2, 4, 4)},
        ),
    ],
)
def test_channels_last_and_tokens_of_transformers(host, config, places, options):
    make_config, make = imported("transformers", host.partition("For")[0] + "Config", host)
    net = make(make_config(**{"num_hidden_layers": 2, "num_labels": 5, **config})).eval()
    x = frames() if host[:5] != "Video" else frames().unflatten(0, (2, 4))
    before = net(x).logits
    for place in places:
        insert_rstg(net, {place: OPTIONS}, num_frames=4, example=x, **options)
        assert torch.equal(net(x).logits, before)
        after = wake(net)(x).logits
        assert not torch.equal(after, before)
        after.sum().backward()
        assert next(iter(net.rstg_blocks.values())).lin_in.weight.grad.abs().sum() > 0
        remove_rstg(net)
        assert torch.equal(net(x).logits, before)


def test_a_stage_that_returns_its_features_twice():
    """A stage of Swin returns tokens, which run on, and a map of them, which does not."""
    make_config, make = imported("transformers", "SwinConfig", "SwinModel")
    net = make(make_config(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4))
    with pytest.raises(ValueError, match="got tuple with 2 tensors of 3, 4 or 5 dimensions; give layout"):
        insert_rstg(net, {"encoder.layers.0": OPTIONS}, num_frames=4, example=frames())
    insert_rstg(net, {"encoder.layers.0": OPTIONS}, num_frames=4, example=frames(), layout=(4, 4))


def test_clips_of_torchvision():
    (make,) = imported("torchvision.models.video", "r3d_18")
    net, x = make(weights=None, num_classes=5).eval(), torch.randn(1, 3, 4, 32, 32)
    state, before = copy.deepcopy(net.state_dict()), net(x)
    insert_rstg(net, {"layer2": OPTIONS, "layer3.0": OPTIONS}, example=x)
    assert torch.equal(net(x), before)
    load_host_state_dict(net, state)
    assert torch.equal(net(x), before)
    wake(net)
    net(x).sum().backward()
    assert all(block.lin_in.weight.grad.abs().sum() > 0 for block in net.rstg_blocks.values())
    remove_rstg(net)
    assert torch.equal(net(x), before)


def test_separable_clips_of_torchvision():
    (make,) = imported("torchvision.models.video", "s3d")
    net, x = make(weights=None).features.eval(), torch.randn(1, 3, 8, 32, 32)
    before = net(x)
    insert_rstg(net, {"5": OPTIONS, "8.branch1": OPTIONS}, example=x)
    assert torch.equal(net(x), before)
    assert not torch.equal(wake(net)(x), before)
