"""Recipes and the stream of clips. Small models on scikit-learn's digits."""

import dataclasses

import pytest
import torch
from small_runs import PHASES, RECIPE, fit

from rstg_pyg.training import ClipStream, Curriculum, Phase


def test_every_clip_is_seen_once_and_in_order(tmp_path):
    seen = []

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(46))

        def forward(self, video):
            if self.training:
                seen.append(video)
            return self.weight.expand(len(video), 46)

    fit(tmp_path, dataclasses.replace(RECIPE, optimizer="adamw"), net=Net())
    clips = ClipStream(tmp_path, RECIPE, digits="sklearn").train_clips
    assert len(clips) == 30
    torch.testing.assert_close(torch.cat(seen), torch.cat([clips[i].video for i in range(30)]))


def test_the_curriculum_changes_at_its_clip(tmp_path):
    stream = ClipStream(tmp_path, RECIPE, digits="sklearn")
    clips = stream.train_clips
    easy, hard = clips.datasets
    assert torch.equal(clips[7].video, easy[7].video)
    assert torch.equal(clips[8].video, hard[8].video)
    assert [bool(clips[i].binary) for i in (0, 7, 8, 29)] == [True, True, False, False]
    assert (easy.num_digits, easy.no_sync_probability) == (2, 0.5)
    assert (hard.num_digits, hard.no_sync_probability) == (3, 1 / 92)
    assert stream.test_clips.num_digits == 3
    assert not stream.test_clips.train
    assert stream.source == "sklearn"


def test_a_curriculum_needs_a_dataset_per_phase():
    with pytest.raises(ValueError, match="one dataset per phase, got 2 phases and 0 datasets"):
        Curriculum(PHASES, [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phases": ()}, r"'phases' to hold at least one Phase, got \(\)"),
        ({"phases": (10,)}, r"'phases' to hold at least one Phase, got \(10,\)"),
        ({"size": 0}, "'size' to be a positive int, got 0"),
        ({"batch_size": 31}, r"'batch_size' to be at most 10 \(clips, chunk\), got 31"),
        ({"optimizer": "adam"}, "'optimizer' to be one of 'muon', 'muon-hidden', 'adamw', 'nesterov', got 'adam'"),
        ({"schedule": "step"}, "'schedule' to be one of"),
        ({"loss": "max"}, "'loss' to be one of"),
        ({"lr": 0.0}, r"lr > 0, muon_lr > 0 and 0 <= warmup < 1, got lr=0\.0"),
        ({"muon_lr": -1.0}, r"got lr=.*, muon_lr=-1\.0"),
        ({"warmup": 1.0}, r"got lr=.*, warmup=1\.0"),
    ],
)
def test_bad_recipes(options, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPE, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clips": 0}, "'clips' to be a positive int, got 0"),
        ({"num_digits": 0}, "'num_digits' to be a positive int, got 0"),
        ({"target": "digits"}, "'target' to be one of 'pair', 'in-step', got 'digits'"),
    ],
)
def test_bad_phases(options, message):
    with pytest.raises(ValueError, match=message):
        Phase(**{"clips": 10, **options})
