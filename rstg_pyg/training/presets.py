"""Recipes for SyncMNIST: minutes on a CPU, the paper's size on one GPU, and what the authors' program does."""

from __future__ import annotations

from rstg_pyg.training.recipe import Phase, Recipe


def small_recipe(num_digits: int = 2) -> Recipe:
    """Frames of 32 x 32, 60,000 clips of two digits, then 100,000 of more, and Muon for all hidden layers.

    Do two digits move in step? Which digits are there, with a few clips of "none" so that the first answer is not
    forgotten? Then both at once, then more digits: each question is a plateau of its own when all come together. In the
    end the two digits move in step in half of the clips, so that classes alone do not tell the answer.

    Raises:
        ValueError: If there are fewer than two digits.

    Source: the task is SyncMNIST of "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582; the
    curriculum is this package's.

    Example:
        >>> from rstg_pyg.training import small_recipe
        >>> small_recipe().clips, small_recipe(3).clips
        (60000, 160000)
    """
    if num_digits < 2:
        raise ValueError(f"expected 'num_digits' to be at least 2, got {num_digits}")
    phases = [Phase(12_000, 2, 0.5, "in-step"), Phase(18_000, 2, 0.2), Phase(30_000, 2, 0.5)]
    if num_digits > 2:
        phases.append(Phase(100_000, num_digits))
    return Recipe(tuple(phases), optimizer="muon-hidden", muon_lr=0.003)


def full_recipe(num_digits: int = 5) -> Recipe:
    """The paper's size: frames of 64 x 64, two million clips in larger batches, the same curriculum, and Muon for the
    convolutions too.

    Raises:
        ValueError: If there are fewer than two digits.

    Source: the task is SyncMNIST of "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582; the
    curriculum is this package's.

    Example:
        >>> from rstg_pyg.training import full_recipe
        >>> full_recipe().task.num_digits, full_recipe().clips
        (5, 2000000)
    """
    if num_digits < 2:
        raise ValueError(f"expected 'num_digits' to be at least 2, got {num_digits}")
    phases = [Phase(50_000, 2, 0.5, "in-step"), Phase(75_000, 2, 0.2)]
    if num_digits > 3:
        phases.append(Phase(125_000, 3))
    phases.append(Phase(2_000_000 - sum(phase.clips for phase in phases), num_digits))
    return Recipe(
        tuple(phases),
        size=64,
        batch_size=125,
        optimizer="muon-hidden",
        lr=1e-3,
        muon_lr=0.01,
        test_clips=10_000,
        val_clips=2_000,
        chunk=62_500,
    )


def paper_recipe(num_digits: int = 5) -> Recipe:
    """What the authors' program does, for one of its up to 100 passes: Nesterov momentum on the sum of the losses of
    two clips of raw pixels, at a constant rate.

    Source: "Recurrent Space-time Graph Neural Networks", NeurIPS 2019, arXiv:1904.05582, and its program.

    Example:
        >>> from rstg_pyg.training import paper_recipe
        >>> paper_recipe().optimizer, paper_recipe().num_steps
        ('nesterov', 300000)
    """
    return Recipe(
        (Phase(600_000, num_digits),),
        size=64,
        batch_size=2,
        test_clips=5_000,
        optimizer="nesterov",
        lr=1e-6,
        schedule="constant",
        gradient_clip=None,
        loss="sum",
        raw_pixels=True,
    )
