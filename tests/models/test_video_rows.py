"""The rows of the Something-Something table."""

import dataclasses

import pytest
import torch
from settled import settle

from rstg_pyg import RSTGToMap, RSTGToVec
from rstg_pyg.blocks import RSTGPool, load_host_state_dict
from rstg_pyg.models import (
    SMALL,
    VIDEO_PAPER_SIZE,
    VIDEO_ROWS,
    VIDEO_SMALL,
    NonLocalBlock,
    VideoResNet,
    build_video_row,
    describe_video_rows,
)

TINY = dataclasses.replace(VIDEO_SMALL, width=4, channels=5, num_classes=7)
MAPS = {
    "i3d+rstg:res2": ["res2"],
    "i3d+rstg:res3": ["res3"],
    "i3d+rstg:res4": ["res4"],
    "i3d+rstg:res3-4": ["res3", "res4"],
}
VECS = ["c2d+rstg:vec", "i3d+rstg:vec"]


def video(batch=2, num_frames=4):
    return torch.rand(batch, 3, num_frames, 32, 32)


def test_rows_stand_in_the_order_of_the_table():
    assert [(row.name, row.published[1], row.published[5]) for row in VIDEO_ROWS.values()] == [
        ("c2d", 31.7, 64.7),
        ("i3d", 41.6, 72.2),
        ("nonlocal", 44.4, 76.0),
        ("c2d+rstg:vec", 42.8, 73.6),
        ("i3d+rstg:vec", 47.7, 77.9),
        ("i3d+rstg:res2", 46.9, 76.8),
        ("i3d+rstg:res3", 47.7, 77.8),
        ("i3d+rstg:res4", 48.4, 78.1),
        ("i3d+rstg:res3-4", 49.2, 78.8),
    ]
    assert all(row.name == name for name, row in VIDEO_ROWS.items())


@pytest.mark.parametrize(
    ("name", "depth"), [*((name, 18) for name in VIDEO_ROWS), ("nonlocal", 50), ("i3d+rstg:res3-4", 50)]
)
def test_every_row_trains_a_step(name, depth):
    net = build_video_row(name, dataclasses.replace(TINY, depth=depth)).double()
    optimizer = torch.optim.SGD(net.parameters(), 1e-5)
    clips, labels = video(3).double(), torch.arange(3)
    logits = net(clips)
    assert logits.shape == (3, 7)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    optimizer.step()
    assert torch.nn.functional.cross_entropy(net(clips), labels) < loss


@pytest.mark.parametrize("name", [*MAPS, *VECS, "nonlocal"])
def test_a_row_starts_as_its_backbone(name):
    plain = settle(build_video_row(name.split("+")[0].replace("nonlocal", "i3d"), TINY))
    net = build_video_row(name, TINY).eval()
    if name == "nonlocal" or name in VECS:
        net.load_state_dict(plain.state_dict(), strict=False)
    else:
        load_host_state_dict(net, plain.state_dict())
    clips = video()
    assert torch.equal(net(clips), plain(clips))


def test_where_the_blocks_stand():
    network = dataclasses.replace(TINY, heatmap_size=4)
    for name in VIDEO_ROWS:
        net = build_video_row(name, network)
        assert isinstance(net, VideoResNet)
        assert net.form == name.split("+")[0]
        maps = [module for module in net.modules() if isinstance(module, RSTGToMap)]
        vecs = [module for module in net.modules() if isinstance(module, RSTGToVec)]
        assert [block.in_channels for block in maps] == [net.widths[stage] for stage in MAPS.get(name, [])]
        assert len(vecs) == (name in VECS)
        assert any(isinstance(module, NonLocalBlock) for module in net.modules()) == (name == "nonlocal")
        assert list(getattr(net, "rstg_blocks", {})) == MAPS.get(name, [])
        for block in maps + vecs:
            assert block.channels == 5
            assert block.heatmap.size(1) == 16
            assert block.rstg.num_stages == 1
            assert block.input_norm is not None
            stages = [*block.rstg.time_stages, *block.rstg.space_stages]
            assert all(stage.residual and stage.norm is not None for stage in stages)
        assert all(block.readout == "mean" for block in vecs)


def test_sizes_reach_the_backbone():
    network = dataclasses.replace(TINY, dropout=0.25, frozen_bn=True, res5_stride=1, pool_padding=0, in_channels=1)
    net = build_video_row("c2d", network)
    assert net.dropout.p == 0.25
    assert net.frozen_bn
    assert net.features(torch.rand(1, 1, 2, 36, 36)).shape == (1, 32, 1, 2, 2)
    assert net.classifier.out_features == 7
    assert (VIDEO_PAPER_SIZE.depth, VIDEO_PAPER_SIZE.width, VIDEO_PAPER_SIZE.channels) == (50, 64, 512)
    assert VIDEO_PAPER_SIZE.num_classes == 174


def test_the_vector_is_added_to_the_mean():
    pool = RSTGPool(6, 4, scales=(2, 1), num_stages=1).double()
    volume = torch.randn(2, 6, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(pool(volume), volume.mean((2, 3, 4)), rtol=0, atol=1e-12)
    torch.nn.init.normal_(pool.norm.weight)
    torch.nn.init.normal_(pool.norm.bias)
    change = pool.lin_out(pool.to_vec(volume))
    change = (change - change.mean(1, keepdim=True)) / (change.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    expected = volume.mean((2, 3, 4)) + change * pool.norm.weight + pool.norm.bias
    torch.testing.assert_close(pool(volume), expected)
    out, attention = pool(volume, return_attention_weights=True)
    torch.testing.assert_close(out, expected)
    assert [alpha.shape for _, alpha in attention] == [(16, 2, 3, 1)]
    pool.reset_parameters()
    torch.testing.assert_close(pool(volume), volume.mean((2, 3, 4)), rtol=0, atol=1e-12)
    assert repr(pool) == "RSTGPool(6, 4, scales=((2, 2), (1, 1)))"


def test_descriptions_leave_random_numbers_alone():
    random = torch.get_rng_state()
    rows = describe_video_rows(TINY)
    assert torch.equal(torch.get_rng_state(), random)
    assert [name for name, *_ in rows] == list(VIDEO_ROWS)
    sizes = {name: size for name, _, size, _ in rows}
    assert sizes["c2d"] < sizes["i3d"] < sizes["i3d+rstg:res3"] < sizes["i3d+rstg:res3-4"]
    assert sizes["i3d"] == sum(p.numel() for p in build_video_row("i3d", TINY).parameters())


def test_a_wrong_name_gets_the_near_one():
    names = ", ".join(VIDEO_ROWS)
    with pytest.raises(ValueError) as caught:
        build_video_row("i3d+rstg:res34")
    assert str(caught.value) == (
        f"expected the name of a row to be one of {names}, got 'i3d+rstg:res34' (did you mean 'i3d+rstg:res3-4'?)"
    )
    with pytest.raises(ValueError, match="expected 'network' to be a VideoNetwork, got Network"):
        build_video_row("i3d", SMALL)
