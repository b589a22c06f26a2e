"""A forecaster on graphs under Lightning's trainer, and the recipe of its training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.arguments import check_positive, describe, num_dims
from rstg_pyg.training.module import RunModule
from rstg_pyg.training.recipe import RunRecipe

LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "mae": torch.abs,
    "mse": torch.square,
    "distance": lambda error: error.norm(dim=-1),
    "huber": lambda error: torch.nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none"),
}
"""From errors ``[M, O]`` of what is there to what a loss is the mean of, by its name."""

Measure = Callable[[Tensor, Data], Mapping[str, Tensor]]
"""From a prediction and its batch to errors by name, each of any shape, of what counts; see
:class:`SequenceForecaster`."""


@dataclass(frozen=True)
class SequenceRecipe(RunRecipe):
    r"""The data and the optimiser of a training run on sequences on graphs: a clip is a sequence here.

    Args:
        clips: Number of training sequences, of all epochs together: each once an epoch, in an order of its own.
        loss: ``"mae"``, the mean absolute error, ``"mse"``, the mean squared one, ``"distance"``, the mean of the
            errors' length over all channels, or ``"huber"``, the squared one below 1 and the absolute one above, of
            what is there.
        val_clips: Number of validation sequences, looked at after every chunk (None: all).
        test_clips: Number of test sequences (None: all).
        others: Those of :class:`RunRecipe`.

    Raises:
        ValueError: If a value is out of its range.

    Source: this package's.

    Example:
        >>> from rstg_pyg.training import SequenceRecipe
        >>> SequenceRecipe(1_000, batch_size=32, chunk=500).num_steps
        32
    """

    clips: int
    _: KW_ONLY
    loss: Literal["mae", "mse", "distance", "huber"] = "mae"
    optimizer: Literal["muon", "muon-hidden", "adamw", "nesterov"] = "adamw"
    val_clips: int | None = None
    test_clips: int | None = None

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("val_clips", "test_clips")}
        check_positive(clips=self.clips, **{name: count for name, count in counts.items() if count is not None})
        super().__post_init__()


class SequenceForecaster(RunModule):
    r"""Train a module from sequences on graphs to their next frames, as a :class:`SequenceRecipe` says.

    .. math::
        \mathcal{L} = \frac{1}{|\mathcal{M}|} \sum_{(i, k) \in \mathcal{M}} |\hat y_i^k - y_i^k|^p

    over :math:`\mathcal{M}`, the frames k of nodes i of the batch that are there, with p = 1 or 2, or the length of the
    error. With several processes it is that of the whole batch.

    Where the targets of training sequences have F - 1 frames more than the horizon H, the forecasts from each of the
    last F frames that are seen count, which costs as much as one (``Windows(data, T, H + F - 1, gap=1 - F)``).

    The weights of the chunk with the least validation loss are kept, in checkpoints too, and tested once, at the end:
    :func:`~rstg_pyg.training.train_and_test` leaves the model with them. How a run is stopped, resumed and ended where
    it diverges, see :class:`RunModule`.

    A model that has a method ``training_loss``, from a batch to its loss, is trained by that instead. One that has a
    method ``measure``, from a batch to further measures, is measured by it too.

    Args:
        model: What is called as :class:`~rstg_pyg.models.Forecaster` is, with what a batch has of ``x``,
            ``edge_index``, ``edge_attr``, ``pe``, ``edge_time`` and ``mask``.
        recipe: Optimiser, schedule and loss; ``"distance"`` takes a ``y_mask`` of ``[N, H]`` alone.
        config: What else a checkpoint should say of the run, see :class:`RunModule`.
        measure: What validation and tests measure beside the loss (default: :func:`forecast_errors`). A measure is the
            mean of its entries over all batches; of a name that begins with ``"rmse"`` it is the root of that.
        augment: What is done to a training batch first, by torch's random numbers.

    Shapes:
        - **batch.x:** ``[N, T, C]``. **batch.y:** ``[N, H, O]``, in training also ``[N, H + F - 1, O]``.
          **batch.y_mask:** ``[N, H]`` bool, or as y, where there is one.

    Raises:
        As :class:`RunModule`.

    Source: this package's.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from rstg_pyg.models import Forecaster
        >>> from rstg_pyg.training import SequenceForecaster, SequenceRecipe
        >>> module = SequenceForecaster(Forecaster(2, horizon=3, channels=8), SequenceRecipe(64))
        >>> module(Data(x=torch.randn(4, 5, 2), edge_index=torch.tensor([[0, 1], [1, 2]]))).shape
        torch.Size([4, 3, 2])
    """

    def __init__(
        self,
        model: torch.nn.Module,
        recipe: SequenceRecipe,
        config: Mapping[str, Any] | None = None,
        measure: Measure | None = None,
        augment: Callable[[Data], Data] | None = None,
    ) -> None:
        super().__init__(model, recipe, config)
        self.measure = forecast_errors if measure is None else measure
        self.augment = augment
        self._best: dict[str, Any] | None = None
        self._sums: dict[str, Tensor] = {}

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.trainer.ckpt_path is None:
            self._best = None  # that of another run, maybe on other data

    def forward(self, batch: Data, **options: Any) -> Tensor:
        given = {**options, **{name: batch.get(name) for name in ("edge_time", "mask")}}
        return self.model(batch.x, batch.edge_index, batch.get("edge_attr"), batch.get("pe"), **given)

    def step_loss(self, batch: Data, batch_idx: int) -> tuple[Tensor, Tensor]:
        batch = batch if self.augment is None else self.augment(batch)
        if hasattr(self.model, "training_loss"):
            loss = self.model.training_loss(batch)
            return loss, loss.detach()[None].clone()
        y, mask = batch.y, batch.get("y_mask")
        horizon = getattr(self.model, "horizon", y.size(1))
        if y.size(1) == horizon:
            prediction = self(batch)
        else:
            prediction = self(batch, num_last=y.size(1) - horizon + 1)
            y = y.unfold(1, horizon, 1).transpose(2, 3)
            mask = None if mask is None else mask.unfold(1, horizon, 1)
            mask = mask.transpose(2, 3) if num_dims(mask) == 4 else mask
        losses = self._losses(prediction.float() - y, mask)
        loss = losses.sum() / max(1, losses.numel())
        if self.trainer.world_size > 1:
            # Gradients are averaged over the processes, whose shares of what is there differ.
            total = torch.tensor(float(losses.numel()), device=loss.device)
            torch.distributed.all_reduce(total)
            loss = loss * (losses.numel() * self.trainer.world_size / total.clamp(min=1))
        return loss, loss.detach()[None].clone()

    def _losses(self, error: Tensor, mask: Tensor | None) -> Tensor:
        if self.recipe.loss == "distance" and num_dims(mask) == error.dim():
            raise ValueError(
                f"expected 'y_mask' of shape {list(error.shape[:-1])} with loss='distance', got {describe(mask)}"
            )
        return LOSSES[self.recipe.loss](there(error, mask))

    def validation_step(self, batch: Data, batch_idx: int) -> None:
        self._add(batch, batch_idx)

    def test_step(self, batch: Data, batch_idx: int) -> None:
        self._add(batch, batch_idx)

    def _add(self, batch: Data, batch_idx: int) -> None:
        if batch_idx == 0:
            self._sums = {}
        prediction = self(batch).float()
        losses = self._losses(prediction - batch.y, batch.get("y_mask"))
        errors = {"loss": losses, **self.measure(prediction, batch)}
        if hasattr(self.model, "measure"):
            errors |= self.model.measure(batch)
        for name, entries in errors.items():
            # In float64, which not every accelerator has.
            part = torch.tensor([entries.detach().cpu().double().sum(), entries.numel()], dtype=torch.float64)
            self._sums[name] = self._sums.get(name, 0) + part

    def on_validation_epoch_end(self) -> None:
        loss = self._log("val")
        # One that is no number is worse than any.
        if self.trainer.state.fn == "fit" and (
            self._best is None or loss < self._best["loss"] or math.isnan(self._best["loss"])
        ):
            state = self.model.state_dict()
            weights = {n: value.cpu().clone() if isinstance(value, Tensor) else value for n, value in state.items()}
            self._best = {"loss": loss, "step": self.global_step, "weights": weights}

    def on_test_epoch_end(self) -> None:
        self._log("test")

    def _log(self, stage: str) -> float:
        """Log the measures of all processes; return the loss."""
        sums = torch.stack(list(self._sums.values()))
        if self.trainer.world_size > 1:
            sums = self.all_gather(sums.to(self.device)).sum(0).cpu()
        if not sums[0, 1]:
            raise ValueError("expected at least one frame of a node to count, got none")
        # What nothing counted for is left out: 0 would be perfect.
        means = {name: total / count for name, (total, count) in zip(self._sums, sums.tolist(), strict=True) if count}
        for name, mean in means.items():
            value = mean**0.5 if name.startswith("rmse") else mean
            self.log(f"{stage}_{name}", torch.tensor(value, dtype=torch.float64), logger=self._logs)
        return means["loss"]

    def take_best(self) -> bool:
        if self._best is None:
            return False
        self.model.load_state_dict(self._best["weights"])
        return True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["best"] = self._best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._best = checkpoint["best"]


def there(value: Tensor, mask: Tensor | None) -> Tensor:
    """The entries of ``value [N, *, O]`` where ``mask [N, *]`` is True, ``[M, O]``, or where a mask of its shape is,
    ``[M]``; all of them without one."""
    return value.flatten(0, -2) if mask is None else value[mask]


def forecast_errors(prediction: Tensor, batch: Data) -> dict[str, Tensor]:
    """The absolute and the squared errors of what is there, as ``mae`` and ``rmse``."""
    error = there(prediction - batch.y, batch.get("y_mask"))
    return {"mae": error.abs(), "rmse": error.square()}
