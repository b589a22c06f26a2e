"""What is trained, under Lightning's trainer: optimiser and schedule, random numbers and checkpoints of a run that can
be resumed, and an end when its loss or its weights are no longer finite."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any, ClassVar

import lightning
import torch
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.training.checkpoint import check_checkpoint
from rstg_pyg.training.optimizer import MuonAdamW, graph_matrices, hidden_matrices
from rstg_pyg.training.recipe import RunRecipe
from rstg_pyg.training.weights import plain

MATRICES = {"muon": graph_matrices, "muon-hidden": hidden_matrices}
"""Which parameters the optimisers of a recipe train by Muon."""


class DivergenceError(RuntimeError):
    """A loss or a weight that is not finite."""


class RunModule(lightning.LightningModule):
    r"""What :class:`ClipClassifier` and :class:`SequenceForecaster` have in common: a run that can be stopped.

    A checkpoint holds :attr:`config`, so that a run goes on only from its own. Random numbers of the model, as of
    dropout, are a function of the seed of the run's first start, of the chunk and of the process, so that a run that
    is resumed after a chunk draws those of an unbroken one.

    A module for data of a new kind derives from it and says what a step comes to (:meth:`step_loss`), and what
    validation and tests look at (Lightning's ``validation_step`` and ``test_step``). What these log as ``val_...`` and
    ``test_...`` are the results of the run.

    Args:
        model: What is trained.
        recipe: Optimiser, schedule and loss.
        config: What else a checkpoint should say of the run, as the model's name and seed: dicts, lists, strings and
            finite numbers.

    Raises:
        DivergenceError: By ``fit``, if a loss is not finite, at the next step, or a weight, at the end of the chunk; it
            is a RuntimeError. No checkpoint is written after such a step. A gradient that is not finite makes the
            weights so, and with them the next loss.
        CheckpointError: By ``fit``, if the checkpoint to go on from is of another run; it is a ValueError.
        ValueError: If ``config`` holds something else.

    Example:
        >>> import torch
        >>> from rstg_pyg.training import RunModule, SequenceRecipe
        >>> class Squares(RunModule):
        ...     def step_loss(self, batch, batch_idx):
        ...         loss = self.model(batch.x).square().mean()
        ...         return loss, loss.detach()[None]
        >>> Squares(torch.nn.Linear(2, 2), SequenceRecipe(64), {"seed": 0}).config["seed"]
        0
    """

    measures: ClassVar[tuple[str, ...]] = ()
    """What training steps measure beside the loss; validation logs the same under ``val_...``."""

    def __init__(self, model: torch.nn.Module, recipe: RunRecipe, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.config = plain({**(config or {}), "recipe": recipe.settings()})
        self._advice = f"lower the learning rate ({recipe.lr}) or use float32; the last checkpoint is intact"
        self._watch = LossWatch(self._advice)
        self._random_seed: int | None = None
        self.held_checkpoint: tuple[str | None, dict[str, Any]] = (None, {})
        """The path and the content of a checkpoint that was read and checked, until it is gone on from."""

    def step_loss(self, batch: Data, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return what a step descends, and without gradients the loss and the :attr:`measures` of this process's share
        of the batch, ``[1 + len(measures)]``."""
        raise NotImplementedError

    def take_best(self) -> bool:
        """Give the model the weights that are to be tested, and say whether these are others than the last ones."""
        return False

    def on_fit_start(self) -> None:
        if self._random_seed is None:
            self._random_seed = self.trainer.strategy.broadcast(torch.initial_seed())

    def on_train_batch_start(self, batch: Data, batch_idx: int) -> None:
        if batch_idx == 0:
            place = f"{self._random_seed}/{self.current_epoch}/{self.global_rank}"
            torch.manual_seed(random.Random(place).getrandbits(63))

    def training_step(self, batch: Data, batch_idx: int) -> dict[str, Tensor]:
        self._watch.check()
        loss, measured = self.step_loss(batch, batch_idx)
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(measured)
            measured /= self.trainer.world_size
        self._watch.note(measured[0], self.global_step)
        for name, value in zip(("loss", *self.measures), measured, strict=True):
            self.log(name, value, batch_size=batch.num_graphs, logger=False)
        return {"loss": loss, "measured": measured}

    def on_train_epoch_end(self) -> None:
        self._watch.check()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._watch.check()
        check_weights_finite(self, self.global_step, self._advice)
        checkpoint["config"] = self.config
        checkpoint["random_seed"] = self._random_seed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint is not self.held_checkpoint[1]:
            check_checkpoint(checkpoint, self, str(self.trainer.ckpt_path or "the checkpoint"))
        self.held_checkpoint = (None, {})
        self._random_seed = checkpoint["random_seed"]

    @property
    def _logs(self) -> bool:
        """While it trains, ClipMetrics gives the loggers their rows."""
        return self.trainer.state.fn != "fit"

    def configure_optimizers(self) -> dict:
        recipe = self.recipe
        if recipe.optimizer == "nesterov":
            optimizer = torch.optim.SGD(self.parameters(), recipe.lr, momentum=0.9, nesterov=True)
        elif recipe.optimizer in MATRICES:
            matrices, others = MATRICES[recipe.optimizer](self.model)
            if not matrices:
                matrices, others = hidden_matrices(self.model)
            optimizer = MuonAdamW(matrices, others, recipe.lr, recipe.muon_lr, recipe.weight_decay)
        else:
            optimizer = torch.optim.AdamW(self.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _learning_rate_factor(self, step: int) -> float:
        if self.recipe.schedule == "constant":
            return 1.0
        warmup = max(1, round(self.recipe.warmup * self.recipe.num_steps))
        progress = min(1.0, step / self.recipe.num_steps)
        return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * progress))


class LossWatch:
    """Look at every loss one step late, when it has been computed and nothing has to wait for it."""

    def __init__(self, advice: str) -> None:
        self.advice = advice
        self._noted: tuple[Tensor, int] | None = None
        self._copied: torch.cuda.Event | None = None

    def note(self, loss: Tensor, step: int) -> None:
        """Begin to copy a step's loss to the host."""
        self._noted = loss.detach().to("cpu", non_blocking=True), step
        if loss.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()

    def check(self) -> None:
        """Raise if the noted loss is not finite, then forget it."""
        if self._noted is None:
            return
        if self._copied is not None:
            self._copied.synchronize()
        (loss, step), self._noted, self._copied = self._noted, None, None
        if not torch.isfinite(loss):
            raise DivergenceError(f"expected a finite loss, got {loss.item()} at step {step}: {self.advice}")


def check_weights_finite(module: torch.nn.Module, step: int, advice: str) -> None:
    """Raise :class:`DivergenceError` if a floating-point parameter or buffer holds a value that is not finite."""
    tensors = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    finite = {name: value.isfinite().all() for name, value in tensors.items() if value.is_floating_point()}
    # One look at the accelerator for all.
    fine = torch.stack(list(finite.values())).tolist() if finite else []
    wrong = [name for name, each in zip(finite, fine, strict=True) if not each]
    if wrong:
        raise DivergenceError(
            f"expected finite weights, got others in {len(wrong)} tensor(s) after step {step - 1}, first in "
            f"{wrong[0]}: {advice}"
        )
