"""A clip classifier under Lightning's trainer, which stops when its loss or its weights are no longer finite."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import lightning
import torch
from torch import Tensor
from torch_geometric.data import Data
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from rstg_pyg.datasets.scenes import NO_SYNC
from rstg_pyg.datasets.video.sampling import average_views
from rstg_pyg.models.video_classifier import weight_dtype
from rstg_pyg.training.checkpoint import check_checkpoint
from rstg_pyg.training.optimizer import MuonAdamW, graph_matrices, hidden_matrices
from rstg_pyg.training.recipe import RunRecipe
from rstg_pyg.training.weights import plain

MATRICES = {"muon": graph_matrices, "muon-hidden": hidden_matrices}
"""Which parameters the optimisers of a recipe train by Muon."""


def clip_loss(logits: Tensor, label: Tensor, binary: Tensor | None = None) -> Tensor:
    r"""Cross-entropy per clip: of the label, or where ``binary`` is set of SyncMNIST's "some pair" against "none".

    .. math::
        -\log p_y \qquad \text{or} \qquad -\log \sum_{c < 45} p_c \ (y < 45), \quad -\log p_{45} \ (y = 45)

    Shapes:
        - **logits:** ``[B, M]``, with ``binary`` of SyncMNIST's 46 classes. **label, binary:** ``[B]``.
          **output:** ``[B]``.
    """
    log_p = logits.log_softmax(1)
    of_label = log_p.gather(1, label[:, None]).squeeze(1)
    if binary is None:
        return -of_label
    of_question = torch.where(label == NO_SYNC, log_p[:, NO_SYNC], log_p[:, :NO_SYNC].logsumexp(1))
    return -torch.where(binary, of_question, of_label)


class DivergenceError(RuntimeError):
    """A loss or a weight that is not finite."""


class ClipClassifier(lightning.LightningModule):
    r"""Train a module from video to logits by cross-entropy, as a :class:`Recipe` or :class:`VideoRecipe` says.

    .. math::
        \mathcal{L} = \frac{1}{B} \sum_b -\log \mathrm{softmax}(\mathrm{model}(\mathrm{video}_b))_{y_b}
        \qquad \text{(or the sum over b)}

    With ``accumulate`` batches per step of the optimiser, b runs over the clips of all of them.

    In validation and tests, a batch may hold several views of every video, which are shown to the model
    ``batch_size`` at a time and whose logits are averaged, and videos that could not be read, which do not count.

    A checkpoint holds :attr:`config`, so that a run goes on only from its own. Random numbers of the model, as of
    dropout, are a function of the seed of the run's first start, of the chunk and of the process, so that a run that
    is resumed after a chunk draws those of an unbroken one.

    With several processes the loss and the accuracy are those of the whole batch; every process has to get the same
    number of clips. Batch normalisation then takes the mean and variance of a process's own clips, unless the trainer
    has ``sync_batchnorm=True``, which needs CUDA.

    Args:
        model: From video ``[B, C, T, H, W]`` to logits ``[B, M]``.
        recipe: Optimiser, schedule and loss.
        config: What else a checkpoint should say of the run, as the model's name and seed: dicts, lists, strings and
            finite numbers.

    Shapes:
        - **batch.video:** ``[B, C, T, H, W]``, or ``[B * V, C, T, H, W]`` of V views. **batch.y:** ``[B]``.
          **batch.binary:** ``[B]``, where there is one, see :func:`clip_loss`. **batch.valid:** ``[B]``, where there is
          one, which videos count.

    Raises:
        DivergenceError: By ``fit``, if a loss is not finite, at the next step, or a weight, at the end of the chunk; it
            is a RuntimeError. No checkpoint is written after such a step. A gradient that is not finite makes the
            weights so, and with them the next loss.
        CheckpointError: By ``fit``, if the checkpoint to go on from is of another run; it is a ValueError.
        ValueError: If ``config`` holds something else, or by validation and tests, if no video counts.

    Source: SyncMNIST and its training in arXiv:1904.05582 (NeurIPS 2019); the curriculum is this package's.

    Example:
        >>> import torch
        >>> from rstg_pyg import FrameCNN, RSTGToVec, VideoClassifier
        >>> from rstg_pyg.training import ClipClassifier, Phase, Recipe
        >>> net = VideoClassifier(FrameCNN(1, (8,)), RSTGToVec(8, scales=(2, 1)), num_classes=46)
        >>> ClipClassifier(net, Recipe((Phase(100),)))(torch.rand(2, 1, 3, 16, 16)).shape
        torch.Size([2, 46])
    """

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
        self.confusion: Tensor | None = None
        """Test clips by label and answer, ``[M, M]``, once there was a test."""
        self.top5: float | None = None
        """Share of test clips whose label is among the five likeliest classes."""

    def forward(self, video: Tensor) -> Tensor:
        return self.model(video.to(weight_dtype(self.model)) if self.recipe.raw_pixels else video)

    def on_fit_start(self) -> None:
        if self._random_seed is None:
            self._random_seed = self.trainer.strategy.broadcast(torch.initial_seed())

    def on_train_batch_start(self, batch: Data, batch_idx: int) -> None:
        if batch_idx == 0:
            place = f"{self._random_seed}/{self.current_epoch}/{self.global_rank}"
            torch.manual_seed(random.Random(place).getrandbits(63))

    def training_step(self, batch: Data, batch_idx: int) -> dict[str, Tensor]:
        self._watch.check()
        video = batch.video
        if self.recipe.augment == "reverse":
            backwards = torch.rand(len(video), device=video.device) < 0.5
            video = torch.where(backwards.view(-1, 1, 1, 1, 1), video.flip(2), video)
        logits = self(video).float()
        losses = clip_loss(logits, batch.y, batch.get("binary"))
        # Gradients are averaged over the processes.
        loss = losses.sum() * self.trainer.world_size if self.recipe.loss == "sum" else losses.mean()
        measured = torch.stack([loss.detach(), (logits.argmax(1) == batch.y).float().mean()])
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(measured)
            measured /= self.trainer.world_size
        self._watch.note(measured[0], self.global_step)
        self.log("loss", measured[0], batch_size=batch.num_graphs, logger=False)
        self.log("accuracy", measured[1], batch_size=batch.num_graphs, logger=False)
        return {"loss": loss * self._weight_in_step(batch_idx, len(losses)), "measured": measured}

    def _weight_in_step(self, batch_idx: int, clips: int) -> float:
        """By what a batch's loss is multiplied, so that the trainer's mean over the batches of a step becomes the mean,
        or the sum, over their clips."""
        batches = self.trainer.accumulate_grad_batches
        if batches == 1 or self.recipe.loss == "sum":
            return float(batches)
        world_size, batch_size = self.trainer.world_size, self.recipe.batch_size
        full, rest = divmod(len(self.recipe.chunk_clips(self.current_epoch)), batch_size)
        own_size = batch_size // world_size
        own_clips = full * own_size + rest // world_size
        first = batch_idx // batches * batches
        return batches * clips / min(batches * own_size, own_clips - first * own_size)

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

    def validation_step(self, batch: Data, batch_idx: int) -> None:
        self._count(batch, batch_idx, "val")

    def test_step(self, batch: Data, batch_idx: int) -> None:
        self._count(batch, batch_idx, "test")

    def on_validation_epoch_end(self) -> None:
        self._log_accuracy("val")

    def on_test_epoch_end(self) -> None:
        confusion, top5 = self._log_accuracy("test")
        self.confusion, self.top5 = confusion.cpu(), float(top5)

    def _count(self, batch: Data, batch_idx: int, stage: str) -> None:
        logits = torch.cat([self(part).float() for part in batch.video.split(self.recipe.batch_size)])
        logits, label = average_views(logits, len(logits) // len(batch.y)), batch.y
        if "valid" in batch:
            logits, label = logits[batch.valid], label[batch.valid]
        if (label < 0).any():
            raise ValueError("expected labels to count answers by, got -1: the test split is published without")
        if batch_idx == 0:
            classes = logits.size(1)
            top5 = MulticlassAccuracy(classes, min(5, classes), average="micro", validate_args=False)
            confusion = MulticlassConfusionMatrix(classes, validate_args=False)
            self._answers = confusion.to(logits.device), top5.to(logits.device)
        # torchmetrics takes no empty batches.
        for answers in self._answers if len(label) else ():
            answers.update(logits, label)
        losses = torch.nn.functional.cross_entropy(logits, label, reduction="none")
        loss = losses.sum() / max(1, len(losses))
        self.log(f"{stage}_loss", loss, batch_size=len(losses), on_epoch=True, sync_dist=True, logger=self._logs)

    def _log_accuracy(self, stage: str) -> tuple[Tensor, Tensor]:
        """Log the share of right answers of all processes; return clips by label and answer, and the share of clips
        whose label is among the five likeliest classes."""
        confusion, top5 = (answers.compute() for answers in self._answers)
        if not confusion.any():
            raise ValueError("expected at least one clip that can be read, got none")
        self.log(f"{stage}_accuracy", confusion.trace() / confusion.sum(), logger=self._logs)
        return confusion, top5

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
    finite = {name: value.isfinite().all() for name, value in module.state_dict().items() if value.is_floating_point()}
    # One look at the accelerator for all.
    fine = torch.stack(list(finite.values())).tolist() if finite else []
    wrong = [name for name, each in zip(finite, fine, strict=True) if not each]
    if wrong:
        raise DivergenceError(
            f"expected finite weights, got others in {len(wrong)} tensor(s) after step {step - 1}, first in "
            f"{wrong[0]}: {advice}"
        )
