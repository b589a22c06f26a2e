"""How a network is trained, everything but the network: recipes, and the presets for both data sets."""

from __future__ import annotations

from dataclasses import KW_ONLY, asdict, dataclass, fields, replace
from typing import Any, ClassVar, Literal, get_args, get_type_hints

from rstg_pyg.arguments import check_choice, check_positive, whole_number
from rstg_pyg.datasets.scenes import NO_SYNC_PROBABILITY


def _check_choices(recipe: Any) -> None:
    """Raise unless every field whose type is a Literal has one of its values."""
    for name, kind in get_type_hints(type(recipe)).items():
        if choices := get_args(kind) if getattr(kind, "__origin__", None) is Literal else ():
            check_choice(name, getattr(recipe, name), choices)


@dataclass(frozen=True, kw_only=True)
class RunRecipe:
    r"""Batches, chunks, optimiser and schedule: what :class:`Recipe` and :class:`VideoRecipe` have in common.

    A recipe for clips of a new kind derives from it and says ``clips``, ``val_clips`` and ``test_clips``: how many
    there are for training, each seen once, for validation and for tests (None: as many as there are).

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
        gradient_clip: Largest norm of the gradient, or None for any (0 on a command line).
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
    optimizer: Literal["muon", "muon-hidden", "adamw", "nesterov"] = "muon"
    lr: float = 3e-3
    muon_lr: float = 0.01
    weight_decay: float = 0.01
    schedule: Literal["cosine", "constant"] = "cosine"
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
        _check_choices(self)
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
    """

    clips: int
    num_digits: int = 3
    no_sync_probability: float = NO_SYNC_PROBABILITY
    target: Literal["pair", "in-step"] = "pair"

    def __post_init__(self) -> None:
        check_positive(clips=self.clips, num_digits=self.num_digits)
        _check_choices(self)
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
        delay: Frames from a move of the pair's first digit to the same move of its second, see
            :class:`~rstg_pyg.SyncMNIST`.
        num_frames: Frames of a clip, more than ``delay`` (default: 10 more).
        loss: Whether a batch's loss is the ``"mean"`` or the ``"sum"`` over its clips.
        augment: ``"none"``, or ``"reverse"`` to run every other clip, at random, backwards: digits in step are so then,
            too.
        raw_pixels: Whether the model gets pixels as 0..255 instead of uint8 that it scales itself.
        others: Those of :class:`RunRecipe`.

    Raises:
        ValueError: If a value is out of its range.

    Source: SyncMNIST and its training in arXiv:1904.05582 (NeurIPS 2019); the curriculum is this package's.

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
    delay: int = 0
    loss: Literal["mean", "sum"] = "mean"
    augment: Literal["none", "reverse"] = "none"
    raw_pixels: bool = False
    num_frames: int | None = None

    def __post_init__(self) -> None:
        if not self.phases or not all(isinstance(phase, Phase) for phase in self.phases):
            raise ValueError(f"expected 'phases' to hold at least one Phase, got {self.phases!r}")
        check_positive(size=self.size, test_clips=self.test_clips, val_clips=self.val_clips)
        whole_number("delay", self.delay, 0)
        if self.num_frames is not None and whole_number("num_frames", self.num_frames, 1) <= self.delay:
            raise ValueError(f"expected 'num_frames' to be more than delay={self.delay}, got {self.num_frames}")
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


@dataclass(frozen=True)
class VideoRecipe(RunRecipe):
    r"""The data and the optimiser of a training run on :class:`~rstg_pyg.datasets.SomethingSomething`.

    Args:
        clips: Number of training clips, of all epochs together: every video once an epoch, in an order of its own.
        num_frames: Frames T of a clip, even: the networks halve T.
        size: Height and width of training clips.
        test_size: Height and width of the clips of validation and tests (default: ``size``).
        scale: Bounds of the shorter side of a training video before the crop, as multiples of ``size``.
        colour_jitter: How far brightness, contrast and saturation change in training, 0 to 1.
        flip: Which training clips are flipped left to right: ``"undirected"``, ``"swap"`` or ``"never"``.
        accumulate: Batches per step of the optimiser: a step of two batches of b clips is one of a batch of 2 b clips,
            but for batch normalisation, which sees b.
        val_clips: Number of validation videos, looked at after every chunk (all, if there are fewer).
        test_clips: Number of test videos, or None for the whole validation split; labels of the test split are not
            published.
        others: Those of :class:`RunRecipe`.

    Raises:
        ValueError: If a value is out of its range.

    Source: clips and evaluation are those of arXiv:1904.05582 (NeurIPS 2019).

    Example:
        >>> from rstg_pyg.training import VideoRecipe
        >>> recipe = VideoRecipe(1_000, num_frames=16, size=64, batch_size=8, accumulate=2, chunk=500)
        >>> recipe.num_chunks, recipe.num_steps
        (2, 64)
    """

    clips: int
    _: KW_ONLY
    num_frames: int = 32
    size: int = 224
    test_size: int | None = None
    scale: tuple[float, float] = (8 / 7, 10 / 7)
    colour_jitter: float = 0.2
    flip: Literal["undirected", "swap", "never"] = "undirected"
    accumulate: int = 1
    val_clips: int = 2_000
    test_clips: int | None = None

    def __post_init__(self) -> None:
        names = ("clips", "num_frames", "size", "accumulate", "val_clips")
        check_positive(
            **{name: getattr(self, name) for name in names},
            test_size=self.clip_size,
            test_clips=1 if self.test_clips is None else self.test_clips,
        )
        if self.num_frames % 2:
            raise ValueError(f"expected 'num_frames' to be even, got {self.num_frames}")
        object.__setattr__(self, "scale", tuple(self.scale))
        if not (len(self.scale) == 2 and 1 <= self.scale[0] <= self.scale[1]):
            raise ValueError(f"expected 'scale' to be two numbers of at least 1, in order, got {self.scale!r}")
        if not 0 <= self.colour_jitter <= 1:
            raise ValueError(f"expected 'colour_jitter' to be a number within 0 to 1, got {self.colour_jitter!r}")
        super().__post_init__()

    @property
    def clip_size(self) -> int:
        """Height and width of the clips of validation and tests."""
        return self.size if self.test_size is None else self.test_size


def small_recipe(num_digits: int = 2) -> Recipe:
    """SyncMNIST in minutes on a CPU: frames of 32 x 32, 60,000 clips of two digits, or 30,000 and then 170,000 of more,
    and Muon for all hidden layers.

    Do two digits move in step? Which digits are there, with a few clips of "none" so that the first answer is not
    forgotten? Then the task itself: each question is a plateau of its own when all come together. Where two digits are
    the task, they move in step in half of the clips, so that classes alone do not tell the answer.

    Raises:
        ValueError: If there are fewer than two digits.

    Example:
        >>> from rstg_pyg.training import small_recipe
        >>> small_recipe().clips, small_recipe(3).clips
        (60000, 200000)
    """
    _check_pair(num_digits)
    task = Phase(30_000, 2, 0.5) if num_digits == 2 else Phase(170_000, num_digits)
    phases = (Phase(12_000, 2, 0.5, "in-step"), Phase(18_000, 2, 0.2), task)
    return Recipe(phases, optimizer="muon-hidden", muon_lr=0.003 if num_digits == 2 else 0.006)


def full_recipe(num_digits: int = 5) -> Recipe:
    """SyncMNIST at the paper's size, on one GPU: frames of 64 x 64, two million clips in larger batches, the same
    curriculum, and Muon for the convolutions too.

    Raises:
        ValueError: If there are fewer than two digits.
    """
    _check_pair(num_digits)
    phases = [Phase(50_000, 2, 0.5, "in-step"), Phase(75_000, 2, 0.2)]
    if num_digits > 3:
        phases.append(Phase(125_000, 3))
    phases.append(Phase(2_000_000 - sum(phase.clips for phase in phases), num_digits))
    sizes = {"size": 64, "batch_size": 125, "test_clips": 10_000, "val_clips": 2_000, "chunk": 62_500}
    return Recipe(tuple(phases), optimizer="muon-hidden", lr=1e-3, muon_lr=0.01, **sizes)


def _check_pair(num_digits: int) -> None:
    if num_digits < 2:
        raise ValueError(f"expected 'num_digits' to be at least 2, got {num_digits}")


def paper_recipe(num_digits: int = 5) -> Recipe:
    """What the authors' program does, for one of its up to 100 passes: Nesterov momentum on the sum of the losses of
    two clips of raw pixels, at a constant rate.

    Source: arXiv:1904.05582 (NeurIPS 2019) and its program.
    """
    optimiser = {"optimizer": "nesterov", "lr": 1e-6, "schedule": "constant", "gradient_clip": None, "loss": "sum"}
    sizes = {"size": 64, "batch_size": 2, "test_clips": 5_000}
    return Recipe((Phase(600_000, num_digits),), raw_pixels=True, **sizes, **optimiser)


def small_video_recipe(clips: int = 24_000) -> VideoRecipe:
    """16 frames of 64 x 64, for the small data sets of :mod:`rstg_pyg.datasets.made_videos`, in minutes on a CPU.

    Raises:
        ValueError: If there are fewer clips than a batch has.
    """
    sizes = {"num_frames": 16, "size": 64, "scale": (1.0, 1.25), "batch_size": 16, "chunk": 2_400, "val_clips": 240}
    return VideoRecipe(clips, optimizer="muon-hidden", **sizes)


def full_video_recipe(clips: int = 2_580_000) -> VideoRecipe:
    """32 frames of 224 x 224, for version 1 as published: 30 times its 86,017 training videos, unless told otherwise.

    Source: the clips are those of arXiv:1904.05582 (NeurIPS 2019); the optimiser is this package's.

    Example:
        >>> from rstg_pyg.training import full_video_recipe
        >>> full_video_recipe().num_frames, full_video_recipe().clip_size
        (32, 256)
    """
    sizes = {"num_frames": 32, "size": 224, "test_size": 256, "batch_size": 16, "accumulate": 4, "chunk": 16_000}
    return VideoRecipe(clips, optimizer="muon-hidden", lr=1e-3, muon_lr=0.005, warmup=0.05, **sizes)
