"""What the networks of the Something-Something table cost: counted by hand, and from the command line."""

import csv
import dataclasses

import pytest
import torch
import video_rows
from video_rows import Row, added, columns, forward_flops, write

from rstg_pyg import RSTG, RSTGToVec, region_graph
from rstg_pyg.models import VIDEO_ROWS, NonLocalBlock

TINY = ["--device", "cpu", "--batch-size", "2", "--frames", "4", "--size", "32", "--rounds", "1", "--calls", "1"]


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    small = video_rows.PRESETS["small"]
    network = dataclasses.replace(small.network, width=4, channels=5, num_classes=7)
    monkeypatch.setitem(video_rows.PRESETS, "small", dataclasses.replace(small, network=network))


class Graph(torch.nn.Module):
    """An RSTG with its edges."""

    def __init__(self, channels, **options):
        super().__init__()
        self.rstg = RSTG(channels, **options)
        self.register_buffer("edge_index", region_graph((2, 1)).edge_index)

    def forward(self, x):
        return self.rstg(x, self.edge_index)[0]


NODES, FRAMES, CHANNELS = 5, 3, 8
UNIT = 2 * NODES * FRAMES * CHANNELS**2


def test_products_of_a_graph():
    """2 + 2 + 1 + 3 products per node in a space stage, 4 or 3 gates of two products each in a time stage."""
    for options, units in [
        ({"stages": "space-only", "num_stages": 1}, 8),
        ({"stages": "space-only", "num_stages": 3}, 24),
        ({"stages": "time-only", "num_stages": 1, "rnn": "lstm"}, 2 * 8),
        ({"stages": "time-only", "num_stages": 1, "rnn": "gru"}, 2 * 6),
        ({"stages": "all-temp", "num_stages": 2, "norm": "layer_norm", "residual": True}, 2 * 8 + 3 * 8),
    ]:
        for backend in ("auto", "reference"):
            graph = Graph(CHANNELS, backend=backend, **options)
            assert forward_flops(graph, (NODES, FRAMES, CHANNELS)) == units * UNIT
    # An activation after the last send layer: a product per edge.
    edges = region_graph((2, 1)).num_edges
    graph = Graph(CHANNELS, stages="space-only", num_stages=1, send_act_last=True)
    assert forward_flops(graph, (NODES, FRAMES, CHANNELS)) == 2 * FRAMES * CHANNELS**2 * (7 * NODES + edges)


def test_convolutions_and_attention():
    conv = torch.nn.Conv3d(3, 4, (3, 5, 5), padding=(1, 2, 2), stride=(1, 2, 2))
    assert forward_flops(conv, (2, 3, 6, 8, 8)) == 2 * (2 * 6 * 4 * 4) * 4 * (3 * 3 * 5 * 5)
    block, places, seen = NonLocalBlock(8, 4), 2 * 6 * 6, 2 * 3 * 3
    products = places * 8 * 4 + seen * 8 * 8 + 2 * places * seen * 4 + places * 4 * 8
    assert forward_flops(block, (1, 8, 2, 6, 6)) == 2 * products


def test_counting_leaves_the_network_alone():
    net = RSTGToVec(4, 6, norm="batch_norm")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    shape = (1, 4, 3, 6, 6)
    assert forward_flops(net, shape) == forward_flops(net.eval(), shape) > 0
    assert forward_flops(RSTGToVec(4, 6, checkpoint=True), shape) == forward_flops(RSTGToVec(4, 6), shape)
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())


def test_the_table(tmp_path, capsys):
    # Of fewer frames the optimiser takes more memory than what the graph keeps.
    video_rows.main(
        [*TINY, "--frames", "16", "--checkpoint", "--rows", "i3d+rstg:res3-4", "nonlocal", "--results", str(tmp_path)]
    )
    out = capsys.readouterr().out
    assert "2 clips of 16 frames of 32 x 32, 32-true; medians of 1 calls" in out
    with (tmp_path / "video_rows_small.csv").open(newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    graph, twice = "i3d+rstg:res3-4", "i3d+rstg:res3-4, computed twice"
    assert list(rows) == ["i3d", "nonlocal", graph, twice]
    network = video_rows.PRESETS["small"].network
    for name in ("i3d", "nonlocal", graph):
        net = VIDEO_ROWS[name].build(network)
        assert int(rows[name]["parameters"]) == sum(p.numel() for p in net.parameters())
        assert int(rows[name]["flops"]) == forward_flops(net, (1, 3, 16, 32, 32))
        assert float(rows[name]["training_frames_per_s"]) == pytest.approx(32000 / float(rows[name]["training_ms"]))
    assert int(rows[graph]["added_flops"]) == int(rows[graph]["flops"]) - int(rows["i3d"]["flops"]) > 0
    assert int(rows[graph]["added_parameters"]) == int(rows[graph]["parameters"]) - int(rows["i3d"]["parameters"])
    assert rows["i3d"]["added_flops"] == rows["i3d"]["backbone"] == ""
    assert {rows[name]["backbone"] for name in ("nonlocal", graph, twice)} == {"i3d"}
    assert rows[twice]["parameters"] == rows[graph]["parameters"]
    assert float(rows[twice]["peak_mib"]) < float(rows[graph]["peak_mib"])
    # Weights, momentum and gradients are there at once.
    assert float(rows["i3d"]["peak_mib"]) > 3 * 4 * int(rows["i3d"]["parameters"]) / 2**20
    text = (tmp_path / "video_rows_small.md").read_text()
    assert "| RSTG-to-map res3-4 (i3d+rstg:res3-4) | " in text


def test_every_row_takes_a_step_in_mixed_precision(capsys):
    video_rows.main([*TINY, "--precision", "bf16-mixed"])
    out = capsys.readouterr().out
    assert all(f"{row.title} ({name}) " in out for name, row in VIDEO_ROWS.items())


def test_peak_of_a_step_that_can_be_calculated():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(5000, 1000, bias=False))
    step = video_rows.Step(net, torch.rand(1, 5000), "32-true")
    weights = 4 * 5000 * 1000  # and as much again for momentum and gradient
    small = 4 * 5000 + 4 * 20 * 1000
    assert 3 * weights < step.peak() < 3 * weights + small
    assert 3 * weights < step.peak() < 3 * weights + small


def test_what_is_added_is_that_of_the_same_round(tmp_path):
    bare = Row("i3d", "I3D", None, 100, 2_000_000, 2**20, 2, 4, [10.0, 20.0, 30.0], [40.0, 80.0, 400.0])
    full = Row("x", "X", "i3d", 150, 5_000_000, 3 * 2**20, 2, 4, [11.0, 30.0, 33.0], [44.0, 100.0, 440.0])
    more = added(full, [bare, full])
    assert added(bare, [bare, full]) is None
    assert (more.parameters, more.flops, more.peak) == (50, 3_000_000, 2 * 2**20)
    assert more.milliseconds == {"inference": 3.0, "training": 20.0}
    assert more.share == pytest.approx({"inference": 0.1, "training": 0.1})
    lines = columns([bare, full])
    assert lines[1] == ("I3D (i3d)", "100", "0.002", "400.0", "100.0", "1", "", "", "", "", "")
    assert lines[2] == (
        *("X (x)", "150", "0.005", "266.7", "80.0", "3"),
        *("+50", "+0.003", "+3.0 (+10%)", "+20.0 (+10%)", "+2"),
    )
    paths = write(tmp_path, "full", "Setting", [bare, full])
    assert [path.name for path in paths] == ["video_rows_full.csv", "video_rows_full.md"]
    assert "\n\nSetting.\n\n| row | parameters |" in paths[1].read_text()


def test_bad_arguments(capsys):
    for arguments, message in [
        (["--rows", "i3"], "invalid choice: 'i3'"),
        (["--batch-size", "0"], "expected a positive int, got '0'"),
        (["--frames", "1"], "expected at least 2 --frames and a --size of at least 1, got 1 and 64"),
        (["--preset", "full", "--size", "4"], "expected at least 2 --frames and a --size of at least 5, got 32 and 4"),
        (["--precision", "16"], "invalid choice: '16'"),
        (["--results", "/dev/null/folder"], "cannot make the folder '/dev/null/folder'"),
    ]:
        with pytest.raises(SystemExit) as error:
            video_rows.main(arguments)
        assert error.value.code == 2
        assert message in capsys.readouterr().err
