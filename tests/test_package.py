"""The package as a whole: what it exports, what it says of itself, what it needs."""

import ast
import doctest
import graphlib
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_geometric
from cases import case
from torch.utils._pytree import tree_map
from torch_geometric.data import Data

import rstg_pyg
import rstg_pyg.__main__ as rstg_pyg_command
from rstg_pyg import (
    RSTG,
    FrameCNN,
    RegionProject,
    RSTGConv,
    RSTGToMap,
    RSTGToVec,
    TimeStage,
    ToRegionGraph,
    insert_rstg,
    region_graph,
    spacetime_edge_index,
)
from rstg_pyg.models import Forecaster, MotionForecaster, PairForecaster, build_row
from rstg_pyg.ops import GraphIndex
from rstg_pyg.recurrence import NodeMemory
from rstg_pyg.temporal import from_snapshots, from_table, sample_neighbors, slice_frames
from rstg_pyg.visualize import animate_graph

ROOT = Path(rstg_pyg.__file__).parent
MODULES = [module.name for module in pkgutil.walk_packages([str(ROOT)], "rstg_pyg.")]
PUBLIC = [name for name in rstg_pyg.__all__ if name != "__version__"]
EXTRAS = [
    "lightning",
    "matplotlib",
    "sklearn",
    "torch_scatter",
    "torch_sparse",
    "PIL",
    "scipy",
    "av",
    "transformers",
    "tensorflow",
    "torchmetrics",
]


def test_errors_name_the_device_that_is_wrong():
    """With "meta" in the place of a GPU: kernels that read the memory of another device end far from the cause."""
    x, edges, mask = torch.randn(3, 6, 4), torch.tensor([[0, 1], [1, 2]]), torch.ones(3, 6, dtype=torch.bool)
    volume, there, far = torch.randn(2, 4, 6, 5, 5), torch.ones(2, 6, dtype=torch.bool), "meta"
    conv, places = RSTGConv(4, 4, edge_dim=2, pe_channels=2), torch.randn(3, 2)
    block = RSTGToVec(4, num_stages=1)
    calls = [
        ("'x' on cpu, as the weights", lambda: RSTGConv(4, 4)(x.to(far), edges)),
        ("'x' on cpu, as the weights", lambda: TimeStage(4, "gru")(x.to(far))),
        ("'x' on cpu, as the weights", lambda: Forecaster(4, 2)(x.to(far), edges)),
        ("'volume' on cpu, as the weights", lambda: block(volume.to(far))),
        ("'volume' on cpu, as the weights", lambda: block.step(volume[:, :, 0].to(far))),
        ("'edge_index' on cpu, as 'x'", lambda: RSTGConv(4, 4)(x, GraphIndex(edges.to(far), 3))),
        ("'pe' on cpu, as 'x'", lambda: conv(x, edges, torch.randn(2, 2), places.to(far))),
        ("'edge_attr' on cpu, as 'x'", lambda: conv(x, edges, torch.randn(2, 2, device=far), places)),
        ("'mask' on cpu, as the input", lambda: RSTGConv(4, 4)(x, edges, mask=mask.to(far))),
        ("'mask' on cpu, as the input", lambda: TimeStage(4)(x, mask=mask.to(far))),
        ("'mask' on cpu, as the input", lambda: block(volume, mask=there.to(far))),
        ("'mask' on cpu, as the input", lambda: block.step(volume[:, :, 0], mask=there[:, 0].to(far))),
        ("'edge_time' on cpu, as the edges", lambda: RSTGConv(4, 4)(x, edges, edge_time=edges[0].to(far))),
    ]
    for stages in ("all-temp", "homogeneous"):
        rstg = RSTG(4, num_stages=1, stages=stages)
        _, state = rstg(x, edges)
        lost = tree_map(lambda part: part.to(far), state)
        for frames in (x, x[:, :1]):
            calls += [
                ("'edge_index' on cpu, as 'x'", lambda rstg=rstg, frames=frames: rstg(frames, edges.to(far))),
                ("the state of a .* stage on cpu, as the input", partial(rstg, frames, edges, state=lost)),
            ]
        calls.append(("'mask' on cpu, as 'x'", partial(rstg, x, edges, mask=mask.to(far))))
    for (message, call), grads in product(calls, (True, False)):
        with torch.set_grad_enabled(grads), pytest.raises(ValueError, match=f"^expected {message}, got meta$"):
            call()


def test_errors_name_the_type_that_is_wrong():
    """Where a shape fits and its type does not, a shape alone says nothing."""
    rstg, x, edges = RSTG(4), torch.zeros(3, 6, 4), torch.tensor([[0, 1], [1, 2]])
    mask, time, flat = torch.ones(3, 6), torch.zeros(2), "torch.float32 of shape [2]"
    pair = "torch.float32 of shape [2, 2] (dense_to_sparse(adj)[0]?)"
    frame = Data(x=x[:, 0], edge_index=edges, id=torch.zeros(3))
    for call, got in [
        (lambda: rstg(x, edges, mask=mask), "torch.float32 of shape [3, 6]"),
        (lambda: rstg(x, edges, mask=mask[0].tolist()), "a list of 6 entries"),
        (lambda: rstg(x, edges, edge_time=time), flat),
        (lambda: rstg(x, torch.eye(3)), "torch.float32 of shape [3, 3] (dense_to_sparse(adj)[0]?)"),
        (lambda: rstg(x, edges.tolist()), "a list ((0, 1), (1, 2))"),
        (lambda: NodeMemory(rstg).read(time), flat),
        (lambda: spacetime_edge_index(edges.bool(), 3, 2), pair.replace("float32", "bool")),
        (lambda: PairForecaster(2)(x, edges.float()), pair),
        (lambda: MotionForecaster(Forecaster(4, 2), 2)(x[..., :2], edges.float()), pair),
        (lambda: slice_frames(Data(x=x, edge_index=edges.float()), 0, 2), pair),
        (lambda: slice_frames(Data(x=x, edge_index=edges, edge_time=time), 0, 2), flat),
        (lambda: from_table([0, 1], time, [1, 2]), f"(torch.int64 of shape [2], {flat}, "),
        (lambda: from_table([0, 1], [0, 1], [1, 2], edge_index=edges.float()), pair),
        (lambda: from_snapshots([frame], ids="id"), "torch.float32 of shape [3]"),
        (lambda: sample_neighbors(Data(x=x), time, [1]), flat),
        (lambda: animate_graph(x[..., :2], edges, "graph.gif", truth=time), flat),
    ]:
        with case(got), pytest.raises(ValueError, match=re.escape(f", got {got}")):
            call()


def test_the_package_says_what_runs_here_and_what_is_off():
    command = [sys.executable, "-m", "rstg_pyg"]
    environment = {**os.environ, "RSTG_PYG_NATIVE": "0"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    off = "off: .* no native kernels: RSTG_PYG_NATIVE=0 is set"
    for line in (
        f"torch-geometric +{re.escape(torch_geometric.__version__)}",
        r"reference \(cpu\) +on",
        rf"native \(cpu\) +{off}",
        rf"lstm, gru \(cpu\) +{off}",
        rf"linear, native \(cpu\) +{off}",
    ):
        assert re.search(line, said), line
    with pytest.raises(SystemExit, match="takes no arguments, got me"):
        rstg_pyg_command.main(["me"])


HEART = {
    "arguments",
    "formula",
    "norm",
    "watched",
    "constant_buffers",
    "regions",
    "ops",
    "conv",
    "recurrence",
    "blocks",
}
"""What the rest of the package stands on."""


def test_public_names_say_shapes_errors_source_and_show_an_example():
    for name in PUBLIC:
        text = inspect.getdoc(getattr(rstg_pyg, name))
        for part in ("Args:", "Shapes:", "Raises:", "Example:", ">>> "):
            assert part in text, f"{name} lacks {part!r}"
        assert "1904.05582" in text, f"{name} does not name the source of its method"


def imports():
    """The modules of the package that each of its modules imports, wherever in its text."""
    found = {}
    for name in MODULES:
        tree = ast.parse(Path(find_spec(name).origin).read_text())
        named = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
        paths = {path for node in named for path in (node.module, *(f"{node.module}.{x.name}" for x in node.names))}
        found[name] = {path for path in paths if path in MODULES and not name.startswith(path) and path != name}
    return found


def test_the_heart_imports_nothing_beside_it_and_nothing_imports_in_a_circle():
    graph = imports()
    list(graphlib.TopologicalSorter(graph).static_order())
    for name, others in graph.items():
        if name.split(".")[1] in HEART:
            assert {other.split(".")[1] for other in others} <= HEART, name


BARE = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))  # where they are not installed
import rstg_pyg
print(*{name.split(".")[1] for name in sys.modules if name.startswith("rstg_pyg.")})

import torch
from rstg_pyg import *
graph = region_graph()
RSTGConv(4, 4)(torch.randn(14, 2, 4), graph.edge_index).sum().backward()
print(RSTGToVec(4)(torch.randn(1, 4, 2, 6, 6)).shape)

# Python would warn of a command whose module is there already.
print({"rstg_pyg.datasets.made_videos", "rstg_pyg.datasets.video.checking"} & set(sys.modules))
"""


@pytest.fixture(scope="module")
def bare():
    """What a process says that has no extra."""
    done = subprocess.run([sys.executable, "-c", BARE, *EXTRAS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_importing_the_package_loads_the_heart_alone(bare):
    assert set(bare[0].split()) <= HEART
    assert rstg_pyg.datasets.SyncMNIST is rstg_pyg.SyncMNIST
    assert "models" in dir(rstg_pyg)
    with pytest.raises(AttributeError, match="no attribute 'model'"):
        rstg_pyg.model  # noqa: B018


LAYERS = {
    layer.__name__: layer
    for layer in (*vars(rstg_pyg).values(), *vars(rstg_pyg.models).values())
    if inspect.isclass(layer) and inspect.getfullargspec(layer.__init__).varkw == "kwargs" and hasattr(layer, "forward")
}
"""Layers that hand options on to others."""


@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_that_was_called_refuses_a_misspelt_option(name):
    layer = LAYERS[name]
    widths = (8, 8) if name in ("RSTGConv", "Forecaster") else (8,)
    layer(*widths, heads=2, aggr="mean", flow="source_to_target")
    for wrong, near in (("hedas", "heads"), ("flwo", "flow"), ("pe_chanels", "pe_channels")):
        with pytest.raises(TypeError) as caught:
            layer(*widths, **{wrong: 1})
        assert str(caught.value) == f"expected an option of {name}, got {wrong!r} (did you mean {near!r}?)"


@pytest.mark.parametrize("name", LAYERS)
def test_the_options_that_an_error_offers_are_those_that_are_taken(name):
    layer = LAYERS[name]
    widths = (8, 8) if name in ("RSTGConv", "Forecaster") else (8,)
    for option in ("node_dim", "decomposed_layers"):
        with pytest.raises(ValueError, match=f"^expected no '{option}': .*, got 0$"):
            layer(*widths, **{option: 0})
    with pytest.raises(TypeError, match=f"^expected an option of {name}, got 'xyz', not one of ") as caught:
        layer(*widths, xyz=1)
    offered = str(caught.value).split(" not one of ")[1].split(", ")
    assert "aggr" in offered
    for option in offered:
        try:
            layer(*widths, **{option: "xyz"})
        except Exception as error:
            assert not re.search("^expected (no|an option) |multiple values", str(error)), error


VOLUME = torch.randn(1, 8, 2, 4, 4)
BORDER = {
    "number": lambda value: RSTGToVec(8, num_stages=value),
    "choice": lambda value: RSTGConv(8, 8, attention=value),
    "share": lambda value: RSTGConv(8, 8, dropout=value),
    "flag": lambda value: RSTG(8, residual=value),
    "sequence": lambda value: RSTG(8, stages=value),
    "widths": lambda value: FrameCNN(1, value),
    "scales": lambda value: region_graph(value),
    "name": lambda value: build_row(value),
    "x": lambda value: RSTG(8)(value, torch.zeros(2, 1, dtype=torch.long)),
    "edges": lambda value: RSTGConv(8, 8)(torch.randn(3, 8), value),
    "volume": lambda value: RSTGToMap(8)(value),
    "state": lambda value: RSTGToMap(8).step(VOLUME[:, :, 0], value),
    "size": lambda value: RegionProject((1,))(torch.randn(1, 8), value),
    "data": lambda value: ToRegionGraph()(value),
    "network": lambda value: insert_rstg(value, {"0": {"in_channels": 8}}),
    "blocks": lambda value: insert_rstg(torch.nn.Sequential(torch.nn.ReLU()), value),
}


@pytest.mark.parametrize("name", BORDER)
def test_what_can_not_be_meant_is_refused_in_our_words(name):
    """Nothing of the wrong kind gets as far as an error of what lies below."""
    for value in ("so", -1.5, object(), np.zeros(2), torch.zeros(2, 3), VOLUME.to_sparse(), {1: 2}, [object()], 1j):
        with pytest.raises(ValueError, match=r"^expected "):
            BORDER[name](value)


@pytest.mark.parametrize("room", sorted({name.split(".")[1] for name in MODULES}))
def test_examples_in_docstrings(room, tmp_path, monkeypatch):
    for name in MODULES:
        if name.split(".")[1] != room or (name.startswith("rstg_pyg.ops.triton.") and not find_spec("triton")):
            continue
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
        assert results.failed == 0, name


def test_it_needs_no_extra(bare):
    """Everything but training and pictures works where only the required packages are."""
    assert bare[1:] == ["torch.Size([1, 4])", "set()"]


def test_the_package_ships_its_types_and_its_version():
    assert (ROOT / "py.typed").exists()
    project = ROOT.parent / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["version"] == rstg_pyg.__version__
