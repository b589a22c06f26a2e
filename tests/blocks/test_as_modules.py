"""What PyTorch's users do to any module: build it without memory, change its type, share and replace its parts."""

import re
from itertools import chain

import pytest
import torch
from cases import case
from torch.nn import GRU, LSTM

from rstg_pyg import (
    RSTG,
    FrameCNN,
    RSTGConv,
    RSTGToMap,
    RSTGToVec,
    TimeStage,
    VideoClassifier,
    region_graph,
)
from rstg_pyg.authors import AuthorsRSTG
from rstg_pyg.blocks import RSTGPool, insert_rstg
from rstg_pyg.models import ConvLSTM, MeanLSTM, NonLocalBlock, VideoResNet
from rstg_pyg.training import CheckpointError, load_model_weights, save_weights

GRAPH = region_graph((2, 1), 3)
SMALL = {"scales": (2, 1), "num_stages": 1, "heatmap_size": 3}
VOLUME, NODES, VIDEO = (8, 2, 6, 6), (5, 2, 8), (3, 4, 32, 32)


def inserted():
    return insert_rstg(VideoResNet("c2d", 18, num_classes=3, width=4), {"res2": {"in_channels": 4, **SMALL}})


MODULES = {
    "conv": (lambda: RSTGConv(8, 8, heads=2), NODES),
    "stages": (lambda: RSTG(8, norm="batch_norm"), NODES),
    "time": (lambda: TimeStage(8, norm="layer_norm"), NODES),
    "vec": (lambda: RSTGToVec(8, 4, **SMALL), (2, *VOLUME)),
    "map": (lambda: RSTGToMap(8, **SMALL), (2, *VOLUME)),
    "pool": (lambda: RSTGPool(8, **SMALL), (2, *VOLUME)),
    "classifier": (lambda: VideoClassifier(FrameCNN(3, (8,)), RSTGToVec(8, **SMALL), 3), (2, *VIDEO)),
    "resnet": (inserted, (2, *VIDEO)),
    "authors": (lambda: AuthorsRSTG(8, scales=(2, 1), heatmap_size=4), (2, *VOLUME)),
}


def call(module, shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return module(x, GRAPH.edge_index) if isinstance(module, (RSTG, RSTGConv)) else module(x)


def from_meta(make):
    """A module as frameworks for large networks make it: without memory, then with memory, reset layer by layer."""
    with torch.device("meta"):
        module = make()
    assert all(tensor.is_meta for tensor in chain(module.parameters(), module.buffers()))
    module.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in chain(module.parameters(), module.buffers()):
            tensor.fill_(77)
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return module.eval()


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_was_built_without_memory_computes_what_an_ordinary_one_does(name):
    make, shape = MODULES[name]
    ordinary, module = make().eval(), from_meta(make)
    module.load_state_dict(ordinary.state_dict())
    torch.testing.assert_close(call(module, shape), call(ordinary, shape), rtol=0, atol=0)


def test_a_block_starts_as_nothing_without_memory_too():
    volume = torch.rand(2, *VOLUME)
    for make in (lambda: RSTGToMap(8, **SMALL), lambda: NonLocalBlock(8)):
        assert torch.equal(from_meta(make)(volume), volume)


def test_constants_that_a_checkpoint_leaves_without_memory_are_made_anew():
    ordinary = RSTGToVec(8, **SMALL)
    with torch.device("meta"):
        block = RSTGToVec(8, **SMALL)
    block.load_state_dict(ordinary.state_dict(), assign=True)
    for part in block.modules():
        if hasattr(part, "reset_buffers"):
            part.reset_buffers()
    volume = torch.rand(2, *VOLUME)
    assert torch.equal(block(volume), ordinary(volume))


def test_a_network_of_transformers_that_holds_a_block_is_saved_and_loaded(tmp_path):
    transformers = pytest.importorskip("transformers")

    class Config(transformers.PretrainedConfig):
        model_type = "rstg-test"

    class Network(transformers.PreTrainedModel):
        config_class = Config

        def __init__(self, config):
            super().__init__(config)
            self.block = RSTGToVec(8, **SMALL)
            self.head = torch.nn.Linear(8, 3)
            self.post_init()

        def _init_weights(self, module):
            super()._init_weights(module)
            if hasattr(module, "reset_buffers"):
                module.reset_buffers()

        def forward(self, volume):
            return self.head(self.block(volume))

    network, volume = Network(Config()).eval(), torch.rand(2, *VOLUME)
    network.save_pretrained(tmp_path)
    again = Network.from_pretrained(tmp_path)
    for mine, other in (
        (network.state_dict(), again.state_dict()),
        (dict(network.named_buffers()), dict(again.named_buffers())),
    ):
        assert list(mine) == list(other)
        assert all(torch.equal(mine[name], other[name]) for name in mine)
    # Where memory lies decides on some processors how a product is added up.
    torch.testing.assert_close(again(volume), network(volume))
    half = Network.from_pretrained(tmp_path, dtype=torch.bfloat16)
    torch.testing.assert_close(half(volume.bfloat16()).float(), network(volume), rtol=0.1, atol=0.1)


def test_modules_follow_the_default_type():
    torch.set_default_dtype(torch.float64)
    try:
        outs = {name: call(make(), shape) for name, (make, shape) in MODULES.items()}
    finally:
        torch.set_default_dtype(torch.float32)
    types = {name: (out[0] if isinstance(out, tuple) else out).dtype for name, out in outs.items()}
    assert types == dict.fromkeys(MODULES, torch.float64)


@torch.no_grad()
def test_networks_of_any_type_take_the_videos_of_data_sets():
    for name in ("classifier", "resnet"):
        net, video = MODULES[name][0]().eval(), torch.randint(256, (2, *VIDEO), dtype=torch.uint8)
        expected = net(video)
        for dtype, tolerance in ((torch.float64, {}), (torch.bfloat16, {"rtol": 0.1, "atol": 0.1})):
            out, state = net.to(dtype)(video), None
            for t in range(video.size(2)):
                streamed, state = net.step(video[:, :, t], state)
            for logits in (out, streamed):
                assert logits.dtype == dtype
                torch.testing.assert_close(logits.float(), expected, **tolerance)


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_positions_and_edge_features_take_the_type_of_the_nodes(backend):
    conv, x = RSTGConv(8, 8, pe_channels=3, edge_dim=1, backend=backend), torch.randn(NODES)
    pe, edge_attr = (torch.randint(2, (rows, width)) for rows, width in ((5, 3), (GRAPH.num_edges, 1)))
    expected = conv(x, GRAPH.edge_index, edge_attr.float(), pe.float())
    for dtype in (torch.int64, torch.float64, torch.bool):
        assert torch.equal(conv(x, GRAPH.edge_index, edge_attr.to(dtype), pe.to(dtype)), expected)
        sparse = torch.sparse_coo_tensor(GRAPH.edge_index.flip(0), edge_attr.to(dtype), (5, 5, 1)).coalesce()
        torch.testing.assert_close(conv(x, sparse, pe=pe.to(dtype)), expected)
    with pytest.raises(ValueError, match=r"expected 'pe' of shape .*, got torch\.complex64"):
        conv(x, GRAPH.edge_index, edge_attr, pe.to(torch.complex64))


class Halved(LSTM):
    def forward(self, *args):
        out, state = super().forward(*args)
        return out / 2, state


class Around(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args):
        return self.inner(*args)


def patched(rnn):
    forward = rnn.forward
    rnn.forward = lambda *args: (forward(*args)[0] / 2, forward(*args)[1])
    return rnn


def test_a_recurrent_network_that_was_replaced_is_the_one_that_runs():
    stage, mean = TimeStage(8), MeanLSTM(8)
    others = (lambda rnn: Halved(8, 8, batch_first=True), Around, patched, lambda rnn: GRU(8, 8, batch_first=True))
    for block, x, dim, step in [
        (stage, torch.randn(NODES), 1, lambda frame, state: stage(frame.unsqueeze(1), state)),
        (mean, torch.randn(2, *VOLUME), 2, mean.step),
    ]:
        for replace in others:
            block.rnn, state = replace(LSTM(8, 8, batch_first=True)), None
            for frame in x.unbind(dim):
                out, state = step(frame, state)
            torch.testing.assert_close(out, stage(x)[0][:, -1:] if block is stage else mean(x))


def test_a_recurrent_network_of_more_layers_is_refused():
    for block, shape in ((TimeStage(8), NODES), (MeanLSTM(8), (2, *VOLUME))):
        block.rnn = LSTM(8, 8, num_layers=2, batch_first=True)
        with pytest.raises(ValueError, match="of one layer and one direction, got 2 in LSTM"):
            block(torch.randn(shape))


def test_hooks_of_the_recurrent_network_fire_in_a_stream():
    """Each kind alone: a shorter way may not pass any of them by."""
    for kind in ("forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook"):
        stage, fired = TimeStage(8), []
        getattr(stage.rnn, f"register_{kind}")(lambda *args, kind=kind, fired=fired: fired.append(kind))
        stage(torch.randn(5, 1, 8, requires_grad=True))[0].sum().backward()
        assert fired == [kind]


def test_the_rest_learns_as_before_where_a_part_is_frozen():
    volume = torch.randn(2, *VOLUME)
    for heads in (1, 2):
        block = RSTGToVec(8, heads=heads, **SMALL)
        block(volume).square().sum().backward()
        expected = {name: p.grad for name, p in block.named_parameters()}
        for frozen, parameter in block.named_parameters():
            block.zero_grad()
            parameter.requires_grad_(False)
            block(volume).square().sum().backward()
            found = {name: p.grad for name, p in block.named_parameters()}
            parameter.requires_grad_()
            assert found[frozen] is None
            torch.testing.assert_close(found, {**expected, frozen: None}, rtol=1e-3, atol=1e-5)


def test_weights_of_another_formula_are_refused_though_they_fit(tmp_path):
    places = {"residual": "rstg.time_stages.0", "stages": "rstg", "scales": None, "readout": None}
    for name, value, own in [
        ("heads", 4, 1),
        ("send_act_last", True, False),
        ("update_act_last", True, False),
        ("act", "elu", "relu"),
        ("aggr", "mean", "sum"),
        ("residual", True, False),
        ("stages", ("time", "space", "space", "time"), ("time", "space", "time")),
        ("scales", ((3, 3), (1, 1)), ((2, 2), (1, 1))),
        ("readout", "mean", "last"),
    ]:
        other, block = RSTGToVec(8, **{**SMALL, name: value}), RSTGToVec(8, **SMALL)
        torch.save(other.state_dict(), tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        place = places.get(name, "rstg.space_stages.0") or repr(block)
        message = re.escape(f"of {name}={own!r} for {place}, got those of {name}={value!r}")
        with case(name):
            for strict in (True, False):
                with pytest.raises(RuntimeError, match=message):
                    block.load_state_dict(state, strict=strict)
            save_weights(other, tmp_path / "weights.pt")
            with pytest.raises(
                CheckpointError, match=f"weights.pt to be a file of this model's weights, got: .*{name}="
            ):
                load_model_weights(tmp_path / "weights.pt", block)
            load_model_weights(tmp_path / "weights.pt", RSTGToVec(8, **{**SMALL, name: value}))
            block.load_state_dict(dict(state))
    with pytest.raises(RuntimeError, match="attention='dot'"):
        RSTGConv(8, 8, heads=8).load_state_dict(RSTGConv(8, 8, heads=8, attention="additive").state_dict())
    # Two names of one formula.
    RSTGToVec(8, **SMALL).load_state_dict(RSTGToVec(8, **SMALL, act="ReLU", aggr="add").state_dict())


def test_batch_norms_that_several_processes_share_normalise_channels():
    """What Lightning does to a network with sync_batchnorm=True."""
    volume = torch.rand(2, *VOLUME)
    for block in (
        RSTGToVec(8, norm="batch_norm", input_norm="batch_norm", **SMALL),
        MeanLSTM(8, input_norm="batch_norm"),
        ConvLSTM(8, input_norm="batch_norm"),
        NonLocalBlock(8),
    ):
        block.eval()
        for norm in (part for part in block.modules() if hasattr(part, "running_mean")):
            torch.nn.init.uniform_(norm.weight)
            norm.running_mean.uniform_()
        expected = block(volume)
        torch.testing.assert_close(torch.nn.SyncBatchNorm.convert_sync_batchnorm(block)(volume), expected)
