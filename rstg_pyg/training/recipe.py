"""How a SyncMNIST model is trained: everything but the model."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace

from rstg_pyg.arguments import check_choice, check_positive
from rstg_pyg.datasets.clips import NO_SYNC_PROBABILITY
from rstg_pyg.training.run_recipe import RunRecipe

TARGETS = ("pair", "in-step")


@dataclass(frozen=True)
class Phase:
    r"""A stretch of a curriculum: a number of clips of one kind, with one question.

    Args:
        clips: Number of clips.
        num_digits: Digits per clip.
        no_sync_probability: Probability that no pair of a clip moves in step.
        target: ``"pair"``: which pair of classes moves in step (46 classes); ``"in-step"``: whether any does, the
            probabilities of all pairs together against that of "none".

    Raises:
        ValueError: If a value is out of its range.

    Source: SyncMNIST and its training in Nicolicioiu, Duta, Leordeanu, "Recurrent Space-time Graph Neural Networks",
    NeurIPS 2019, arXiv:1904.05582; the curriculum is this package's.

    Example:
        >>> from rstg_pyg.training import Phase
        >>> Phase(12_000, num_digits=2, no_sync_probability=0.5, target="in-step").target
        'in-step'
    """

    clips: int
    num_digits: int = 3
    no_sync_probability: float = NO_SYNC_PROBABILITY
    target: str = "pair"

    def __post_init__(self) -> None:
        check_positive(clips=self.clips, num_digits=self.num_digits)
        check_choice("target", self.target, TARGETS)
        if not 0 <= self.no_sync_probability <= 1:
            raise ValueError(f"expected 'no_sync_probability' to be within 0 to 1, got {self.no_sync_probability}")


@dataclass(frozen=True)
class Recipe(RunRecipe):
    r"""The data and the optimiser of a SyncMNIST training run.

    Args:
        phases: The curriculum; test clips are of the last phase's kind.
        size: Height and width of the frames.
        test_clips: Number of test clips.
        val_clips: Number of validation clips, looked at after every chunk.
        loss: Whether a batch's loss is the ``"mean"`` or the ``"sum"`` over its clips.
        augment: ``"none"``, or ``"reverse"`` to run every other clip, at random, backwards: digits in step are so then,
            too.
        raw_pixels: Whether the model gets pixels as 0..255 instead of uint8 that it scales itself.
        others: Those of :class:`RunRecipe`.

    Raises:
        ValueError: If a value is out of its range.

    Source: SyncMNIST and its training in Nicolicioiu, Duta, Leordeanu, "Recurrent Space-time Graph Neural Networks",
    NeurIPS 2019, arXiv:1904.05582; the curriculum is this package's.

    Example:
        >>> from rstg_pyg.training import Phase, Recipe
        >>> recipe = Recipe(phases=(Phase(1_000, num_digits=2), Phase(9_000, num_digits=3)))
        >>> recipe.clips, recipe.num_chunks
        (10000, 2)
    """

    phases: tuple[Phase, ...]
    _: KW_ONLY
    size: int = 32
    test_clips: int = 2_000
    val_clips: int = 480
    loss: str = "mean"
    augment: str = "none"
    raw_pixels: bool = False

    def __post_init__(self) -> None:
        if not self.phases or not all(isinstance(phase, Phase) for phase in self.phases):
            raise ValueError(f"expected 'phases' to hold at least one Phase, got {self.phases!r}")
        check_positive(size=self.size, test_clips=self.test_clips, val_clips=self.val_clips)
        check_choice("loss", self.loss, ("mean", "sum"))
        check_choice("augment", self.augment, ("none", "reverse"))
        super().__post_init__()

    @property
    def clips(self) -> int:
        """Number of training clips, each seen once."""
        return sum(phase.clips for phase in self.phases)

    @property
    def task(self) -> Phase:
        """The phase that training leads to and that tests are about: the last one."""
        return self.phases[-1]

    def with_clips(self, clips: int) -> Recipe:
        """Return the recipe with another number of clips, of which each phase has its share and the last one the rest.

        Raises:
            ValueError: If that leaves a phase without clips, or fewer than a batch.

        Example:
            >>> from rstg_pyg.training import Phase, Recipe
            >>> [phase.clips for phase in Recipe((Phase(10), Phase(20)), batch_size=5).with_clips(100).phases]
            [33, 67]
        """
        counts = [clips * phase.clips // self.clips for phase in self.phases[:-1]]
        counts.append(clips - sum(counts))
        phases = (replace(phase, clips=count) for phase, count in zip(self.phases, counts, strict=True))
        return replace(self, phases=tuple(phases))
