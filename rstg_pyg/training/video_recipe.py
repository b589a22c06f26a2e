"""How a network for real videos is trained: everything but the network."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from rstg_pyg.arguments import check_choice, check_positive
from rstg_pyg.datasets.video.flips import FLIPS
from rstg_pyg.training.run_recipe import RunRecipe


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

    Source: clips and evaluation are those of Nicolicioiu, Duta, Leordeanu, "Recurrent Space-time Graph Neural
    Networks", NeurIPS 2019, arXiv:1904.05582.

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
    flip: str = "undirected"
    accumulate: int = 1
    val_clips: int = 2_000
    test_clips: int | None = None

    def __post_init__(self) -> None:
        check_positive(
            clips=self.clips,
            num_frames=self.num_frames,
            size=self.size,
            test_size=self.clip_size,
            accumulate=self.accumulate,
            val_clips=self.val_clips,
            test_clips=1 if self.test_clips is None else self.test_clips,
        )
        if self.num_frames % 2:
            raise ValueError(f"expected 'num_frames' to be even, got {self.num_frames}")
        check_choice("flip", self.flip, FLIPS)
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
