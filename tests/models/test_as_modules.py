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
from rstg_pyg.models import NonLocalBlock, RSTGPool, VideoResNet, insert_rstg

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
