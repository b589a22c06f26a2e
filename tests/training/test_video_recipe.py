"""Recipes for videos: what they add up to, the presets, and what they refuse."""

import dataclasses
import json

import pytest
from small_videos import RECIPE

from rstg_pyg.training import VideoRecipe, full_video_recipe, small_video_recipe


@pytest.mark.parametrize(("clips", "chunk", "batch_size", "accumulate"), [(12, 6, 4, 1), (31, 10, 3, 2), (9, 9, 2, 9)])
def test_steps_are_those_of_the_batches(clips, chunk, batch_size, accumulate):
    recipe = VideoRecipe(clips, chunk=chunk, batch_size=batch_size, accumulate=accumulate)
    chunks = [recipe.chunk_clips(number) for number in range(recipe.num_chunks)]
    assert [number for numbers in chunks for number in numbers] == list(range(clips))
    steps = 0
    for numbers in chunks:
        batches = list(range(0, len(numbers), batch_size))
        steps += len(batches[::accumulate])
    assert recipe.num_steps == steps


@pytest.mark.parametrize("preset", [small_video_recipe, full_video_recipe])
def test_presets_come_back_from_a_file(preset):
    recipe = preset(100_000)
    assert recipe.clips == 100_000
    assert VideoRecipe(**json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe
    assert recipe.chunk % (recipe.batch_size * recipe.accumulate) == 0


def test_the_full_preset_has_the_papers_clips():
    recipe = full_video_recipe()
    assert (recipe.num_frames, recipe.size, recipe.clip_size) == (32, 224, 256)
    assert recipe.scale == (8 / 7, 10 / 7)
    assert recipe.test_clips is None
    assert dataclasses.replace(recipe, test_size=None).clip_size == 224


@pytest.mark.parametrize(
    ("options", "message"),
    [
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
    ],
)
def test_bad_recipes(options, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPE, **options)
