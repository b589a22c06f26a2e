"""Damaged and missing videos of a dataset: named, skipped, limited."""

import shutil
import sys
import warnings

import pytest
import torch
from torch_geometric.loader import DataLoader

from rstg_pyg.datasets import SomethingSomething
from rstg_pyg.datasets.video import Damage, DamagedVideoWarning, TooManyDamagedVideosError
from rstg_pyg.datasets.video.checking import check_videos, main

SMALL = {"num_frames": 8, "size": 24}


def cut(path):
    """Cuts a file, or every file of a folder, in half."""
    for file in path.iterdir() if path.is_dir() else (path,):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.fixture
def damaged(copied, version):
    """A data set whose videos 3 and 4 are cut and whose video 6 is gone, in words of its version."""
    root = copied(version)
    folder = root / f"20bn-something-something-{version}"
    suffix = "" if version == "v1" else ".webm"
    for number in (3, 4):
        cut(folder / f"{number}{suffix}")
    gone = folder / f"6{suffix}"
    shutil.rmtree(gone) if version == "v1" else gone.unlink()
    return root, folder


def test_missing_videos_are_named_at_once(damaged, version):
    root, folder = damaged
    with pytest.warns(DamagedVideoWarning) as caught:
        dataset = SomethingSomething(root, version, **SMALL)
    assert [str(w.message) for w in caught] == [f"1 of 8 videos are not in {folder} and are skipped: 6"]
    assert dataset.damaged == {"6": Damage.MISSING}
    assert dataset.damage_report() == "skipped 1 of 8 videos as damaged (limit 10): 6 (missing)"
    message = r"expected at most max_damaged=0 damaged videos, found 1 of 8: 6 \(missing\)"
    with pytest.raises(TooManyDamagedVideosError, match=message):
        SomethingSomething(root, version, max_damaged=0, **SMALL)


def test_in_training_the_next_video_takes_the_place(damaged, make, version):
    root, folder = damaged
    whole = make(version)
    with pytest.warns(DamagedVideoWarning):
        dataset = SomethingSomething(root, version, **SMALL)
    with pytest.warns(DamagedVideoWarning) as caught:
        items = [dataset[i] for i in range(8)]
    assert [item.video_id for item in items] == ["1", "2", "5", "5", "5", "7", "7", "8"]
    assert all(item.valid for item in items)
    for item, i in zip(items, (0, 1, 4, 4, 4, 6, 6, 7), strict=True):
        assert torch.equal(item.video, whole[i].video) and torch.equal(item.y, whole[i].y)
    assert len(caught) == 2
    for number, warning in zip((3, 4), caught, strict=True):
        assert str(warning.message).startswith(f"video {number} is skipped: expected ")
        assert f"{folder}/{number}" in str(warning.message)
    report = "skipped 3 of 8 videos as damaged (limit 10): 3 (truncated), 4 (truncated), 6 (missing)"
    assert dataset.damage_report() == report
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Each is named once. A selection draws from itself.
        assert dataset[2].video_id == "5"
        assert [item.video_id for item in dataset[1:4]] == ["2", "2", "2"]


@pytest.mark.parametrize(("version", "views"), [("v1", "22"), ("v2", "centre")])
def test_in_evaluation_damaged_videos_are_marked(damaged, make, version, views):
    with pytest.warns(DamagedVideoWarning):
        dataset = SomethingSomething(damaged[0], version, views=views, **SMALL)
        batch = next(iter(DataLoader(dataset, batch_size=8)))
    assert batch.valid.tolist() == [True, True, False, False, True, False, True, True]
    assert batch.video_id == [str(i) for i in range(1, 9)]
    whole = next(iter(DataLoader(make(version, views=views), batch_size=8)))
    assert torch.equal(batch.y, whole.y)
    by_video, expected = (each.video.unflatten(0, (8, -1)) for each in (batch, whole))
    assert torch.equal(by_video[batch.valid], expected[batch.valid])
    assert not by_video[~batch.valid].any()


@pytest.mark.parametrize("version", ["v2"])
def test_the_limit(damaged, version):
    with pytest.warns(DamagedVideoWarning):
        dataset = SomethingSomething(damaged[0], version, views="centre", max_damaged=2, **SMALL)
        assert not dataset[2].valid
    for _ in range(2):
        message = r"max_damaged=2 damaged videos, found 3 of 8: 3 \(truncated\), 4 \(truncated\), 6 \(missing\)"
        with pytest.raises(TooManyDamagedVideosError, match=message):
            list(dataset)


@pytest.mark.parametrize("version", ["v2"])
def test_workers_count_and_report_together(damaged, version, capfd, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", lambda message, *rest: print(message, file=sys.__stderr__, flush=True))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        dataset = SomethingSomething(damaged[0], version, max_damaged=3, **SMALL)
        loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context="fork")
        batches = list(loader)
        names = [video_id for batch in batches for video_id in batch.video_id]
    assert names == ["1", "2", "5", "5", "5", "7", "7", "8"]
    assert dataset.damaged == {"3": Damage.TRUNCATED, "4": Damage.TRUNCATED, "6": Damage.MISSING}
    heard = capfd.readouterr().err
    assert heard.count("video 3 is skipped: ") == heard.count("video 4 is skipped: ") == 1


@pytest.mark.parametrize("version", ["v1"])
def test_the_limit_holds_for_all_workers(damaged, version):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = SomethingSomething(damaged[0], version, max_damaged=2, **SMALL)
        batches = iter(DataLoader(dataset, batch_size=1, num_workers=2))
        with pytest.raises(TooManyDamagedVideosError, match=r"expected at most max_damaged=2 damaged videos, found 3"):
            list(batches)
    # The error's traceback holds the workers in a cycle, and the garbage collector ends them slowly.
    batches._shutdown_workers()


def test_a_dataset_without_a_single_good_video(copied):
    root = copied("v2")
    for path in (root / "20bn-something-something-v2").iterdir():
        path.write_bytes(b"")
    dataset = SomethingSomething(root, "v2", **SMALL)
    with (
        pytest.warns(DamagedVideoWarning),
        pytest.raises(ValueError, match="expected a video that can be read, got none"),
    ):
        dataset[0]
    assert set(dataset.damaged.values()) == {Damage.EMPTY}


def test_long_lists_are_cut(copied):
    root = copied("v1")
    with (root / "something-something-v1-train.csv").open("a") as file:
        file.writelines(f"{i};Moving something up\n" for i in range(100, 113))
    names = ", ".join(f"{i} (missing)" for i in range(100, 110))
    with pytest.raises(TooManyDamagedVideosError) as error:
        SomethingSomething(root, "v1")
    assert str(error.value) == f"expected at most max_damaged=10 damaged videos, found 13 of 21: {names} and 3 more"


@pytest.mark.parametrize("version", ["v2"])
def test_checking_reads_every_frame(damaged, made, version, capsys):
    root, _ = damaged
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = SomethingSomething(root, version, **SMALL)
        for workers in (0, 2):
            found = check_videos(dataset, workers)
            assert list(found) == ["3", "4", "6"]
            assert found["6"].startswith("expected a f")
        assert main([str(root), "--version", version]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["train 3", "train 4", "train 6", "train", "validation"]
    assert lines[3:] == ["train: 8 videos read", "validation: 4 videos read"]
    assert main([str(made / version), "--version", version]) == 0
    assert main(["nowhere", "--version", version]) == 2
    assert capsys.readouterr().err.startswith("checking: expected ")
