"""Blocks in networks of other libraries: a ResNet for frames of transformers, a ResNet for clips of torchvision."""

import copy
import importlib

import pytest
import torch

from rstg_pyg.models import host_state_dict, insert_rstg, load_host_state_dict, remove_rstg

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


PLACES = ["resnet.encoder.stages.1", "resnet.encoder.stages.2.layers.0", "resnet.encoder", "resnet.embedder"]


@pytest.mark.parametrize("place", PLACES)
def test_frames_of_transformers(place):
    """After a stage, a block of one, the stem, and the encoder, which returns an output of transformers' own."""
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
