"""The benchmarks from their command lines."""

import csv
import json
import runpy
import sys
from pathlib import Path

import latency
import pytest
import syncmnist_step
import throughput
import time_stage
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "throughput.py"
TINY = ["--device", "cpu", "--quick", "--widths", "8"]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_throughput(tmp_path, monkeypatch, capsys):
    names = ["rstg-auto", "plain", "dense-concat", "gatv2", "rstg-triton"]
    options = [*TINY, "--pass", "both", "--rounds", "1", "--forms", *names, "--output", tmp_path]
    monkeypatch.setattr(sys, "argv", list(map(str, [SCRIPT, *options, "--threads", "1"])))
    runpy.run_path(str(SCRIPT), run_name="__main__")
    said = capsys.readouterr()
    assert "space stage, default form, 3-2-1 (14 nodes, 90 edges), 4 clips x 4 frames, C = 8, float32, cpu" in said.out
    assert said.err == ""
    rows = read(tmp_path / "throughput.csv")
    timed = [row["name"] for row in rows if row["form"] == "relu-last" and not row["note"]]
    assert timed[:4] == ["rstg-auto", "plain", "dense-concat", "gatv2"]
    assert "bound" in timed
    assert {row["note"] for row in rows if row["name"] == "rstg-triton"} == {"needs CUDA"}
    plain = next(row for row in rows if row["name"] == "plain")
    assert float(plain["lower_quartile_ms"]) <= float(plain["median_ms"]) <= float(plain["upper_quartile_ms"])
    assert float(plain["frames_per_s"]) == pytest.approx(1000 * 16 / float(plain["median_ms"]))
    assert float(plain["messages_per_s"]) == pytest.approx(90 * float(plain["frames_per_s"]))
    assert float(plain["peak_mib"]) > 0
    content = json.loads((tmp_path / "throughput.json").read_text())
    assert len(content["rows"]) == len(rows)
    assert content["machine"]["torch"] == torch.__version__
    assert content["machine"]["threads"] == 1
    assert len(list(tmp_path.glob("throughput-over-width-stage-*.png"))) == 2


def test_sweeps_of_the_whole_block(tmp_path, capsys):
    names = ["rstg-auto", "transformer-lstm"]
    options = ["--pass", "forward", "--form", "default", "--rounds", "1", "--forms", *names, "--stages", "1"]
    sweep = ["--whole-block", "--sweep", "frames", "nodes", "--irregular"]
    throughput.main([*TINY, *options, *sweep, "--output", str(tmp_path)])
    text = capsys.readouterr().out
    assert "nodes + edges" in text
    assert "doubling: most" in text
    rows = read(tmp_path / "throughput.csv")
    assert [row["frames"] for row in rows if row["name"] == "rstg-auto"][:3] == ["1", "2", "4"]
    steps = json.loads((tmp_path / "throughput.json").read_text())["steps"]
    assert [step["growth"] for step in steps if step["name"] == "rstg-auto"] == [2, 2, 2, 2]
    assert (tmp_path / "cost-over-frames-block-default-forward-float32.png").exists()
    assert (tmp_path / "cost-over-nodes-block-default-forward-float32.png").exists()


def test_time_stage(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["time_stage.py", *TINY, "--stream", "150", "--output", str(tmp_path)])
    time_stage.main()
    out = capsys.readouterr().out
    assert "nodes x clips x frames" in out and "a stream of 150 frames in torch.float32: at most " in out
    rows = read(tmp_path / "time_stage.csv")
    assert [row["form"] for row in rows][:4] == ["lstm", "gru", "linear", "bound of lstm"]
    assert all(float(row["lower quartile ms"]) <= float(row["median ms"]) for row in rows)


def test_steps_of_training(tmp_path, capsys):
    options = ["--device", "cpu", "--digits", "sklearn", "--root", str(tmp_path), "--batch-sizes", "2", "--steps", "2"]
    options += ["--precision", "32-true"]
    syncmnist_step.main([*options, "--forms", "plain", "--kernels", "3"])
    assert "aten::" in capsys.readouterr().out
    syncmnist_step.main([*options, "--forms", "plain", "fused", "--rounds", "2"])
    title, header, *rows = capsys.readouterr().out.splitlines()
    assert title.startswith("positional, preset small, 32-true, on cpu; torch ")
    assert header.split()[:7] == ["batch", "form", "clips/s", "clips", "forward", "backward", "optimiser"]
    assert [row.split()[:2] for row in rows] == [["2", "plain"], ["2", "fused"]]
    for row in rows:
        rate, *parts = map(float, row.split()[2:7])
        assert rate > 0 and sum(parts) > 0
        assert row.split()[7:] == ["-"]


def test_latency(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(latency, "packaged", lambda program: program.module())
    options = ["--frames", "20", "--backends", "auto", "reference", "--export", "--package", "--output", str(tmp_path)]
    latency.main([*TINY, *options])
    assert "p99 ms" in capsys.readouterr().out
    rows = read(tmp_path / "latency.csv")
    assert [(row["what"], row["backend"], row["form"]) for row in rows] == [
        (what, backend, form)
        for backend in ("auto", "reference")
        for what, form in (("to-vec", "eager"), ("graph", "eager"), ("to-vec", "exported"), ("to-vec", "package"))
    ]
    assert all(0 < float(row["median_ms"]) <= float(row["p99_ms"]) for row in rows)
    assert all(row["frames"] == "20" for row in rows)
    assert json.loads((tmp_path / "latency.json").read_text())["machine"]["torch"] == torch.__version__


def test_bad_arguments(capsys):
    for options, message in [
        (["--widths", "0"], "expected a positive int, got '0'"),
        (["--scales", "3-x"], "expected scales such as 3-2-1, got '3-x'"),
        (["--device", "tpu"], "expected 'cpu' or 'cuda', got 'tpu'"),
        (["--forms", "fast"], "expected --forms among rstg-auto,"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
        (["--irregular"], "--irregular needs --sweep nodes"),
        (["--sweep", "nodes", "--irregular", "--positions"], "irregular graphs have no positions"),
        (["--sweep", "frames", "--widths", "8", "16"], "it takes one width and one graph"),
        (["--goals", "--quick"], "--goals has settings of its own"),
        (["--memory-limit", "-1"], "expected --memory-limit to be positive, got -1.0"),
        (["--output", "/dev/null/folder"], "cannot make the folder '/dev/null/folder'"),
    ]:
        assert message in refused(throughput.main, options, capsys)
    for options, message in [
        (["--frames", "0"], "expected a positive int, got '0'"),
        (["--backends", "fast"], "invalid choice: 'fast'"),
        (["--device", "cpu", "--backends", "triton"], "the backend 'triton' needs a CUDA device"),
    ]:
        assert message in refused(latency.main, options, capsys)
    if not torch.cuda.is_available():
        assert "torch sees no CUDA device" in refused(throughput.main, ["--device", "cuda"], capsys)


def test_latency_of_what_is_compiled_and_what_cannot_be_exported(tmp_path, capsys, monkeypatch):
    def fail(*args):
        raise RuntimeError("\nno graph\nof this")

    monkeypatch.setattr(torch.export, "export", fail)
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
    latency.main([*TINY, "--frames", "10", "--backends", "reference", "--compile", "--export"])
    out = capsys.readouterr().out
    assert "to-vec, reference: not exported: RuntimeError: no graph\n" in out
    lines = [line.split()[:3] for line in out.splitlines() if line.startswith(("to-vec  ", "graph  "))]
    assert lines == [[what, "reference", form] for form in ("eager", "compiled") for what in ("to-vec", "graph")]


def refused(main, options, capsys):
    """What a command says on stderr when it ends with code 2."""
    with pytest.raises(SystemExit) as error:
        main(options)
    assert error.value.code == 2
    return capsys.readouterr().err
