"""A trained network, tested without a run around it."""

from __future__ import annotations

import lightning

from rstg_pyg.arguments import check_choice
from rstg_pyg.training.chunk_stream import ChunkStream
from rstg_pyg.training.classifier import ClipClassifier
from rstg_pyg.training.run import PRECISIONS, RunResult, uses_cuda


def evaluate(module: ClipClassifier, clips: ChunkStream, device: str = "auto", precision: str = "32-true") -> RunResult:
    """Test a classifier by its weights as they are, in this process; nothing is written.

    Args:
        module: The classifier.
        clips: Its clips.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for CUDA where there is a device.
        precision: ``"32-true"`` or ``"bf16-mixed"``.

    Raises:
        ValueError: If an argument is out of its range or there is no CUDA device where one is asked for.

    Example:
        >>> from rstg_pyg.models import build_row
        >>> from rstg_pyg.training import ClipClassifier, ClipStream, Phase, Recipe, evaluate
        >>> recipe = Recipe((Phase(32, 2),), batch_size=16, test_clips=4, val_clips=4)
        >>> module, clips = ClipClassifier(build_row("mean-lstm"), recipe), ClipStream("data", recipe, digits="sklearn")
        >>> int(evaluate(module, clips, "cpu").confusion.sum())
        4
    """
    check_choice("precision", precision, PRECISIONS)
    trainer = lightning.Trainer(
        accelerator="cuda" if uses_cuda(device) else "cpu",
        devices=1,
        precision=precision,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    (tested,) = trainer.test(module, clips, verbose=False)
    return RunResult(0, 0.0, True, tested["test_accuracy"], confusion=module.confusion, top5_accuracy=module.top5)
