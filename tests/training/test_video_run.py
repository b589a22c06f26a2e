"""Runs on videos: gone on with, with several batches a step, tested on several views."""

import dataclasses

import pytest
import torch
from small_videos import NETWORK, RECIPE, TRAINING, VALIDATION, Plain, damage, go, make_small_videos

from rstg_pyg.datasets.video import DamagedVideoWarning
from rstg_pyg.models import build_video_row
from rstg_pyg.training import CheckpointError, ClipClassifier, VideoData, evaluate
from rstg_pyg.training.metrics import read_rows


def network():
    torch.manual_seed(0)
    return build_video_row("c2d+rstg:vec", NETWORK)


def rows_of(folder):
    return [{k: v for k, v in row.items() if "second" not in k} for row in read_rows(folder / "metrics.csv")]


def test_a_run_out_of_time_goes_on_to_where_an_unbroken_one_ends(tmp_path, videos):
    """With dropout and batch normalisation, over the border of two rounds through the videos."""
    torch.manual_seed(1)
    whole, unbroken, _ = go(tmp_path / "whole", videos, model=network())
    assert whole.finished
    assert whole.clips == 12
    torch.manual_seed(1)
    first, _, _ = go(tmp_path / "broken", videos, model=network(), max_minutes=1e-9)
    assert (first.clips, first.finished, first.top5_accuracy) == (6, False, None)
    torch.manual_seed(99)
    second, resumed, _ = go(tmp_path / "broken", videos, model=network())
    torch.testing.assert_close(resumed.state_dict(), unbroken.state_dict(), rtol=0, atol=0)
    assert rows_of(tmp_path / "broken") == rows_of(tmp_path / "whole")
    assert torch.equal(second.confusion, whole.confusion)
    for name in ("clips", "test_accuracy", "top5_accuracy", "val_accuracy"):
        assert getattr(second, name) == getattr(whole, name)


@pytest.mark.parametrize("batch_size", [4, 6])
def test_a_step_of_several_batches_is_one_of_a_larger_batch(tmp_path, videos, batch_size):
    """Chunks of 11 and 5 clips: the last step of a chunk has fewer batches, the last batch fewer clips."""
    large = dataclasses.replace(RECIPE, clips=16, chunk=11, batch_size=batch_size)
    _, one, _ = go(tmp_path / "one", videos, large)
    _, plain, _ = go(tmp_path / "plain", videos, dataclasses.replace(large, batch_size=batch_size // 2))
    folder = tmp_path / "several"
    small = dataclasses.replace(large, batch_size=batch_size // 2, accumulate=2)
    assert small.num_steps == large.num_steps
    _, several, _ = go(folder, videos, small)
    assert several.global_step == one.global_step == large.num_steps
    torch.testing.assert_close(several.state_dict(), one.state_dict(), rtol=1e-5, atol=1e-6)
    apart = [(a - b).abs().max() for a, b in zip(plain.parameters(), one.parameters(), strict=True)]
    assert max(apart) > 1e-3
    assert [row["step"] for row in read_rows(folder / "metrics.csv")] == [
        row["step"] for row in rows_of(tmp_path / "one")
    ]


def test_rows_come_after_steps_and_not_after_batches(tmp_path, videos, monkeypatch):
    monkeypatch.setattr("rstg_pyg.training.metrics.ClipMetrics.__init__.__defaults__", (1,))
    go(tmp_path, videos, dataclasses.replace(RECIPE, batch_size=1, accumulate=2))
    rows = read_rows(tmp_path / "metrics.csv")
    assert [(row["step"], row["clips"]) for row in rows] == [(n, 2 * n) for n in range(1, 7)]


def test_answers_by_22_views_are_those_of_their_mean_logits(videos):
    data = VideoData(videos, RECIPE, views="22")
    module = ClipClassifier(network(), RECIPE)
    shown = []
    module.model.register_forward_pre_hook(lambda model, args: shown.append(len(args[0])))
    result = evaluate(module, data, "cpu")
    assert max(shown) == RECIPE.batch_size
    assert sum(shown) == 22 * VALIDATION
    items = [data.test_clips[i] for i in range(VALIDATION)]
    with torch.no_grad():
        logits = torch.stack([module.model.eval()(item.video).mean(0) for item in items])
    labels = torch.cat([item.y for item in items])
    expected = torch.zeros(6, 6, dtype=torch.long)
    expected.index_put_((labels, logits.argmax(1)), torch.tensor(1), accumulate=True)
    assert torch.equal(result.confusion, expected)
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    assert result.top5_accuracy == pytest.approx((ranks < 5).double().mean().item())


def test_damaged_videos_do_not_count(tmp_path):
    root = make_small_videos(tmp_path)
    broken = damage(root, TRAINING + 2)
    data = VideoData(root, RECIPE)
    module = ClipClassifier(Plain(), RECIPE)
    with pytest.warns(DamagedVideoWarning, match="video 12 is skipped"):
        result = evaluate(module, data, "cpu")
    assert data.damaged()["validation"] == broken
    items = [data.test_clips[i] for i in range(VALIDATION)]
    kept = [item for item in items if item.valid]
    assert len(kept) == result.confusion.sum() == VALIDATION - 1
    right = [int(module(item.video).argmax()) == int(item.y) for item in kept]
    assert result.test_accuracy == pytest.approx(sum(right) / len(right))


def test_a_test_without_a_video_that_can_be_read(tmp_path):
    root = make_small_videos(tmp_path)
    damage(root, *range(TRAINING + 1, TRAINING + VALIDATION + 1))
    with (
        pytest.warns(DamagedVideoWarning),
        pytest.raises(ValueError, match="expected at least one clip that can be read, got none"),
    ):
        evaluate(ClipClassifier(Plain(), RECIPE), VideoData(root, RECIPE), "cpu")


def test_other_videos_than_the_run_began_with_are_refused(tmp_path, videos):
    go(tmp_path / "run", videos, max_minutes=1e-9)
    content = (tmp_path / "run" / "last.ckpt").read_bytes()
    fewer = make_small_videos(tmp_path / "fewer", TRAINING - 1)
    with pytest.raises(CheckpointError, match=r"expected the training videos that the run began with, 10, got 9$"):
        go(tmp_path / "run", fewer)
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == content
