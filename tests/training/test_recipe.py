"""Recipes: what they add up to, the presets, and what they refuse."""

import dataclasses
import json

import pytest
from cases import case
from small_runs import PHASES, RECIPE
from small_videos import RECIPE as VIDEO_RECIPE

from rstg_pyg.datasets.video import FLIPS
from rstg_pyg.training import (
    Phase,
    Recipe,
    VideoRecipe,
    full_recipe,
    full_video_recipe,
    paper_recipe,
    small_recipe,
    small_video_recipe,
)


def test_steps_and_chunks_are_those_of_the_batches():
    for clips, chunk, batch_size in [(30, 10, 4), (30, 30, 30), (31, 10, 10), (29, 64, 4)]:
        with case(clips, chunk, batch_size):
            recipe = Recipe((Phase(8), Phase(clips - 8)), chunk=chunk, batch_size=batch_size)
            chunks = [range(start, min(start + chunk, clips)) for start in range(0, clips, chunk)]
            assert (recipe.clips, recipe.num_chunks) == (clips, len(chunks))
            assert recipe.num_steps == sum(len(range(0, len(numbers), batch_size)) for numbers in chunks)
            assert recipe.task == recipe.phases[-1]


def test_with_other_clips_every_phase_has_its_share():
    for clips, expected in [(30, [8, 22]), (60, [16, 44]), (4, [1, 3]), (100, [26, 74])]:
        with case(clips, expected):
            recipe = RECIPE.with_clips(clips)
            assert [phase.clips for phase in recipe.phases] == expected
            assert dataclasses.replace(recipe, phases=PHASES) == RECIPE
            assert [dataclasses.replace(phase, clips=1) for phase in recipe.phases] == [
                dataclasses.replace(phase, clips=1) for phase in PHASES
            ]


def test_with_too_few_clips():
    for clips, message in [
        (0, "'clips' to be a positive int, got 0"),
        (3, "'clips' to be a positive int, got 0"),
        (-30, "'clips' to be a positive int, got -8"),
    ]:
        with case(clips, message):
            with pytest.raises(ValueError, match=message):
                RECIPE.with_clips(clips)
            with pytest.raises(ValueError, match=r"'batch_size' to be at most 9 \(clips, chunk\), got 10"):
                dataclasses.replace(RECIPE, batch_size=10).with_clips(9)


def test_presets_lead_to_the_asked_for_digits():
    for preset in (small_recipe, full_recipe, paper_recipe):
        for num_digits in (2, 3, 5):
            recipe = preset(num_digits)
            assert recipe.task.num_digits == num_digits
            assert sorted(phase.num_digits for phase in recipe.phases) == [phase.num_digits for phase in recipe.phases]
            assert recipe.with_clips(recipe.clips) == recipe
    assert {phase.no_sync_probability for phase in paper_recipe().phases} == {1 / 92}
    assert full_recipe().task.no_sync_probability == small_recipe(3).task.no_sync_probability == 1 / 92
    assert small_recipe().task.no_sync_probability == 0.5
    for preset in (small_recipe, full_recipe):
        assert preset().phases[0].target == "in-step"
        assert {phase.target for phase in preset().phases[1:]} == {"pair"}


def test_the_small_preset_needs_a_pair():
    for num_digits in [1, 0]:
        with pytest.raises(ValueError, match=f"'num_digits' to be at least 2, got {num_digits}"):
            small_recipe(num_digits)


def test_bad_recipes():
    for options, message in [
        ({"phases": ()}, r"'phases' to hold at least one Phase, got \(\)"),
        ({"phases": (10,)}, r"'phases' to hold at least one Phase, got \(10,\)"),
        ({"size": 0}, "'size' to be a positive int, got 0"),
        ({"delay": 5, "num_frames": 5}, "'num_frames' to be more than delay=5, got 5"),
        ({"num_frames": 2.5}, r"'num_frames' to be an integer of at least 1, got 2\.5"),
        ({"batch_size": 31}, r"'batch_size' to be at most 10 \(clips, chunk\), got 31"),
        ({"optimizer": "adam"}, "'optimizer' to be one of 'muon', 'muon-hidden', 'adamw', 'nesterov', got 'adam'"),
        ({"schedule": "step"}, "'schedule' to be one of"),
        ({"loss": "max"}, "'loss' to be one of"),
        ({"augment": "flip"}, "'augment' to be one of 'none', 'reverse', got 'flip'"),
        ({"gradient_clip": 0.0}, r"'gradient_clip' to be above 0 or None, got 0\.0"),
        ({"lr": 0.0}, r"lr > 0, muon_lr > 0 and 0 <= warmup < 1, got lr=0\.0"),
        ({"muon_lr": -1.0}, r"got lr=.*, muon_lr=-1\.0"),
        ({"warmup": 1.0}, r"got lr=.*, warmup=1\.0"),
    ]:
        with case(options, message), pytest.raises(ValueError, match=message):
            dataclasses.replace(RECIPE, **options)


def test_bad_phases():
    for options, message in [
        ({"clips": 0}, "'clips' to be a positive int, got 0"),
        ({"num_digits": 0}, "'num_digits' to be a positive int, got 0"),
        ({"no_sync_probability": 1.5}, r"'no_sync_probability' to be within 0 to 1, got 1\.5"),
        ({"target": "digits"}, "'target' to be one of 'pair', 'in-step', got 'digits'"),
    ]:
        with case(options, message), pytest.raises(ValueError, match=message):
            Phase(**{"clips": 10, **options})


def test_steps_of_several_batches_each():
    for clips, chunk, batch_size, accumulate in [(12, 6, 4, 1), (31, 10, 3, 2), (9, 9, 2, 9)]:
        with case(clips, chunk, batch_size, accumulate):
            recipe = VideoRecipe(clips, chunk=chunk, batch_size=batch_size, accumulate=accumulate)
            chunks = [recipe.chunk_clips(number) for number in range(recipe.num_chunks)]
            assert [number for numbers in chunks for number in numbers] == list(range(clips))
            steps = 0
            for numbers in chunks:
                batches = list(range(0, len(numbers), batch_size))
                steps += len(batches[::accumulate])
            assert recipe.num_steps == steps


def test_video_presets_come_back_from_a_file():
    for preset in [small_video_recipe, full_video_recipe]:
        with case(preset):
            recipe = preset(100_000)
            assert recipe.clips == 100_000
            assert VideoRecipe(**json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe
            assert recipe.chunk % (recipe.batch_size * recipe.accumulate) == 0


def test_the_full_preset_has_the_papers_clips():
    recipe = full_video_recipe()
    assert (recipe.num_frames, recipe.size, recipe.clip_size) == (32, 224, 256)
    assert recipe.scale == (8 / 7, 10 / 7)
    assert recipe.test_clips is None
    assert [dataclasses.replace(recipe, flip=name).flip for name in FLIPS] == list(FLIPS)
    assert dataclasses.replace(recipe, test_size=None).clip_size == 224


def test_bad_video_recipes():
    for options, message in [
        ({"clips": 0}, "'clips' to be a positive int, got 0"),
        ({"num_frames": 7}, "'num_frames' to be even, got 7"),
        ({"num_frames": 0}, "'num_frames' to be a positive int, got 0"),
        ({"test_size": 0}, "'test_size' to be a positive int, got 0"),
        ({"accumulate": 0}, "'accumulate' to be a positive int, got 0"),
        ({"test_clips": 0}, "'test_clips' to be a positive int, got 0"),
        ({"scale": (0.9, 1.2)}, r"'scale' to be two numbers of at least 1, in order, got \(0\.9, 1\.2\)"),
        ({"colour_jitter": 2.0}, r"'colour_jitter' to be a number within 0 to 1, got 2\.0"),
        ({"flip": "always"}, "'flip' to be one of 'undirected', 'swap', 'never', got 'always'"),
        ({"batch_size": 7}, r"'batch_size' to be at most 6 \(clips, chunk\), got 7"),
        ({"lr": 0.0}, r"lr > 0, muon_lr > 0 and 0 <= warmup < 1, got lr=0\.0"),
    ]:
        with case(options, message), pytest.raises(ValueError, match=message):
            dataclasses.replace(VIDEO_RECIPE, **options)
