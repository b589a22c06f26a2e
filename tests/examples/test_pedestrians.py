"""The example on pedestrians from its command line: trains, goes on, tests, compares, draws; and bad input."""

import json

import pytest
import torch
from example_scripts import check_refused, end_of, load_example
from PIL import Image

SMALL = ["--clips", "64", "--val-clips", "8", "--test-clips", "8", "--batch-size", "32", "--device", "cpu"]


@pytest.fixture
def pedestrians(tmp_path, monkeypatch):
    """The example without files and network."""
    monkeypatch.delenv("RSTG_PYG_DATA", raising=False)
    monkeypatch.chdir(tmp_path)

    def refuse(url, target):
        raise OSError("no network")

    monkeypatch.setattr("rstg_pyg.datasets.download._save", refuse)
    return load_example("pedestrians")


@pytest.mark.filterwarnings("ignore:the recordings of ETH and UCY")
def test_it_trains_goes_on_tests_and_draws(pedestrians, tmp_path, monkeypatch, capsys):
    command = [*SMALL, "--part", "pedestrians-hotel", "--model", "1-temp-stage", "--out", "run"]
    result = pedestrians.main([*command, "--chunk", "32", "--max-minutes", "1e-9"])
    assert result == {} and "stopped after 32 of 64" in capsys.readouterr().out
    result = pedestrians.main([*command, "--chunk", "32"])
    text = capsys.readouterr().out
    assert "going on from" in text and "1-temp-stage on hotel, of simulated walkers" in text
    assert "constant velocity" in text and "no motion" in text
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test"]["ade"] == result["ade"]
    assert Image.open(tmp_path / "run" / "trajectories.png").size[0] > 1000
    of_run = (tmp_path / "run" / "result.json").read_bytes()
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    again = pedestrians.main([*command[:-2], "--weights", "run/weights.pt", "--compile"])
    assert again["ade"] == pytest.approx(result["ade"]) and len(compiled) == 1
    assert (tmp_path / "run" / "result.json").read_bytes() == of_run
    tested = json.loads((tmp_path / "runs" / "tested-run-weights" / "result.json").read_text())
    assert tested["weights"] == "run/weights.pt" and tested["recipe"] == json.loads(of_run)["recipe"]
    assert not {"clips", "val"} & set(tested)


@pytest.mark.filterwarnings("ignore:the recordings of ETH and UCY")
def test_bad_input(pedestrians, capsys):
    scenes = end_of(pedestrians, [*SMALL, "--part", "pedestrians-zara3"], capsys)
    check_refused(scenes, "expected one of pedestrians-eth, pedestrians-hotel", "got 'pedestrians-zara3'")
    folder = end_of(pedestrians, [*SMALL, "--data-dir", "nowhere"], capsys)
    check_refused(folder, "expected nowhere to hold biwi_eth.txt", "got no biwi_eth.txt")
