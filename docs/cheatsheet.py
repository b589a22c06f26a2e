"""The tables of the cheatsheet: every cell is found by trying."""

import warnings

import torch
from torch_geometric.utils import to_torch_csr_tensor

from rstg_pyg import RSTG, RSTGConv, RSTGPool, RSTGToMap, RSTGToVec, TimeStage, region_graph
from rstg_pyg.models import Forecaster
from rstg_pyg.ops import BACKENDS

EDGES = region_graph((2, 1)).edge_index
NODES, FRAMES, CHANNELS = 5, 4, 8
X = torch.randn(NODES, FRAMES, CHANNELS)
VOLUME = torch.randn(2, CHANNELS, FRAMES, 6, 6)
GRAPH_LAYERS = {
    "RSTGConv": lambda **options: RSTGConv(CHANNELS, CHANNELS, **options),
    "TimeStage": lambda **options: TimeStage(CHANNELS, **options),
    "RSTG": lambda **options: RSTG(CHANNELS, num_stages=2, **options),
    "models.Forecaster": lambda **options: Forecaster(CHANNELS, horizon=3, channels=CHANNELS, num_stages=2, **options),
}
BLOCKS = {
    "RSTGToVec": lambda **options: RSTGToVec(CHANNELS, num_stages=2, scales=(2, 1), **options),
    "RSTGToMap": lambda **options: RSTGToMap(CHANNELS, num_stages=2, scales=(2, 1), **options),
    "RSTGPool": lambda **options: RSTGPool(CHANNELS, num_stages=2, scales=(2, 1), **options),
}


class Layer:
    """A layer or block with an input, and how it is called."""

    def __init__(self, name, **options):
        torch.manual_seed(0)
        self.is_block, self.has_edges = name in BLOCKS, name != "TimeStage"
        self.module = {**GRAPH_LAYERS, **BLOCKS}[name](**options).eval()
        for weight in self.module.parameters():  # blocks that start by adding zero have to add something
            torch.nn.init.normal_(weight, std=0.3)

    def inputs(self, edges=EDGES):
        if self.is_block:
            return (VOLUME,)
        return (X, edges) if self.has_edges else (X,)

    def __call__(self, edges=EDGES, module=None, **more):
        out = (self.module if module is None else module)(*self.inputs(edges), **more)
        return out[0] if isinstance(out, tuple) else out


def graph_for_all_frames(name):
    Layer(name)()


def edge_time(name):
    layer, time = Layer(name), torch.arange(FRAMES)
    repeated = {"edge_time": time.repeat_interleave(EDGES.size(1))}
    torch.testing.assert_close(layer(EDGES.repeat(1, FRAMES), **repeated), layer())


def mask(name):
    layer = Layer(name)
    everywhere = torch.ones((2, FRAMES) if layer.is_block else (NODES, FRAMES), dtype=torch.bool)
    torch.testing.assert_close(layer(mask=everywhere), layer())
    somewhere = everywhere.clone()
    somewhere[0, 1] = False
    assert not torch.equal(layer(mask=somewhere), layer())


def edge_features(name):
    layer = Layer(name, **({} if name in BLOCKS else {"edge_dim": 3}))
    ones, twos = (torch.full((EDGES.size(1), 3), value) for value in (1.0, 2.0))
    assert not torch.equal(layer(edge_attr=ones), layer(edge_attr=twos))


def encodings(name):
    """Blocks make the heatmaps of their regions themselves."""
    layer = Layer(name, **({} if name in BLOCKS else {"pe_channels": 3}))
    if layer.is_block:
        assert not torch.equal(layer(), Layer(name, heatmap_size=None)())
    else:
        assert not torch.equal(layer(pe=torch.ones(NODES, 3)), layer(pe=torch.zeros(NODES, 3)))


def heads(name):
    Layer(name, heads=2)()


def sparse_matrix(name):
    layer = Layer(name)
    if not layer.has_edges or layer.is_block:
        raise TypeError("unexpected keyword: it takes no edges")
    torch.testing.assert_close(layer(to_torch_csr_tensor(EDGES, size=(NODES, NODES)).t()), layer())


def attention(name):
    layer = Layer(name)
    *_, weights = layer.module(*layer.inputs(), return_attention_weights=True)
    assert weights


def stream(name):
    """One frame after the other says what the whole clip says."""
    layer, state = Layer(name), None
    for t in range(FRAMES):
        if layer.is_block:
            out, state = layer.module.step(VOLUME[:, :, t], state)
        elif hasattr(layer.module, "step"):
            out, state = layer.module.step(X[:, t], state, EDGES)
        else:
            out, state = layer.module(X[:, t : t + 1], *layer.inputs()[1:], state=state)
    expected = layer()
    if name in ("TimeStage", "RSTG"):
        expected = expected[:, -1:]
    torch.testing.assert_close(out, expected[:, :, -1] if name == "RSTGToMap" else expected)


def compiles(name, allow_rnn=False):
    """In one piece, without a break."""
    layer = Layer(name)
    torch.compiler.reset()
    with torch._dynamo.config.patch(allow_rnn=allow_rnn):
        compiled = torch.compile(layer.module, fullgraph=True, backend="eager")
        torch.testing.assert_close(layer(module=compiled), layer())


def compiles_with_flag(name):
    compiles(name, allow_rnn=True)


def exports(name):
    layer = Layer(name)
    program = torch.export.export(layer.module, layer.inputs(), strict=False).module()
    torch.testing.assert_close(layer(module=program), layer())


TAKES = {
    "one graph": graph_for_all_frames,
    "`edge_time`": edge_time,
    "`mask`": mask,
    "edge features": edge_features,
    "encodings": encodings,
    "`heads`": heads,
    "sparse matrix": sparse_matrix,
}
DOES = {
    "attention weights": attention,
    "stream = clip": stream,
    "compiles whole": compiles,
    "with `allow_rnn`": compiles_with_flag,
    "exports": exports,
}


def tried(trial, *arguments):
    """None where a trial succeeds, "" where there is no such argument, else what it was told."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            trial(*arguments)
        except (AssertionError, NameError, AttributeError):
            raise  # wrong numbers, and mistakes of this page, are no answer
        except TypeError as error:
            if "unexpected keyword" not in str(error):
                raise
            return ""
        except Exception as error:
            return f"{type(error).__name__}: {error}".split("\n")[0]
    return None


def table(columns, rows, trial):
    """In Markdown: "yes", "-" where there is no such argument, or a number, with reasons below."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    reasons = {}
    for title, row in rows.items():
        cells = []
        for column in columns.values():
            reason = tried(trial, row, column)
            number = reasons.setdefault(reason, len(reasons) + 1) if reason else None
            cells.append("yes" if reason is None else f"no ({number})" if reason else "-")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"{number}. {reason}" for reason, number in reasons.items())])


def layers(columns):
    """Layers and blocks by what they take or do."""
    return table(columns, {f"`{name}`": name for name in (*GRAPH_LAYERS, *BLOCKS)}, lambda name, trial: trial(name))


CASES = {
    "float32, as it comes": ({}, torch.float32),
    "float64": ({}, torch.float64),
    "bfloat16": ({}, torch.bfloat16),
    "additive attention": ({"attention": "additive"}, torch.float32),
    "edge features": ({"edge_dim": 3}, torch.float32),
    "ReLU after the last layer": ({"send_act_last": True}, torch.float32),
    "another activation": ({"act": "gelu"}, torch.float32),
    "three send layers": ({"send_layers": 3}, torch.float32),
}


def backends(device):
    """What each backend computes on a device, and what it says where it declines."""

    def run(case, backend):
        options, dtype = case
        conv = RSTGConv(CHANNELS, CHANNELS, backend=backend, **options).to(device, dtype)
        edge_attr = torch.ones(EDGES.size(1), 3, dtype=dtype, device=device) if "edge_dim" in options else None
        conv(X.to(device, dtype), EDGES.to(device), edge_attr)

    return table({f"`{name}`": name for name in BACKENDS if name != "auto"}, CASES, run)
