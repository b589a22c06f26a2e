"""Pedestrians: the published errors of constant velocity, who is left out of what, and files that are not those."""

import os
import warnings

import pytest
import torch

from rstg_pyg.datasets import DownloadError, Pedestrians, download
from rstg_pyg.datasets.pedestrians import RECORDINGS, SCENES, walkers_graph
from rstg_pyg.files import FileError
from rstg_pyg.models import constant_velocity
from rstg_pyg.training.pedestrians import naive_errors

DATA = os.environ.get("RSTG_PYG_DATA")
PUBLISHED = {"eth": (1.00, 2.23), "hotel": (0.32, 0.62), "univ": (0.52, 1.17), "zara1": (0.43, 0.96)}
PUBLISHED["zara2"] = (0.33, 0.73)


@pytest.fixture(autouse=True)
def no_files(monkeypatch):
    monkeypatch.delenv("RSTG_PYG_DATA", raising=False)


def made(scene="zara1", split="test", **options):
    return Pedestrians("no/such/folder", scene, split, source="simulated", **options)


@pytest.mark.skipif(not DATA, reason="RSTG_PYG_DATA does not name a folder with other people's data")
@pytest.mark.parametrize("scene", SCENES)
def test_constant_velocity_has_its_known_errors(scene, monkeypatch):
    monkeypatch.setenv("RSTG_PYG_DATA", DATA or "")
    errors = naive_errors(Pedestrians("no/such/folder", scene, "test", source="files"))["constant velocity"]
    assert (errors["ade"], errors["fde"]) == pytest.approx(PUBLISHED[scene], abs=0.006)


def test_a_window_is_what_the_table_says():
    """Against a loop over the rows."""
    rows = torch.tensor([[t, p, p + 0.5 * t, 0.1 * p] for p in range(3) for t in range(8) if p != 2 or 2 <= t < 6])
    rows[:, 0] *= 10
    series = walkers_graph(rows[torch.randperm(len(rows))].double(), radius=1.5)
    assert series.mask[2].tolist() == [False] * 2 + [True] * 4 + [False] * 2
    pairs = set()
    for time, person, *place in rows.tolist():
        for time_of, other, *place_of in rows.tolist():
            distance = torch.tensor(place_of).sub(torch.tensor(place)).norm()
            if time == time_of and person != other and distance < 1.5:
                pairs.add((int(other), int(person), int(time / 10)))
    source, destination, time = *series.edge_index, series.edge_time
    assert set(zip(*(v.tolist() for v in (source, destination, time)), strict=True)) == pairs
    torch.testing.assert_close(series.edge_attr, series.x[source, time] - series.x[destination, time])


def test_windows_of_people_who_come_and_go():
    windows = made()
    window = windows[0]
    assert window.x.shape[1:] == (8, 2) and window.y.shape[1:] == (12, 2)
    throughout = window.mask.all(1) & window.y_mask.all(1)
    assert torch.equal(window.scored, throughout) and throughout.sum() > 1 and not throughout.all()
    assert not window.y_mask[~window.mask[:, -1]].any()
    assert window.mask[window.edge_index, window.edge_time].all()
    only = made(throughout_only=True)[0]
    assert only.num_nodes == throughout.sum() and torch.equal(only.x, window.x[throughout])
    assert torch.equal(windows[-1].x, windows[len(windows) - 1].x)
    expected = window.x.clone()
    window.x.zero_()  # what is done to an item is done to it alone
    assert torch.equal(windows[0].x, expected)


def test_at_twice_the_pace_every_second_frame_is_one():
    usual, fast = (made(split="train", paces=(pace,)) for pace in (1, 2))
    assert len(fast.windows) == 2 * len(usual.windows)
    whole, odd = usual.windows[0].series.data, fast.windows[1].series.data
    torch.testing.assert_close(odd.x[odd.mask], whole.x[:, 1::2][whole.mask[:, 1::2]])
    assert len(made(split="train", paces=(1, 2))) == len(usual) + len(fast)
    assert len(made(paces=(1, 2))) == len(made())


def test_nothing_of_a_scene_is_learned_or_chosen_from():
    """By the ids of people: recordings that test a scene, or show the same place, are no part of the other splits."""
    names = {name for names in SCENES.values() for name in names}
    for scene in ("univ", "zara1"):
        counts = [len(made(scene, split).windows) for split in ("train", "val", "test")]
        others = len(RECORDINGS) - len(SCENES[scene]) - (scene == "univ")
        assert counts == [others, others, len(SCENES[scene])]
    assert set(RECORDINGS) - names == {"crowds_zara03", "uni_examples"}
    train, val = made("eth", "train"), made("eth", "val")
    ends = [windows.windows[0].series.data.frame_start[0, [0, -1]] for windows in (train, val)]
    assert ends[0][1] < ends[1][0]


def test_walkers_keep_apart_and_are_the_same_every_time():
    window = made("univ")[5]
    assert torch.equal(window.x, Pedestrians("x", "univ", "test", source="simulated")[5].x)
    assert len(window.node_id.unique()) == window.num_nodes
    error = (constant_velocity(window.x, 12, window.mask) - window.y).norm(dim=-1)[window.y_mask].mean()
    assert 0.2 < error < 1.5
    speed = window.x.diff(dim=1).norm(dim=-1)[window.mask[:, 1:] & window.mask[:, :-1]] / 0.4
    assert 0.9 < speed.mean() < 1.7
    assert window.edge_attr.norm(dim=1).quantile(0.01) > 0.3


def test_without_files_and_network_walkers_stand_in_out_loud(tmp_path, monkeypatch):
    def refuse(url, target):
        raise OSError("no network")

    monkeypatch.setattr(download, "_save", refuse)
    with pytest.warns(UserWarning, match="simulated walkers stand in, so results do not compare"):
        assert Pedestrians(tmp_path, "eth", "test", log=False).source == "simulated"
    with pytest.raises(DownloadError, match=r"biwi_eth.txt could not be downloaded \(https.*333d3a57.*Connect to the"):
        Pedestrians(tmp_path, "eth", source="files", log=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made()


def test_bad_input(tmp_path):
    for options, message in [
        ({"scene": "zara3"}, "'scene' to be one of 'eth', 'hotel'"),
        ({"split": "training"}, "'split' to be one of 'train', 'val', 'test', got 'training'"),
        ({"source": "web"}, "'source' to be one of"),
        ({"paces": (1, 0)}, "'paces' to be a positive int, got 0"),
        ({"radius": 0}, "'radius' to be positive, got 0"),
        ({"horizon": 0}, "'horizon' to be a positive int, got 0"),
        ({"history": 300}, "at least 312 frames, got 240"),
        ({"source": "simulated", "data_dir": tmp_path}, "does not read the 'data_dir'"),
    ]:
        with pytest.raises(ValueError, match=message):
            Pedestrians(tmp_path, **{"scene": "eth", "split": "test", "source": "simulated", **options})
    with pytest.raises(FileNotFoundError, match=r"to hold biwi_eth\.txt, .*got no biwi_eth\.txt"):
        Pedestrians(tmp_path, "eth", data_dir=tmp_path)
    for name in RECORDINGS:
        (tmp_path / f"{name}.txt").write_text("780 1.0 8.46 3.59\n")
    with pytest.raises(FileError, match=r"biwi_eth\.txt to have the SHA-256 cf8d3.*damaged or another file"):
        Pedestrians(tmp_path, "eth", data_dir=tmp_path)
