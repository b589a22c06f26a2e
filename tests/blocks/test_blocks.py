"""RSTGToVec and RSTGToMap: volumes in, vectors or volumes out."""

import copy

import pytest
import torch
from cases import case
from laws import assert_clip_equals_stream, assert_stream_owns_its_memory
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.testing import withDevice

from rstg_pyg import RegionPool, RegionProject, RSTGToMap, RSTGToVec, ToRegionGraph
from rstg_pyg.blocks import RSTGPool, VolumePool
from rstg_pyg.blocks.volume_pool import next_mean

FORMS = ["all-temp", "1-temp", "space-only", "time-only", "homogeneous"]


def volume(num_frames=5):
    return torch.randn(2, 3, num_frames, 7, 9, dtype=torch.float64)


def to_vec(**options):
    return RSTGToVec(3, 4, **{"scales": (2, 1), "num_stages": 2, **options}).double()


def to_map(**options):
    block = RSTGToMap(3, 4, **{"scales": (2, 1), "num_stages": 2, **options}).double()
    torch.nn.init.normal_(block.lin_out.weight)
    torch.nn.init.normal_(block.lin_out.bias)
    return block


def pool(**options):
    return RSTGPool(3, 4, scales=(2, 1), **options).double()


def test_to_vec_is_the_sum_of_the_nodes():
    """Against the explicit route: transform, stock loader, RSTG on a batch of graphs, sum per graph."""
    for heatmap_size in (None, 6):
        clips, vec, transform = volume(), to_vec(heatmap_size=heatmap_size), ToRegionGraph((2, 1))
        batch = next(iter(DataLoader([transform(Data(video=clip)) for clip in clips], batch_size=2)))
        pe = None if heatmap_size is None else batch.heatmap.double()
        out, _ = vec.rstg(vec.lin_in(batch.x), batch.edge_index, pe=pe)
        per_clip = out.view(2, 5, 5, 4).sum(1)
        torch.testing.assert_close(vec(clips), per_clip[:, -1])
        vec.readout = "mean"
        torch.testing.assert_close(vec(clips), per_clip.mean(1))


def test_to_map_spreads_the_nodes_over_their_cells():
    block, clips = to_map(), volume()
    nodes = block.lin_in(RegionPool((2, 1))(clips.transpose(1, 2)))
    out, _ = block.rstg(nodes.movedim(2, 0), block.edge_index, pe=block.heatmap)
    maps = RegionProject((2, 1))(block.lin_out(out).movedim(0, 2), (7, 9))
    torch.testing.assert_close(block(clips), clips + maps.transpose(1, 2))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", [to_vec, to_map, pool])
def test_clips_of_any_length_give_what_each_gives_alone(form, make):
    block, clips = make(stages=form, input_norm="layer_norm"), volume()
    if isinstance(block, RSTGPool):
        torch.nn.init.normal_(block.norm.weight)
    # A node of the homogeneous form hears the frame before where it was there: a gap is no frame that is left out.
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0] if form == "homogeneous" else [0, 1, 0, 1, 0]]).bool()
    clips[~mask[:, None].expand(2, 3, 5)] = float("nan")
    out = block(clips.requires_grad_(), mask=mask)
    if make is to_map:
        torch.testing.assert_close(out[:1], block(clips[:1]))
        torch.testing.assert_close(out[1:, :, mask[1]], block(clips[1:, :, mask[1]]))
        assert not out[1, :, ~mask[1]].any()
    else:
        torch.testing.assert_close(out, torch.cat([block(clips[:1]), block(clips[1:, :, mask[1]])]))
    out.sum().backward()
    assert not clips.grad.isnan().any()
    assert not any(weight.grad.isnan().any() for weight in block.parameters() if weight.grad is not None)
    with pytest.raises(
        ValueError, match=r"expected a bool 'mask' of shape \[2, 5\], got torch.float64 of shape \[2, 5\]"
    ):
        block(clips, mask=mask.double())


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_of_clips_that_lack_frames_gives_what_the_clips_give(form):
    clips = volume()
    mask = torch.tensor([[0, 1, 1, 0, 1], [1, 0, 1, 1, 0]]).bool()
    clips[~mask[:, None].expand(2, 3, 5)] = float("nan")
    for make, options in ((to_vec, {"readout": "last"}), (to_vec, {"readout": "mean"}), (to_map, {}), (pool, {})):
        block, state = make(stages=form, **options), None
        if make is pool:
            torch.nn.init.normal_(block.norm.weight)
        for t in range(5):
            out, state = block.step(clips[:, :, t], state, mask[:, t])
            expected = block(clips[:, :, : t + 1], mask=mask[:, : t + 1])
            torch.testing.assert_close(out, expected[:, :, -1] if make is to_map else expected)
        with pytest.raises(ValueError, match=r"expected a bool 'mask' of shape \[2\]"):
            block.step(clips[:, :, 0], state, mask)
    block = to_vec()
    for first, then, got in [(None, mask[:, 0], r"one with a state of \(\("), (mask[:, 0], None, "none after frames")]:
        with pytest.raises(ValueError, match=f"a mask in every frame of a stream or in none, got {got}"):
            block.step(clips[:, :, 0], block.step(clips[:, :, 0], None, first)[1], then)


def test_a_fresh_map_block_changes_nothing_and_learns():
    for form in FORMS:
        block, clips = RSTGToMap(3, stages=form), torch.randn(2, 3, 5, 7, 9)
        out = block(clips)
        assert torch.equal(out, clips)
        (out**2).sum().backward()
        assert block.lin_out.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("form", FORMS)
def test_stream_equals_clip(form):
    clips = volume()
    for make, options in [
        (to_vec, {"readout": "last", "norm": "layer_norm", "residual": True}),
        (to_vec, {"readout": "mean", "norm": "layer_norm", "residual": True}),
        (to_map, {"rnn": "lstm"}),
        (to_map, {"rnn": "gru"}),
        (to_map, {"rnn": "linear", "chrono": 9}),
    ]:
        block, state = make(stages=form, **options), None
        for t in range(5):
            out, state = block.step(clips[:, :, t], state)
            expected = block(clips[:, :, : t + 1])
            expected = expected if make is to_vec else expected[:, :, -1]
            torch.testing.assert_close(out, expected, msg=lambda m, b=block, o=options: f"{b}, {o}: {m}")


@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_over_outputs_and_inputs_does_not_reach_a_stream(form):
    frames, mask = volume().movedim(2, 0), torch.rand(5, 2) < 0.6
    for make, options in [(to_vec, {"readout": "last"}), (to_vec, {"readout": "mean"}), (to_map, {}), (pool, {})]:
        block = make(stages=form, **options)
        for given in [(frames,), (frames, mask)]:
            with case(block, options, len(given)):
                assert_stream_owns_its_memory(
                    lambda state, frame, mask=None, block=block: block.step(frame, state, mask), *given
                )


def test_the_mean_over_a_mask_of_true_does_not_outgrow_float16():
    volume_ = torch.full((1, 3, 100, 2, 2), 1000.0).half()
    torch.testing.assert_close(VolumePool(3)(volume_, torch.ones(1, 100).bool()), VolumePool(3)(volume_))


def test_the_mean_of_a_long_stream_keeps_its_digits():
    """A sum in bfloat16 stops to grow where a frame is less than half its last digit."""
    frame = torch.full((1, 3, 2, 2), 1.1, dtype=torch.bfloat16)
    for block in (VolumePool(3), RSTGToVec(3, stages="space-only", scales=(1,), num_stages=1)):
        state, block = None, block.bfloat16()
        with torch.no_grad():
            once = block(frame.unsqueeze(2))
            for _ in range(400):
                out, state = block.step(frame, state)
        torch.testing.assert_close(out, once)
        assert int(state[-1]) == 400


def test_a_mean_counts_more_than_a_float_can():
    memory = (torch.tensor([1.0]), torch.tensor(2**24))
    for _ in range(3):
        value, *memory = next_mean(torch.tensor([1.0 + 2**24]), *memory)
    assert memory[1] == 2**24 + 3
    torch.testing.assert_close(value, torch.tensor([4.0]))
    value.zero_()
    assert memory[0] > 3


def test_nodes_run_in_pieces():
    block = to_vec(input_norm="batch_norm").eval()
    nodes = block.run(volume())[0]
    assert nodes.shape == (5, 2, 5, 4)
    assert_clip_equals_stream(block.run, volume(), 2, dim=2)


def test_a_batch_equals_its_members():
    for block in (to_vec(), to_map()):
        clips = volume()
        torch.testing.assert_close(block(clips), torch.cat([block(clip[None]) for clip in clips]))


def test_forms_without_memory_average_over_time_by_default():
    assert to_vec(stages="space-only").readout == "mean"
    assert to_vec().readout == to_vec(stages="homogeneous").readout == "last"


def test_attention():
    clips = volume()
    for block in (to_vec(heads=2), to_map(heads=2)):
        out, attention = block(clips, return_attention_weights=1)
        torch.testing.assert_close(out, block(clips, return_attention_weights=False))
        assert [alpha.shape for _, alpha in attention] == [(16, 2, 5, 2)] * 2


@pytest.mark.parametrize("make", [to_map, to_vec], ids=["map", "vec"])
@torch._dynamo.config.patch(allow_rnn=True)
def test_compiled_equals_eager(make):
    torch._dynamo.reset()
    block, clips = make(num_stages=1), volume()
    torch.testing.assert_close(torch.compile(block, backend="aot_eager", fullgraph=True)(clips), block(clips))


def test_autocast_is_near_float32():
    clips = volume().float()
    for block in (to_vec().float(), to_map().float()):
        with torch.autocast("cpu", torch.bfloat16):
            out = block(clips)
            out.sum().backward()
        torch.testing.assert_close(out.float(), block(clips), atol=0.15, rtol=0.1)


def test_a_module_of_ones_own_may_keep_a_number_per_node_in_a_stream():
    class Count(torch.nn.Module):
        def forward(self, x, state, lengths=None):
            return x, (x.new_zeros(len(x)) if state is None else state) + x.size(1)

    block, state = RSTGToVec(3, 4, num_stages=1, rnn=lambda channels: Count()).eval(), None
    clips = torch.randn(2, 3, 3, 6, 6)
    for frame in clips.unbind(2):
        vector, state = block.step(frame, state)
    torch.testing.assert_close(vector, block(clips))


@withDevice
def test_devices(device):
    for block in (RSTGToVec(3, 4), RSTGToMap(3, 4)):
        block = block.to(device)
        assert block(torch.randn(1, 3, 2, 6, 6, device=device)).device == device


def test_the_checkpoint_holds_weights_alone():
    names = set(to_vec().state_dict())
    assert names
    assert not any("heatmap" in name or "edge_index" in name or "cells" in name for name in names)
    block = to_map()
    twin = copy.deepcopy(block)
    twin.load_state_dict(block.state_dict())
    clips = volume()
    torch.testing.assert_close(twin(clips), block(clips))


def test_reset_parameters_zeroes_the_output_again():
    block, clips = to_map(), volume()
    assert not torch.equal(block(clips), clips)
    block.reset_parameters()
    assert torch.equal(block(clips), clips)


def test_repr():
    assert repr(RSTGToVec(3, 4)) == "RSTGToVec(3, 4, scales=((3, 3), (2, 2), (1, 1)))"
    assert repr(RSTGToMap(3, scales=((1, 2),))) == "RSTGToMap(3, 3, scales=((1, 2),))"


BAD_ARGUMENTS = [
    ({"in_channels": 0}, "'in_channels' to be a positive int, got 0"),
    ({"channels": -1}, "'channels' to be a positive int, got -1"),
    ({"scales": ()}, "at least one scale"),
    ({"heatmap_size": 0}, "'heatmap_size' to be a positive int, got 0"),
    ({"input_norm": "batch"}, "'input_norm' to be one of"),
    ({"pe_channels": 36}, "no 'pe_channels': it follows from heatmap_size .*, got 36"),
    ({"edge_dim": 2}, "no 'edge_dim': the edges between regions have no features, got 2"),
]


def test_bad_arguments():
    for block in (RSTGToVec, RSTGToMap):
        for arguments, message in BAD_ARGUMENTS:
            with pytest.raises(ValueError, match=message):
                block(**{"in_channels": 3, **arguments})
    with pytest.raises(ValueError, match="'readout' to be one of 'last', 'mean', got 'sum'"):
        RSTGToVec(3, readout="sum")


@pytest.mark.parametrize("make", [RSTGToVec, RSTGToMap, RSTGPool, VolumePool])
def test_bad_volumes_and_frames(make):
    block = make(3)
    for shape in ([3, 5, 6, 6], [1, 4, 5, 6, 6], [2, 3, 0, 6, 6], [2, 3, 5, 0, 6], [2, 3, 5, 6, 0]):
        with pytest.raises(ValueError) as caught:
            block(torch.randn(shape))
        wanted = "a feature volume of shape [B, 3, T, H, W] with T, H and W of at least 1"
        assert str(caught.value) == f"expected {wanted}, got {shape}"
    for shape in ([1, 3, 5, 6, 6], [2, 4, 6, 6], [2, 3, 0, 6], [2, 3, 6, 0]):
        with pytest.raises(ValueError) as caught:
            block.step(torch.randn(shape))
        assert str(caught.value) == f"expected a frame of shape [B, 3, H, W] with H and W of at least 1, got {shape}"
