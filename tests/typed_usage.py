"""How people call the public names: a type checker has to agree with every line, and to refuse what is marked.

Nothing runs this file. ``basedpyright`` reads it, by the settings in pyproject.toml.
"""

from typing import Any, assert_type

import torch
from torch import Tensor
from torch_geometric.data import Data, TemporalData

import rstg_pyg
from rstg_pyg import (
    RSTG,
    FrameCNN,
    RegionPool,
    RegionProject,
    RSTGConv,
    RSTGPool,
    RSTGToMap,
    RSTGToVec,
    SyncMNIST,
    TimeStage,
    ToRegionGraph,
    VideoClassifier,
    insert_rstg,
    region_graph,
    remove_rstg,
    spacetime_edge_index,
    spacetime_graph,
)
from rstg_pyg.models import Forecaster, VideoResNet, build_row, build_video_row, masked_error
from rstg_pyg.recurrence import NodeMemory, detach_state
from rstg_pyg.temporal import (
    NeighborWindows,
    Windows,
    from_events,
    from_snapshots,
    from_table,
    pad,
    sample_neighbors,
    slice_frames,
    to_snapshots,
)

assert_type(rstg_pyg.__version__, str)

graph = region_graph((3, 2, 1), 6)
assert_type(graph, Data)
assert_type(spacetime_graph(graph, 5), Data)
assert_type(spacetime_edge_index(torch.zeros(2, 3), 3, 5), Tensor)

x, edges = torch.randn(14, 10, 64), torch.zeros(2, 3, dtype=torch.long)
conv = RSTGConv(64, 64, 4, edge_dim=3, norm="layer_norm", backend="native")
assert_type(conv.forward(x, edges), Tensor)
assert_type(conv.forward(x, edges, edges, return_attention_weights=True)[0], Tensor)
rstg = RSTG(64, num_stages=3, rnn="gru", stages=("time", "space"), heads=4)
out, state = rstg.forward(x, edges, edge_time=edges[0], mask=x[..., 0] > 0)
assert_type(out, Tensor)
rstg.forward(x, edges, state=state)
rstg.forward(x, edges, state=detach_state(state))
assert_type(rstg.forward(x, edges, return_attention_weights=True)[2], list[Any])
stage = TimeStage(64, rnn=lambda channels: torch.nn.Identity())
assert_type(stage.forward(x)[0], Tensor)

volume = torch.randn(2, 64, 8, 7, 7)
head = RSTGToVec(64, 32, "mean", scales=(3, (2, 2), 1))
assert_type(head.forward(volume), Tensor)
assert_type(head.forward(volume, return_attention_weights=True)[0], Tensor)
vector, live = head.step(volume[:, :, 0], None)
assert_type(vector, Tensor)
assert_type(RSTGToMap(64).forward(volume, mask=None), Tensor)
assert_type(RSTGPool(64).forward(volume), Tensor)
assert_type(RegionPool((3, 2, 1)).forward(volume), Tensor)
assert_type(RegionProject((3, 2, 1)).forward(volume[..., 0], (7, 7)), Tensor)
assert_type(ToRegionGraph((3, 2, 1)).forward(Data(video=volume[0])), Data)

net = torch.nn.Sequential(torch.nn.Conv3d(3, 64, 3))
assert_type(insert_rstg(net, {"0": {"channels": 32}}, example=volume), torch.nn.Sequential)
assert_type(remove_rstg(net), dict[str, torch.nn.Module])

classifier = VideoClassifier(FrameCNN(1, (8, 8)), head, 46)
logits, memory = classifier.step(torch.rand(2, 1, 32, 32), None)
assert_type(logits, Tensor)
assert_type(build_row("positional"), VideoClassifier)
assert_type(build_video_row("c2d"), VideoResNet)
clip = SyncMNIST("data", num_digits=3, digits="sklearn")[0]
forecaster = Forecaster(2, 12, 16, feed_back=True, rnn="lstm")
assert_type(forecaster.forward(x, edges), Tensor)
assert_type(masked_error(x, x, x > 0), Tensor)

series = from_snapshots([Data(x=x[:, 0])])
assert_type(series, Data)
assert_type(from_table([0, 10], [5, 5], x), Data)
assert_type(from_events(TemporalData(src=edges[0], dst=edges[1], t=edges[0]), window=60), Data)
assert_type(to_snapshots(series), list[Data])
assert_type(pad(slice_frames(series, 0, 5), 9), Data)
windows = Windows(series, history=12, horizon=6, present_only=True)
assert_type(windows[0], Data)
assert_type(NeighborWindows(windows, [5, 5], 32)[0], Data)
assert_type(sample_neighbors(series, edges[0], [-1]), Data)
store = NodeMemory(rstg, max_nodes=10)
store.write(edges[0], rstg.forward(x, edges, state=store.read(edges[0]))[1])
assert_type(store.ids, Tensor)

# What no layer takes, a type checker says too.
RSTGConv("64", 64)  # type: ignore
region_graph((3, 2, 1), heatmap_size="6")  # type: ignore
Forecaster(2)  # type: ignore
head.forward(volume, return_attention_weights=3)  # type: ignore
