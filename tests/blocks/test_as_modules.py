"""What PyTorch's users do to any module: build it without memory, change its type, share and replace its parts."""

from itertools import chain

import pytest
import torch

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


@pytest.mark.parametrize("make", [lambda: RSTGToMap(8, **SMALL), lambda: NonLocalBlock(8)], ids=["map", "non-local"])
def test_a_block_starts_as_nothing_without_memory_too(make):
    volume = torch.rand(2, *VOLUME)
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
    assert torch.equal(Network.from_pretrained(tmp_path)(volume), network(volume))
    half = Network.from_pretrained(tmp_path, dtype=torch.bfloat16)
    torch.testing.assert_close(half(volume.bfloat16()).float(), network(volume), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", MODULES)
def test_modules_follow_the_default_type(name):
    make, shape = MODULES[name]
    torch.set_default_dtype(torch.float64)
    try:
        out = call(make(), shape)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (out[0] if isinstance(out, tuple) else out).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["classifier", "resnet"])
def test_networks_of_any_type_take_the_videos_of_data_sets(name, dtype):
    net, video = MODULES[name][0]().eval(), torch.randint(256, (2, *VIDEO), dtype=torch.uint8)
    tolerance = {"rtol": 0.1, "atol": 0.1} if dtype == torch.bfloat16 else {}
    with torch.no_grad():
        expected = net(video)
        out, state = net.to(dtype)(video), None
        for t in range(video.size(2)):
            streamed, state = net.step(video[:, :, t], state)
    for logits in (out, streamed):
        assert logits.dtype == dtype
        torch.testing.assert_close(logits.float(), expected, **tolerance)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.bool])
@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_positions_and_edge_features_take_the_type_of_the_nodes(dtype, backend):
    conv, x = RSTGConv(8, 8, pe_channels=3, edge_dim=1, backend=backend), torch.randn(NODES)
    pe, edge_attr = (torch.randint(2, (rows, width)) for rows, width in ((5, 3), (GRAPH.num_edges, 1)))
    expected = conv(x, GRAPH.edge_index, edge_attr.float(), pe.float())
    assert torch.equal(conv(x, GRAPH.edge_index, edge_attr.to(dtype), pe.to(dtype)), expected)
    sparse = torch.sparse_coo_tensor(GRAPH.edge_index.flip(0), edge_attr.to(dtype), (5, 5, 1)).coalesce()
    torch.testing.assert_close(conv(x, sparse, pe=pe.to(dtype)), expected)
    with pytest.raises(ValueError, match=r"expected 'pe' of shape .*, got torch\.complex64"):
        conv(x, GRAPH.edge_index, edge_attr, pe.to(torch.complex64))


class Halved(torch.nn.LSTM):
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


@pytest.mark.parametrize(
    "replace",
    [lambda rnn: Halved(8, 8, batch_first=True), Around, patched, lambda rnn: torch.nn.GRU(8, 8, batch_first=True)],
    ids=["subclass", "wrapper", "patch", "kind"],
)
@pytest.mark.parametrize(("make", "dim"), [(lambda: TimeStage(8), 1), (lambda: MeanLSTM(8), 2)], ids=["stage", "mean"])
def test_a_recurrent_network_that_was_replaced_is_the_one_that_runs(make, dim, replace):
    block = make()
    block.rnn = replace(block.rnn)
    x, state = torch.randn(NODES if dim == 1 else (2, *VOLUME)), None
    for frame in x.unbind(dim):
        if isinstance(block, TimeStage):
            out, state = block(frame.unsqueeze(1), state)
        else:
            out, state = block.step(frame, state)
    expected = block(x)[0][:, -1:] if isinstance(block, TimeStage) else block(x)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("make", [lambda: TimeStage(8), lambda: MeanLSTM(8)], ids=["stage", "mean"])
def test_a_recurrent_network_of_more_layers_is_refused(make):
    block = make()
    block.rnn = torch.nn.LSTM(8, 8, num_layers=2, batch_first=True)
    with pytest.raises(ValueError, match="of one layer and one direction, got 2 in LSTM"):
        block(torch.randn(NODES if isinstance(block, TimeStage) else (2, *VOLUME)))


@pytest.mark.parametrize(
    "kind",
    [
        "register_forward_pre_hook",
        "register_forward_hook",
        "register_full_backward_pre_hook",
        "register_full_backward_hook",
    ],
)
def test_hooks_of_the_recurrent_network_fire_in_a_stream(kind):
    stage, fired = TimeStage(8), []
    getattr(stage.rnn, kind)(lambda *args: fired.append(kind))
    stage(torch.randn(5, 1, 8, requires_grad=True))[0].sum().backward()
    assert fired == [kind]


@pytest.mark.parametrize("heads", [1, 2])
def test_the_rest_learns_as_before_where_a_part_is_frozen(heads):
    block, volume = RSTGToVec(8, heads=heads, **SMALL), torch.randn(2, *VOLUME)
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


@pytest.mark.parametrize(
    "option", [{"heads": 4}, {"send_act_last": True}, {"update_act_last": True}, {"residual": True}]
)
def test_weights_of_another_formula_are_refused_though_they_fit(option, tmp_path):
    ((name, value),) = option.items()
    other, block = RSTGToVec(8, **SMALL, **option), RSTGToVec(8, **SMALL)
    torch.save(other.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    own = {"heads": 1}.get(name, False)
    message = f"of {name}={own} for 'rstg.space_stages.0', got those of {name}={value}"
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=message):
            block.load_state_dict(state, strict=strict)
    save_weights(other, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=f"weights.pt to be a file of this model's weights, got: .*{message}"):
        load_model_weights(tmp_path / "weights.pt", block)
    load_model_weights(tmp_path / "weights.pt", RSTGToVec(8, **SMALL, **option))
    block.load_state_dict(dict(state))


@pytest.mark.parametrize(
    "make",
    [
        lambda: RSTGToVec(8, norm="batch_norm", input_norm="batch_norm", **SMALL),
        lambda: MeanLSTM(8, input_norm="batch_norm"),
        lambda: ConvLSTM(8, input_norm="batch_norm"),
        lambda: NonLocalBlock(8),
    ],
    ids=["vec", "mean", "conv", "non-local"],
)
def test_batch_norms_that_several_processes_share_normalise_channels(make):
    """What Lightning does to a network with sync_batchnorm=True."""
    block, volume = make().eval(), torch.rand(2, *VOLUME)
    for norm in (part for part in block.modules() if hasattr(part, "running_mean")):
        torch.nn.init.uniform_(norm.weight)
        norm.running_mean.uniform_()
    expected = block(volume)
    torch.testing.assert_close(torch.nn.SyncBatchNorm.convert_sync_batchnorm(block)(volume), expected)
