"""Recipes for Something-Something: minutes on a CPU, and the paper's size on one GPU."""

from __future__ import annotations

from rstg_pyg.training.video_recipe import VideoRecipe


def small_video_recipe(clips: int = 24_000) -> VideoRecipe:
    """16 frames of 64 x 64, for the small data sets of :mod:`rstg_pyg.datasets.made_videos`.

    Raises:
        ValueError: If there are fewer clips than a batch has.

    Source: the task is that of "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582; the
    recipe is this package's.

    Example:
        >>> from rstg_pyg.training import small_video_recipe
        >>> small_video_recipe().num_frames
        16
    """
    return VideoRecipe(
        clips,
        num_frames=16,
        size=64,
        scale=(1.0, 1.25),
        batch_size=16,
        optimizer="muon-hidden",
        chunk=2_400,
        val_clips=240,
    )


def full_video_recipe(clips: int = 2_580_000) -> VideoRecipe:
    """32 frames of 224 x 224, for version 1 as published: 30 times its 86,017 training videos, unless told otherwise.

    Raises:
        ValueError: If there are fewer clips than a batch has.

    Source: the clips are those of "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582; the
    optimiser is this package's.

    Example:
        >>> from rstg_pyg.training import full_video_recipe
        >>> full_video_recipe().num_frames, full_video_recipe().clip_size
        (32, 256)
    """
    return VideoRecipe(
        clips,
        num_frames=32,
        size=224,
        test_size=256,
        batch_size=16,
        accumulate=4,
        optimizer="muon-hidden",
        lr=1e-3,
        muon_lr=0.005,
        warmup=0.05,
        chunk=16_000,
        val_clips=2_000,
    )
