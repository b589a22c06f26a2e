"""What every training run says of itself, whatever its clips are."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from rstg_pyg.arguments import check_choice, check_positive


@dataclass(frozen=True, kw_only=True)
class RunRecipe:
    r"""Batches, chunks, optimiser and schedule: what :class:`Recipe` and :class:`VideoRecipe` have in common.

    A recipe of clips of a new kind derives from it and says ``clips``, ``val_clips`` and ``test_clips``: how many there
    are for training, each seen once, for validation and for tests (None: as many as there are).

    Args:
        batch_size: Clips per batch, all processes together.
        optimizer: ``"muon"`` (:class:`~rstg_pyg.training.MuonAdamW` on the matrices of the graph, or of a network
            without one on all hidden layers), ``"muon-hidden"`` (all hidden layers of any network), ``"adamw"`` or
            ``"nesterov"`` (momentum 0.9).
        lr: Highest learning rate.
        muon_lr: Highest learning rate of the matrices that Muon trains.
        weight_decay: Of Muon and AdamW.
        schedule: ``"cosine"`` (a linear rise over ``warmup`` of the steps, then a cosine down to 0) or ``"constant"``.
        warmup: Share of the steps over which the learning rate rises.
        gradient_clip: Largest norm of the gradient, or None.
        chunk: Clips between two checkpoints.

    Raises:
        ValueError: If a value is out of its range.

    Source: the optimiser and the chunks are this package's; the paper's own settings are those of
    :func:`~rstg_pyg.training.paper_recipe`.

    Example:
        >>> from rstg_pyg.training import Phase, Recipe
        >>> recipe = Recipe((Phase(100),), chunk=64, batch_size=8)
        >>> recipe.num_chunks, recipe.num_steps, recipe.chunk_clips(1)
        (2, 13, range(64, 100))
    """

    batch_size: int = 16
    optimizer: str = "muon"
    lr: float = 3e-3
    muon_lr: float = 0.01
    weight_decay: float = 0.01
    schedule: str = "cosine"
    warmup: float = 0.02
    gradient_clip: float | None = 1.0
    chunk: int = 6_400

    accumulate: ClassVar[int] = 1
    """Batches per step of the optimiser."""
    loss: ClassVar[str] = "mean"
    """Whether a step's loss is the mean or the sum over its clips."""
    augment: ClassVar[str] = "none"
    """What is done to the clips of a batch before the model sees them."""
    raw_pixels: ClassVar[bool] = False
    """Whether the model gets pixels as 0..255 instead of uint8 that it scales itself."""

    def __post_init__(self) -> None:
        check_positive(batch_size=self.batch_size, chunk=self.chunk)
        check_choice("optimizer", self.optimizer, ("muon", "muon-hidden", "adamw", "nesterov"))
        check_choice("schedule", self.schedule, ("cosine", "constant"))
        if self.batch_size > min(self.clips, self.chunk):
            raise ValueError(
                f"expected 'batch_size' to be at most {min(self.clips, self.chunk)} (clips, chunk), "
                f"got {self.batch_size}"
            )
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise ValueError(f"expected 'gradient_clip' to be above 0 or None, got {self.gradient_clip}")
        if not self.lr > 0 or not self.muon_lr > 0 or not 0 <= self.warmup < 1:
            raise ValueError(
                f"expected lr > 0, muon_lr > 0 and 0 <= warmup < 1, got lr={self.lr}, muon_lr={self.muon_lr}, "
                f"warmup={self.warmup}"
            )

    @property
    def num_chunks(self) -> int:
        """Number of chunks that the clips make."""
        return -(-self.clips // self.chunk)

    @property
    def num_steps(self) -> int:
        """Number of optimiser steps; the last one of a chunk may be of fewer clips than the others."""
        full, rest = divmod(self.clips, self.chunk)
        per_step = self.batch_size * self.accumulate
        return full * -(-self.chunk // per_step) + -(-rest // per_step)

    def chunk_clips(self, chunk: int) -> range:
        """Return the numbers of the clips of a chunk."""
        return range(self.clips_before(chunk), self.clips_before(chunk + 1))

    def clips_before(self, chunk: int) -> int:
        """Return how many clips the chunks before one have."""
        return min(chunk * self.chunk, self.clips)

    def settings(self) -> dict[str, Any]:
        """Return all settings by name, those of this kind of clips first."""
        common = {field.name for field in fields(RunRecipe)}
        return dict(sorted(asdict(self).items(), key=lambda item: item[0] in common))
