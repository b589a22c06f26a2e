"""Recipes: what they add up to, the presets, and what they refuse."""

import dataclasses

import pytest
from small_runs import PHASES, RECIPE

from rstg_pyg.training import Phase, Recipe, full_recipe, paper_recipe, small_recipe


@pytest.mark.parametrize(("clips", "chunk", "batch_size"), [(30, 10, 4), (30, 30, 30), (31, 10, 10), (29, 64, 4)])
def test_steps_and_chunks_are_those_of_the_batches(clips, chunk, batch_size):
    recipe = Recipe((Phase(8), Phase(clips - 8)), chunk=chunk, batch_size=batch_size)
    chunks = [range(start, min(start + chunk, clips)) for start in range(0, clips, chunk)]
    assert (recipe.clips, recipe.num_chunks) == (clips, len(chunks))
    assert recipe.num_steps == sum(len(range(0, len(numbers), batch_size)) for numbers in chunks)
    assert recipe.task == recipe.phases[-1]


@pytest.mark.parametrize(("clips", "expected"), [(30, [8, 22]), (60, [16, 44]), (4, [1, 3]), (100, [26, 74])])
def test_with_other_clips_every_phase_has_its_share(clips, expected):
    recipe = RECIPE.with_clips(clips)
    assert [phase.clips for phase in recipe.phases] == expected
    assert dataclasses.replace(recipe, phases=PHASES) == RECIPE
    assert [dataclasses.replace(phase, clips=1) for phase in recipe.phases] == [
        dataclasses.replace(phase, clips=1) for phase in PHASES
    ]


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (0, "'clips' to be a positive int, got 0"),
        (3, "'clips' to be a positive int, got 0"),
        (-30, "'clips' to be a positive int, got -8"),
    ],
)
def test_with_too_few_clips(clips, message):
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


@pytest.mark.parametrize("num_digits", [1, 0])
def test_the_small_preset_needs_a_pair(num_digits):
    with pytest.raises(ValueError, match=f"'num_digits' to be at least 2, got {num_digits}"):
        small_recipe(num_digits)


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
        ({"augment": "flip"}, "'augment' to be one of 'none', 'reverse', got 'flip'"),
        ({"gradient_clip": 0.0}, r"'gradient_clip' to be above 0 or None, got 0\.0"),
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
        ({"no_sync_probability": 1.5}, r"'no_sync_probability' to be within 0 to 1, got 1\.5"),
        ({"target": "digits"}, "'target' to be one of 'pair', 'in-step', got 'digits'"),
    ],
)
def test_bad_phases(options, message):
    with pytest.raises(ValueError, match=message):
        Phase(**{"clips": 10, **options})
