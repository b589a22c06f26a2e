"""A clip classifier under Lightning's trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from rstg_pyg.datasets.scenes import NO_SYNC
from rstg_pyg.datasets.video.sampling import average_views
from rstg_pyg.models.video_classifier import weight_dtype
from rstg_pyg.training.module import RunModule
from rstg_pyg.training.recipe import RunRecipe


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


class ClipClassifier(RunModule):
    r"""Train a module from video to logits by cross-entropy, as a :class:`Recipe` or :class:`VideoRecipe` says.

    .. math::
        \mathcal{L} = \frac{1}{B} \sum_b -\log \mathrm{softmax}(\mathrm{model}(\mathrm{video}_b))_{y_b}
        \qquad \text{(or the sum over b)}

    With ``accumulate`` batches per step of the optimiser, b runs over the clips of all of them.

    In validation and tests, a batch may hold several views of every video, which are shown to the model
    ``batch_size`` at a time and whose logits are averaged, and videos that could not be read, which do not count.

    How it is stopped, resumed and ended where it diverges, see :class:`RunModule`.

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
        As :class:`RunModule`, and:
        ValueError: By validation and tests, if no video counts.

    Source: SyncMNIST and its training in arXiv:1904.05582 (NeurIPS 2019); the curriculum is this package's.

    Example:
        >>> import torch
        >>> from rstg_pyg import FrameCNN, RSTGToVec, VideoClassifier
        >>> from rstg_pyg.training import ClipClassifier, Phase, Recipe
        >>> net = VideoClassifier(FrameCNN(1, (8,)), RSTGToVec(8, scales=(2, 1)), num_classes=46)
        >>> ClipClassifier(net, Recipe((Phase(100),)))(torch.rand(2, 1, 3, 16, 16)).shape
        torch.Size([2, 46])
    """

    measures = ("accuracy",)

    def __init__(self, model: torch.nn.Module, recipe: RunRecipe, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(model, recipe, config)
        self.confusion: Tensor | None = None
        """Test clips by label and answer, ``[M, M]``, once there was a test."""
        self.top5: float | None = None
        """Share of test clips whose label is among the five likeliest classes."""

    def forward(self, video: Tensor) -> Tensor:
        return self.model(video.to(weight_dtype(self.model)) if self.recipe.raw_pixels else video)

    def step_loss(self, batch: Data, batch_idx: int) -> tuple[Tensor, Tensor]:
        video = batch.video
        if self.recipe.augment == "reverse":
            backwards = torch.rand(len(video), device=video.device) < 0.5
            video = torch.where(backwards.view(-1, 1, 1, 1, 1), video.flip(2), video)
        logits = self(video).float()
        losses = clip_loss(logits, batch.y, batch.get("binary"))
        # Gradients are averaged over the processes.
        loss = losses.sum() * self.trainer.world_size if self.recipe.loss == "sum" else losses.mean()
        measured = torch.stack([loss.detach(), (logits.argmax(1) == batch.y).float().mean()])
        return loss * self._weight_in_step(batch_idx, len(losses)), measured

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
