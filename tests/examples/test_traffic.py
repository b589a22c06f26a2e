"""The example on traffic from its command line: trains, goes on, tests, compares, draws; and bad input."""

import json

import pytest
from example_scripts import check_refused, end_of, load_example
from PIL import Image

SMALL = ["--clips", "4", "--chunk", "2", "--val-clips", "4", "--test-clips", "4", "--channels", "8"]
SMALL += ["--batch-size", "2", "--device", "cpu"]


@pytest.fixture
def traffic(tmp_path, monkeypatch):
    """The example without files and network."""
    monkeypatch.delenv("RSTG_PYG_DATA", raising=False)
    monkeypatch.chdir(tmp_path)

    def refuse(url, target):
        raise OSError("no network")

    monkeypatch.setattr("rstg_pyg.datasets.download._save", refuse)
    return load_example("traffic")


@pytest.mark.filterwarnings("ignore:a small simulated road network")
def test_it_trains_goes_on_tests_and_draws(traffic, tmp_path, capsys):
    command = [*SMALL, "--out", "run"]
    assert traffic.main([*command, "--max-minutes", "1e-9"]) == {}
    assert "stopped after 2 of 4 sequences" in capsys.readouterr().out
    result = traffic.main(command)
    text = capsys.readouterr().out
    assert "going on from" in text and "all-temp-stages on a simulated road network" in text
    assert "last value" in text and "linear autoregression" in text
    held = json.loads((tmp_path / "run" / "result.json").read_text())
    assert held["test"]["mae_60"] == result["mae_60"]
    assert (held["network"]["channels"], held["network"]["num_nodes"]) == (8, 30)
    for name in ("map.png", "day.png"):
        assert min(Image.open(tmp_path / "run" / name).size) > 300
    again = traffic.main([*command, "--weights", "run/weights.pt"])
    assert again["rmse_15"] == pytest.approx(result["rmse_15"])


@pytest.mark.filterwarnings("ignore:a small simulated road network")
def test_bad_input(traffic, tmp_path, capsys):
    folder = end_of(traffic, [*SMALL, "--data-dir", "nowhere"], capsys)
    check_refused(folder, "expected nowhere to hold los_speed.csv, los_adj.csv, got no los_speed.csv")
    (tmp_path / "files").mkdir()
    for name in ("los_speed.csv", "los_adj.csv"):
        (tmp_path / "files" / name).write_text("1,2\n3,4\n")
    foreign = end_of(traffic, [*SMALL, "--data-dir", "files"], capsys)
    check_refused(foreign, "los_speed.csv to have the SHA-256", "it is damaged or another file")
    check_refused(end_of(traffic, [*SMALL, "--model", "all-temp"], capsys), "did you mean 'all-temp-stages'?")
    check_refused(end_of(traffic, [*SMALL, "--part", "x"], capsys), "--part: expected one of traffic, got 'x'")
