"""Los-loop, where it is at hand, and the simulated roads that take its place."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from rstg_pyg.datasets import DownloadError, LosLoop, download, los_loop
from rstg_pyg.datasets.los_loop import simulate_traffic
from rstg_pyg.files import FileError
from rstg_pyg.training.traffic import SpeedErrors, naive_errors

DATA = os.environ.get("RSTG_PYG_DATA")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Small tables in the form of Los-loop, with their checksums in force: 4 detectors, 300 rows."""
    folder = tmp_path / "traffic"
    folder.mkdir()
    rows = np.arange(300)[:, None] + np.array([0, 1000, 2000, 3000])
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (folder / "los_speed.csv").write_text(f"a,b,c,d\n{text}\n")
    (folder / "los_adj.csv").write_text("1,0.5,0,0\n0.5,1,0.25,0\n0,0.25,1,0\n0,0,0,1\n")
    for name in los_loop.CHECKSUMS:
        monkeypatch.setitem(los_loop.CHECKSUMS, name, hashlib.sha256((folder / name).read_bytes()).hexdigest())
    monkeypatch.delenv("RSTG_PYG_DATA", raising=False)
    return folder


def test_parts_do_not_overlap_and_speeds_come_back(files):
    ends = {}
    for split in ("train", "val", "test"):
        windows = LosLoop("unused", split, history=5, horizon=3, data_dir=files)
        first, last = windows[0], windows[len(windows) - 1]
        back = [(value[0, ..., 0] * windows.scale + windows.mean).round().int().tolist() for value in (first.x, last.y)]
        ends[split] = back[0][0], back[1][-1]
        assert first.x.shape == (4, 5, 3) and first.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
        assert first.edge_attr.flatten().tolist() == [0.5, 0.5, 0.25, 0.25]
        assert windows.source == "los-loop"
    assert ends == {"train": (0, 215), "val": (216, 239), "test": (240, 298)}
    train = LosLoop("unused", "train", history=5, horizon=3, min_weight=0.3, data_dir=files)
    assert train[0].edge_index.tolist() == [[0, 1], [1, 0]] and train.adjacency[1, 2] == 0.25
    speeds = torch.cat([train[0].x[..., 0], train[5].x[..., 0]], 1)
    assert train.scale == pytest.approx(float(np.std(train.series.data.y.numpy() * train.scale, ddof=1)), rel=1e-5)
    assert speeds.diff().allclose(torch.tensor(1 / train.scale), atol=1e-5)


def test_windows_at_the_end_have_the_targets_that_there_are(files):
    whole = LosLoop("unused", "test", history=5, horizon=6, data_dir=files)
    more = LosLoop("unused", "test", history=5, horizon=6, shortest=2, data_dir=files)
    assert len(more) == len(whole) + 4 == len(LosLoop("unused", "test", history=5, horizon=2, data_dir=files))
    assert more[len(whole) - 1].y_mask.all() and more[len(more) - 1].y_mask.sum(1).tolist() == [2] * 4


def test_simulated_roads_are_the_same_every_time_and_say_so(tmp_path, monkeypatch):
    monkeypatch.delenv("RSTG_PYG_DATA", raising=False)
    monkeypatch.setattr(download, "_save", _no_network)
    with pytest.warns(UserWarning, match="a small simulated road network takes the place of Los-loop: los_speed.csv"):
        windows = LosLoop(tmp_path, "train")
    assert windows.source == "simulated" and torch.equal(windows[0].x, LosLoop(tmp_path, speeds="simulated")[0].x)
    with pytest.raises(DownloadError, match=r"los_speed.csv could not be downloaded.*data_dir.*RSTG_PYG_DATA"):
        LosLoop(tmp_path, speeds="los-loop")
    speed, adjacency = simulate_traffic(12, 2)
    assert speed.min() > 0 and torch.equal(adjacency, adjacency.T)
    # Jams move backwards: a detector's speed is nearer to what the next one had than to what it will have.
    jams = (speed < 40).float()
    assert (jams[1:] * jams[:-1].roll(-1, 1)).sum() > (jams[:-1] * jams[1:].roll(-1, 1)).sum()


def _no_network(url, target):
    raise OSError("network is unreachable")


def test_bad_input(files, monkeypatch):
    for options, message in [
        ({"split": "valid"}, "'split' to be one of 'train', 'val', 'test', got 'valid'"),
        ({"speeds": "metr-la"}, "'speeds' to be one of"),
        ({"split": "val", "history": 20, "horizon": 9}, "at least 29 rows for a window, got 24 of 'val'"),
        ({"horizon": 3, "shortest": 4}, "'shortest' to be at most horizon=3, got 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            LosLoop("unused", **{"split": "train", "data_dir": files, **options})
    with pytest.raises(FileNotFoundError, match=r"to hold los_speed\.csv, los_adj\.csv, got no los_speed\.csv"):
        LosLoop("unused", data_dir=files.parent)
    (files / "los_adj.csv").write_text("1,0\n0,1\n")
    with pytest.raises(FileError, match=r"los_adj\.csv to have the SHA-256 .* it is damaged or another file"):
        LosLoop("unused", data_dir=files)


@pytest.mark.skipif(not DATA, reason="RSTG_PYG_DATA does not name a folder with traffic/")
def test_naive_forecasts_of_the_real_speeds_are_as_published():
    folder = Path(DATA or "", "traffic")
    train = LosLoop("unused", "train", data_dir=folder)
    test = LosLoop("unused", "test", shortest=3, data_dir=folder)
    assert (len(train), len(test)) == (1427, 389) and train[0].x.shape == (207, 12, 3)
    errors = naive_errors(train, test)
    found = {name: (round(row["rmse_15"], 2), round(row["mae_15"], 2)) for name, row in errors.items()}
    assert found["last value"] == (5.54, 3.16)
    assert found["mean of the hour before"] == (7.48, 3.97)
    assert found["linear autoregression, one for all"] == pytest.approx((5.34, 3.07), abs=0.011)
    assert errors["last value"]["mae_60"] == pytest.approx(4.433, abs=1e-3)
    linear = errors["linear autoregression, one for all"]
    assert (linear["rmse_60"], linear["mae_60"]) == pytest.approx((7.95, 4.45), abs=0.015)


def test_errors_are_in_the_unit_of_the_data_and_of_whole_horizons():
    batch = Data(y=torch.zeros(2, 12, 1), y_mask=torch.ones(2, 12, dtype=torch.bool))
    batch.y_mask[1, 5:] = False
    prediction = torch.full((2, 12, 1), 0.5)
    prediction[1, :3] = -1
    errors = SpeedErrors(10.0)(prediction, batch)
    assert errors["mae_15"].mean() == 7.5 and errors["rmse_15"].mean() == (25 + 100) / 2
    assert errors["mae_30"].shape == (1, 6) and errors["mae_60"].mean() == 5
