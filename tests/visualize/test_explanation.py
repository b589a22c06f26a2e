"""What a model made of clips."""

import pytest
import torch

from rstg_pyg import RSTGToMap, RSTGToVec, region_graph, spacetime_edge_index
from rstg_pyg.authors import AuthorsSyncMNISTNet
from rstg_pyg.models import ROWS, Network, build_row, build_video_row
from rstg_pyg.visualize import explain_clips
from rstg_pyg.visualize.explanation import AttentionRecording

VIDEO = torch.randint(256, (3, 1, 4, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize(("stages", "heads"), [("all-temp", 1), ("1-temp", 4), ("space-only", 4)])
def test_it_is_what_the_model_returns(make_net, stages, heads):
    net = make_net(stages=stages, heads=heads).eval()
    seen = explain_clips(net, VIDEO)
    logits, attention = net(VIDEO, return_attention_weights=True)
    torch.testing.assert_close(seen.probabilities, logits.softmax(1))
    torch.testing.assert_close(seen.alpha, attention[-1][1].mean(-1))
    assert torch.equal(seen.graph.edge_index, attention[-1][0])
    assert torch.equal(seen.video, VIDEO[:, 0].float() / 255)
    assert not seen.alpha.requires_grad
    assert seen.frame_probabilities is None


@pytest.mark.parametrize("stages", ["all-temp", "homogeneous"])
def test_a_recording_reads_streams_as_it_reads_clips(stages):
    block, volume = RSTGToVec(4, scales=(2, 1), stages=stages), torch.randn(3, 4, 5, 6, 6)
    with AttentionRecording(block) as of_clip:
        vector = block(volume)
    recording, state = AttentionRecording(block), None
    for t in range(5):
        with recording:
            said, state = block.step(volume[:, :, t], state)
        assert recording.scales == of_clip.scales
        torch.testing.assert_close(recording.alpha[..., -1], of_clip.alpha[..., t])
    torch.testing.assert_close(said, vector)
    assert not block.rstg._forward_hooks
    assert not block.rstg._forward_pre_hooks


def test_of_a_space_time_graph_the_edges_within_frames_are_kept(make_net):
    net = make_net(stages="homogeneous").eval()
    seen = explain_clips(net, VIDEO)
    edge_index, alpha = net(VIDEO, return_attention_weights=True)[1][-1]
    assert torch.equal(edge_index, spacetime_edge_index(seen.graph.edge_index, 5, 4))
    place = {edge: number for number, edge in enumerate(map(tuple, edge_index.t().tolist()))}
    assert seen.alpha.shape == (16, 3, 4)
    for edge, (j, i) in enumerate(seen.graph.edge_index.t().tolist()):
        for t in range(4):
            torch.testing.assert_close(seen.alpha[edge, :, t], alpha[place[4 * j + t, 4 * i + t]].mean(-1))


def test_the_attention_of_the_authors_network():
    net = AuthorsSyncMNISTNet(filters=4).eval()
    weights = []
    net.graph.attention.register_forward_hook(lambda module, args, out: weights.append(out))
    seen = explain_clips(net, 255 * torch.rand(2, 1, 3, 64, 64))
    graph = region_graph((3, 2, 1))
    assert torch.equal(seen.graph.edge_index, graph.edge_index)
    for edge in (0, 50, 89):
        j, i = graph.edge_index[:, edge]
        torch.testing.assert_close(seen.alpha[edge], weights[-1][:, :, 0, i, j])


@pytest.mark.parametrize("stages", ["all-temp", "time-only", "homogeneous"])
def test_after_every_frame_it_says_what_the_beginning_of_the_clip_says(make_net, stages):
    net = make_net(stages=stages).eval()
    wrapped = torch.nn.Sequential(net)  # has no step
    expected = torch.stack([net(VIDEO[:, :, : t + 1]).softmax(1) for t in range(4)], dim=1)
    for model in (net, wrapped):
        seen = explain_clips(model, VIDEO, every_frame=True)
        torch.testing.assert_close(seen.frame_probabilities, expected)
        assert seen.graph.num_nodes == 5
        assert (seen.alpha is None) == (stages == "time-only")


def test_a_network_of_pairs_of_frames_is_explained_after_each():
    net, video = build_video_row("c2d+rstg:vec").eval(), torch.rand(1, 3, 4, 64, 64)
    seen = explain_clips(net, video, every_frame=True)
    torch.testing.assert_close(seen.frame_probabilities[:, -1], net(video).softmax(1))


def test_every_row_of_the_table_is_explained():
    for name in ROWS:
        net = build_row(name, Network(widths=(4, 8), channels=8, num_stages=1)).eval()
        seen = explain_clips(net, VIDEO, every_frame=True)
        torch.testing.assert_close(seen.probabilities, net(VIDEO).softmax(1))
        torch.testing.assert_close(seen.frame_probabilities[:, -1], seen.probabilities)
        torch.testing.assert_close(seen.frame_probabilities[:, 0], net(VIDEO[:, :, :1]).softmax(1))
        has_graph = isinstance(net.block, RSTGToVec)
        assert (seen.graph is not None) == has_graph, name
        assert (seen.alpha is not None) == (has_graph and name != "time-only"), name


def test_without_a_graph_there_are_probabilities():
    seen = explain_clips(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(7)), VIDEO.float())
    assert (seen.alpha, seen.graph) == (None, None)
    assert seen.probabilities.shape == (3, 7)


def test_of_several_graphs_the_last_one_that_ran_counts(make_net):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = make_net(1, scales=((1, 2), 1), stages="time-only")
            self.block = RSTGToMap(1, 4, scales=(2,))

        def forward(self, video):
            return self.head(self.block(video[:, :, ::2]))

    video = torch.rand(2, 1, 5, 32, 32)
    net = Net().eval()
    seen = explain_clips(net, video)
    assert seen.graph.num_nodes == 4
    # The graph saw frames 1, 3 and 5; a frame that it did not see shows what came of the part of the clip it is in.
    alpha = net.block(video[:, :, ::2], return_attention_weights=True)[1][-1][1].mean(-1)
    torch.testing.assert_close(seen.alpha, alpha[:, :, [0, 0, 1, 1, 2]])


def test_the_answer_of_a_model_that_returns_attention_itself_stays(make_net):
    block = make_net().block
    volume = torch.rand(1, 8, 3, 6, 6)
    with AttentionRecording(block) as recording:
        _, attention = block(volume, return_attention_weights=True)
        torch.testing.assert_close(recording.alpha, attention[-1][1].mean(-1))
        assert torch.is_tensor(block(volume))
    assert not block._forward_hooks
    assert not block._forward_pre_hooks


def test_a_compiled_model_is_explained_too(make_net):
    net = make_net()
    expected = explain_clips(net, VIDEO)
    net.compile(backend="eager")
    seen = explain_clips(net, VIDEO)
    assert torch.equal(seen.alpha, expected.alpha)


def test_modes_and_statistics_stay_as_they_were(make_net):
    net = make_net(input_norm="batch_norm").train()
    net.backbone.eval()
    modes = [module.training for module in net.modules()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    explain_clips(net, VIDEO, every_frame=True)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    with pytest.raises(ValueError, match="frames of shape"):
        explain_clips(net, VIDEO.expand(3, 2, 4, 32, 32))
    assert [module.training for module in net.modules()] == modes


def test_pictures_of_any_channels(make_net):
    for channels in (1, 2, 3):
        video = torch.rand(2, channels, 4, 20, 30)
        seen = explain_clips(make_net(channels, 5, scales=((2, 3), (1, 1))), video)
        assert torch.equal(seen.video, video.movedim(1, -1) if channels == 3 else video.mean(1))
        assert seen.probabilities.shape == (2, 5)


def test_other_ranges_are_stretched_clip_by_clip(make_net):
    video = torch.rand(2, 1, 2, 20, 20)
    video[0] = 6 * video[0] - 3
    seen = explain_clips(make_net(), video)
    assert (seen.video[0].min(), seen.video[0].max()) == (0, 1)
    assert torch.equal(seen.video[1], video[1, 0])


def test_errors(make_net):
    with pytest.raises(ValueError, match=r"^expected a video of shape \[n, C, T, H, W\], got \[1, 4, 8, 8\]$"):
        explain_clips(make_net(), torch.rand(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"^expected a video of shape \[n, C, T, H, W\], got \[0, 1, 4, 8, 8\]$"):
        explain_clips(make_net(), torch.rand(0, 1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"^expected the model to return logits of shape \[3, M\], got \[3, 1, 4,"):
        explain_clips(torch.nn.Identity(), VIDEO)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu(make_net):
    net = make_net()
    expected = explain_clips(net, VIDEO)
    seen = explain_clips(net.cuda(), VIDEO)
    assert seen.alpha.device.type == seen.probabilities.device.type == "cpu"
    torch.testing.assert_close(seen.alpha, expected.alpha, atol=1e-3, rtol=1e-3)
