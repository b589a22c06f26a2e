"""The rows of the SyncMNIST table."""

import dataclasses
import itertools

import pytest
import torch
from torch.nn import BatchNorm2d, BatchNorm3d

from rstg_pyg import FrameCNN, RSTGToVec, VideoClassifier
from rstg_pyg.models import PAPER_SIZE, ROWS, SMALL, ClipCNN, Network, NonLocalBlock, build_row, describe_rows

GRAPHS = ["space-only", "time-only", "homogeneous", "1-temp-stage", "all-temp-stages", "positional"]
STREAMS = ["mean-lstm", "conv-lstm", *GRAPHS]
TINY = dataclasses.replace(SMALL, widths=(3, 4), channels=5, num_stages=2, num_classes=7)
PLAIN = Network(widths=(3, 4), channels=5, num_stages=2, num_classes=7)


def video(batch=2, num_frames=4):
    return torch.rand(batch, 1, num_frames, 16, 16)


def settled(name, network=TINY):
    """A row with running statistics, in evaluation mode."""
    net = build_row(name, network)
    for _ in range(3):
        net(video(8))
    return net.double().eval()


def test_rows_stand_in_the_order_of_the_table():
    assert list(ROWS) == ["mean-lstm", "conv-lstm", "i3d", "non-local", *GRAPHS]
    assert [(row.published[3], row.published[5]) for row in ROWS.values()] == [
        (77.0, None),
        (95.0, 39.7),
        (None, 90.6),
        (None, 93.5),
        (61.3, None),
        (89.7, None),
        (95.7, 58.3),
        (97.0, 74.1),
        (98.9, 94.5),
        (None, 97.2),
    ]
    assert all(row.name == name and set(row.published) == {3, 5} for name, row in ROWS.items())


@pytest.mark.parametrize(
    ("name", "network"),
    [*((name, TINY) for name in ROWS), *((name, PLAIN) for name in ("conv-lstm", "non-local", "positional"))],
)
def test_every_row_trains_a_step(name, network):
    net = build_row(name, network)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    before = [p.detach().clone() for p in net.parameters()]
    clips, labels = video(6), torch.arange(6)
    logits = net(clips)
    assert logits.shape == (6, 7)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    optimizer.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))
    assert torch.nn.functional.cross_entropy(net(clips), labels) < loss


def test_a_batch_equals_its_members():
    for name in ROWS:
        net, clips = settled(name), video(3).double()
        alone = torch.cat([net(clip[None]) for clip in clips])
        torch.testing.assert_close(net(clips), alone, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("name", STREAMS)
def test_stream_equals_clip(name):
    for readout in ("last", "mean"):
        net, clips, state = settled(name, dataclasses.replace(TINY, readout=readout)), video().double(), None
        for t in range(4):
            logits, state = net.step(clips[:, :, t], state)
            torch.testing.assert_close(logits, net(clips[:, :, : t + 1]), msg=lambda said, r=readout: f"{r}: {said}")


def test_networks_of_clips_have_no_stream():
    for name in ("i3d", "non-local"):
        with pytest.raises(ValueError, match="got ClipCNN, whose features of a frame depend on later frames"):
            build_row(name, TINY).step(video()[:, :, 0])


def test_what_the_rows_share():
    for name, network in itertools.product(ROWS, (TINY, PLAIN)):
        net = build_row(name, network)
        assert isinstance(net, VideoClassifier)
        assert isinstance(net.backbone, ClipCNN if name in ("i3d", "non-local") else FrameCNN)
        convolutions = [p.size(0) for p in net.backbone.parameters() if p.dim() >= 4]
        assert convolutions == [3, 4] + [4] * network.refine
        norms = [m for m in net.backbone.modules() if isinstance(m, (BatchNorm2d, BatchNorm3d))]
        assert len(norms) == 3 * network.batch_norm
        assert net.classifier[-1].out_features == 7


def test_what_the_graphs_share():
    for name, network in itertools.product(GRAPHS, (TINY, PLAIN)):
        block = build_row(name, network).block
        assert isinstance(block, RSTGToVec)
        assert (block.heatmap is not None) == (name == "positional")
        assert block.channels == 5
        assert block.rstg.num_stages == 2
        assert (block.input_norm is not None) == (network.input_norm is not None)
        stages = [*block.rstg.time_stages, *block.rstg.space_stages]
        assert all(stage.residual == network.residual for stage in stages)
        assert all((stage.norm is not None) == (network.norm is not None) for stage in stages)


def test_the_graphs_differ_in_their_stages():
    stages = {name: build_row(name, TINY).block.rstg.stages for name in GRAPHS}
    assert stages["space-only"] == ("space",) * 2
    assert stages["time-only"] == ("time",) * 3
    assert stages["homogeneous"] == ("space-time",) * 2
    assert stages["1-temp-stage"] == ("space", "space", "time")
    assert stages["all-temp-stages"] == stages["positional"] == ("time", "space", "time", "space", "time")


def test_space_only_averages_time_whatever_the_readout():
    for readout in ("last", "mean"):
        net = settled("space-only", dataclasses.replace(TINY, readout=readout))
        assert net.block.readout == "mean"
        clips = video().double()
        torch.testing.assert_close(net(clips.flip(2)), net(clips))
        assert build_row("all-temp-stages", dataclasses.replace(TINY, readout=readout)).block.readout == readout


def test_every_other_graph_tells_the_order_of_frames():
    clips = video().double()
    for name in ["mean-lstm", "conv-lstm", "i3d", "non-local", *GRAPHS[1:]]:
        net = settled(name)
        assert (net(clips.flip(2)) - net(clips)).abs().max() > 1e-6, name


def test_non_local_is_i3d_until_it_is_trained():
    i3d, non_local = build_row("i3d", TINY), build_row("non-local", TINY)
    blocks = [m for m in non_local.modules() if isinstance(m, NonLocalBlock)]
    assert len(blocks) == 2
    mine = dict(non_local.state_dict())
    kept = {key: mine[key] for key in i3d.state_dict()}
    i3d.load_state_dict(kept)
    clips = video()
    assert torch.equal(non_local(clips), i3d(clips))


def test_description():
    state = torch.random.get_rng_state()
    table = describe_rows(SMALL)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [(name, title) for name, title, _, _ in table] == [(row.name, row.title) for row in ROWS.values()]
    for name, _, parameters, published in table:
        assert parameters == sum(p.numel() for p in build_row(name, SMALL).parameters())
        assert published == ROWS[name].published


def test_sizes():
    convolutions = 16 * 9 + 64 * 16 * 9 + 64 * 64 * 9
    norms = 2 * (16 + 64 + 64)
    classifier = 2 * 64 + 65 * 46
    counts = {name: parameters for name, _, parameters, _ in describe_rows(SMALL)}
    assert counts["i3d"] == 3 * convolutions + norms + classifier
    assert counts["mean-lstm"] == convolutions + norms + 2 * 64 + 4 * 64 * (64 + 64 + 2) + classifier
    assert counts["conv-lstm"] == convolutions + norms + 2 * 64 + 4 * 64 * (9 * 128 + 1) + classifier
    assert counts["homogeneous"] == counts["space-only"]
    assert counts["non-local"] == counts["i3d"] + 2 * (3 * 65 * 32 + 32 * 64 + 2 * 64)
    assert (PAPER_SIZE.widths, PAPER_SIZE.channels, PAPER_SIZE.num_stages) == ((512, 512, 512), 512, 3)


def test_errors():
    rows = (
        "mean-lstm, conv-lstm, i3d, non-local, space-only, time-only, homogeneous, 1-temp-stage, all-temp-stages, "
        "positional"
    )
    for name, hint in (
        ("conv_lstm", " (did you mean 'conv-lstm'?)"),
        ("all-temp", " (did you mean 'all-temp-stages'?)"),
        ("xyz", ""),
    ):
        with pytest.raises(ValueError) as error:
            build_row(name)
        assert str(error.value) == f"expected the name of a row to be one of {rows}, got {name!r}{hint}"
    with pytest.raises(ValueError, match="expected 'network' to be a Network, got str"):
        build_row("i3d", "small")


def test_networks_of_clips_are_their_parts_in_a_row():
    for name in ("i3d", "non-local"):
        net = settled(name)
        pixels = torch.randint(0, 256, (2, 1, 4, 16, 16), dtype=torch.uint8)
        clips = pixels.double() / 255
        torch.testing.assert_close(net(clips), net.classifier(net.block(net.backbone(clips))))
        torch.testing.assert_close(net.float()(pixels), net(pixels / 255))
