"""Frame by frame, the frame-wise ResNets say what they say of the whole clip."""

import copy
import dataclasses
import threading

import pytest
import torch
from settled import settle
from torch import nn
from torch.utils._pytree import tree_leaves

from rstg_pyg.blocks import RSTGPool, insert_rstg
from rstg_pyg.models import VIDEO_SMALL, NonLocalBlock, VideoResNet, build_video_row

TINY = dataclasses.replace(VIDEO_SMALL, width=4, channels=5, num_classes=7)
BLOCK = {"channels": 5, "scales": (2, 1), "num_stages": 1}


def awake(net):
    """In double precision, with graphs that change what they get."""
    net = settle(net.double())
    for name, parameter in net.named_parameters():
        if "lin_out" in name or name.startswith("pool.norm"):
            nn.init.normal_(parameter)
    return net


def with_blocks(*names, **options):
    net = VideoResNet("c2d", 18, num_classes=7, width=4)
    example = torch.rand(1, 3, 2, 32, 32)
    return awake(insert_rstg(net, {name: {**BLOCK, **options} for name in names}, example=example))


def row(name, **options):
    return awake(build_video_row(name, dataclasses.replace(TINY, **options)))


NETS = {
    "c2d": lambda: row("c2d"),
    "deep": lambda: row("c2d", depth=50),
    "vec-last": lambda: row("c2d+rstg:vec", readout="last"),
    "vec-mean": lambda: row("c2d+rstg:vec", readout="mean", rnn="lstm"),
    "maps": lambda: with_blocks("res2", "res3", "res4"),
    "homogeneous": lambda: with_blocks("res2", "res4", stages="homogeneous"),
    "places": lambda: with_blocks("pool1", "res2.0", "pool2", "res3.1.a", "res5"),
}


def after_each(net, clip):
    said, state = [], None
    for frame in clip.unbind(2):
        logits, state = net.step(frame, state)
        said.append(logits)
    return said


def tensors(state):
    return [part for part in tree_leaves(state) if isinstance(part, torch.Tensor)]


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
@torch.no_grad()
def test_a_stream_says_what_the_clip_so_far_does(make):
    net = make()
    clip = torch.rand(2, 3, 5, 32, 32, dtype=torch.float64)
    said = after_each(net, clip)
    assert said[0] is None
    for count, logits in enumerate(said[1:], start=2):
        torch.testing.assert_close(logits, net(clip[:, :, :count]), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(said[1], said[3])


@torch.no_grad()
def test_frames_of_pixels_are_normalised_as_clips_are():
    net = settle(build_video_row("c2d+rstg:vec", TINY))
    clip = torch.randint(0, 256, (1, 3, 4, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(after_each(net, clip)[-1], net(clip))


@torch.no_grad()
def test_streams_share_a_network_and_leave_nothing_on_it():
    net = with_blocks("res2", "res3")
    first, second = (torch.rand(1, 3, 6, 32, 32, dtype=torch.float64) for _ in range(2))
    states, said = [None, None], [None, None]
    for pair in zip(first.unbind(2), second.unbind(2), strict=True):
        for number, frame in enumerate(pair):
            said[number], states[number] = net.step(frame, states[number])
    torch.testing.assert_close(torch.cat(said), net(torch.cat([first, second])))
    assert not net.rstg_blocks._streams
    again, _ = net.step(first[:, :, 1], net.step(first[:, :, 0])[1])
    assert torch.equal(again, after_each(net, first)[1])


@torch.no_grad()
def test_a_state_can_be_gone_on_from_twice():
    net = with_blocks("res2", "res3")
    clip = torch.rand(1, 3, 4, 32, 32, dtype=torch.float64)
    state = None
    for frame in clip.unbind(2):
        _, state = net.step(frame, state)
    before = copy.deepcopy(state)
    once, twice = (net.step(clip[:, :, 1], net.step(clip[:, :, 0], state)[1])[0] for _ in range(2))
    assert torch.equal(once, twice)
    assert all(torch.equal(*pair) for pair in zip(tensors(state), tensors(before), strict=True))


@torch.no_grad()
def test_threads_do_not_mix_streams():
    net = with_blocks("res2")
    clips = torch.rand(4, 1, 3, 6, 32, 32, dtype=torch.float64)
    said = {}
    threads = [
        threading.Thread(target=lambda number=number: said.update({number: run(net, clips[number])}))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, clip in enumerate(clips):
        torch.testing.assert_close(said[number], net(clip))


def run(net, clip):
    # Whether gradients are on is a matter of the thread.
    with torch.no_grad():
        return after_each(net, clip)[-1]


@pytest.mark.parametrize("make", [NETS["vec-mean"], NETS["maps"]], ids=["vec-mean", "maps"])
@torch.no_grad()
def test_the_memory_of_a_stream_does_not_grow(make):
    net, state, sizes = make(), None, []
    for frame in torch.rand(8, 1, 3, 32, 32, dtype=torch.float64):
        _, state = net.step(frame, state)
        sizes.append(sum(part.numel() for part in tensors(state)))
    assert sizes[2::2] == sizes[2:3] * 3
    assert sizes[1::2] == sizes[1:2] * 4


@torch.no_grad()
def test_hosts_of_single_frames_stream_too():
    host = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
    frames = torch.randn(5, 2, 3, 8, 8)
    net = insert_rstg(host, {"1": BLOCK}, num_frames=5, example=frames.transpose(0, 1).flatten(0, 1))
    nn.init.normal_(net.rstg_blocks["1"].lin_out.weight)
    expected = net(frames.transpose(0, 1).flatten(0, 1)).unflatten(0, (2, 5))
    states, got = {}, []
    for frame in frames:
        with net.rstg_blocks.streaming(states) as states:
            got.append(net(frame))
    torch.testing.assert_close(torch.stack(got, 1), expected)


def test_the_pool_of_the_graph_streams():
    pool = RSTGPool(6, 4, scales=(2, 1), num_stages=1, readout="last").double()
    nn.init.normal_(pool.norm.weight)
    volume, state = torch.randn(2, 6, 3, 5, 5, dtype=torch.float64), None
    for t in range(3):
        out, state = pool.step(volume[:, :, t], state)
        torch.testing.assert_close(out, pool(volume[:, :, : t + 1]))


def test_forms_that_look_ahead_are_refused():
    for form in ("i3d", "nonlocal"):
        net = VideoResNet(form, 18, width=4)
        with pytest.raises(ValueError) as caught:
            net.step(torch.rand(1, 3, 32, 32))
        assert str(caught.value) == (
            f"expected a network of the form 'c2d', got {form!r}, which looks at later frames: it has no form for "
            "streams; slide a window of frames over the video and call forward"
        )


def test_errors_of_streams():
    net = with_blocks("res2")
    with pytest.raises(ValueError, match=r"expected a frame of shape \[B, 3, H, W\] with H and W of at least 1, got "):
        net.step(torch.rand(1, 3, 2, 32, 32))
    _, state = net.step(torch.rand(2, 3, 32, 32).double())
    with pytest.raises(ValueError, match=r"a frame of shape \[2, 3, 32, 32\] as before it, got \[1, 3, 32, 32\]"):
        net.step(torch.rand(1, 3, 32, 32).double(), state)
    with pytest.raises(ValueError, match="expected the state that 'step' returned, or None, got tuple"):
        net.step(torch.rand(2, 3, 32, 32), ())
    net.pool = nn.AdaptiveAvgPool3d(1)
    with pytest.raises(ValueError, match="expected a pool with a method 'step', got AdaptiveAvgPool3d"):
        net.step(torch.rand(2, 3, 32, 32))


def test_errors_of_blocks_in_streams():
    net = insert_rstg(VideoResNet("c2d", 18, width=4), {"res3": NonLocalBlock(8)})
    _, state = net.step(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match="expected a block with a method 'step' after 'res3', got NonLocalBlock"):
        net.step(torch.rand(1, 3, 32, 32), state)
    layer = nn.Conv3d(3, 3, 1)
    blocks = insert_rstg(nn.Sequential(layer), {"0": {"in_channels": 3, **BLOCK}}).rstg_blocks
    clip = torch.rand(1, 3, 2, 8, 8)
    with pytest.raises(ValueError, match="expected states of 0, got one of '2'"), blocks.streaming({"2": ()}):
        pass
    with blocks.streaming():
        with pytest.raises(ValueError, match="features of '0' of one frame of a stream, got 2 frames"):
            layer(clip)
        layer(clip[:, :, :1])
        with pytest.raises(ValueError, match="expected '0' to run once for a frame of a stream, got a second run"):
            layer(clip[:, :, :1])
        with pytest.raises(ValueError, match="one stream of a network at a time in a thread"), blocks.streaming({}):
            pass
    assert not blocks._streams
