"""One progress bar for a whole training run, counted in clips."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning
from torch_geometric.data import Data
from tqdm import tqdm

from rstg_pyg.training.run_recipe import RunRecipe
from rstg_pyg.training.step_means import StepMeans


class ClipProgress(lightning.Callback):
    """Show clips done, clips per second, time left, and the loss and accuracy of the last steps, smoothed.

    Clips are those of all processes; the first one shows them. Loss and accuracy are read once per ``interval``: to
    read them is to wait for the accelerator.

    Args:
        recipe: The run's recipe, which says how many clips there are.
        interval: Seconds between two looks at loss and accuracy.

    Example:
        >>> import lightning
        >>> from rstg_pyg.training import ClipProgress, Phase, Recipe
        >>> progress = ClipProgress(Recipe((Phase(100),)))
        >>> trainer = lightning.Trainer(callbacks=[progress], enable_progress_bar=False, logger=False)
    """

    def __init__(self, recipe: RunRecipe, interval: float = 1.0) -> None:
        self.recipe = recipe
        self.interval = interval
        self._bar: tqdm | None = None
        self._means = StepMeans()
        self._smooth: list[float] | None = None
        self._read_at = -math.inf

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        done = self.recipe.clips_before(trainer.current_epoch)
        self._means, self._smooth, self._read_at = StepMeans(), None, -math.inf
        self._bar = tqdm(
            total=self.recipe.clips,
            initial=done,
            unit="clip",
            desc="training",
            disable=not trainer.is_global_zero,
            dynamic_ncols=True,
            mininterval=self.interval,
        )

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Data, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        self._means.add(outputs["measured"])
        if time.monotonic() >= self._read_at + self.interval:
            self._show()
        self._bar.update(batch.num_graphs * trainer.world_size)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if self._means.count:
            self._show()
        self._bar.close()

    def on_exception(self, trainer: lightning.Trainer, module: Any, exception: BaseException) -> None:
        if self._bar is not None:
            self._bar.close()

    def _show(self) -> None:
        kept = 0.98**self._means.count
        means = self._means.read()
        before = means if self._smooth is None else self._smooth
        self._smooth = [kept * old + (1 - kept) * new for old, new in zip(before, means, strict=True)]
        loss, accuracy = self._smooth
        self._bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.3f}", refresh=False)
        self._read_at = time.monotonic()
