"""Training clip classifiers with Lightning (install the ``examples`` extra)."""

from rstg_pyg.training.checkpoint import chunk_checkpoint, read_checkpoint
from rstg_pyg.training.classifier import ClipClassifier, DivergenceError
from rstg_pyg.training.data import Curriculum, RunData, SyncMNISTData
from rstg_pyg.training.metrics import ClipMetrics, ClipProgress, run_loggers
from rstg_pyg.training.optimizer import MuonAdamW, graph_matrices, hidden_matrices
from rstg_pyg.training.recipe import (
    Phase,
    Recipe,
    RunRecipe,
    VideoRecipe,
    full_recipe,
    full_video_recipe,
    paper_recipe,
    small_recipe,
    small_video_recipe,
)
from rstg_pyg.training.run import RunResult, evaluate, open_run, run_trainer, train_and_test
from rstg_pyg.training.video_data import VideoData
from rstg_pyg.training.weights import CheckpointError, load_model_weights, save_weights

__all__ = [
    "CheckpointError",
    "ClipClassifier",
    "ClipMetrics",
    "ClipProgress",
    "Curriculum",
    "DivergenceError",
    "MuonAdamW",
    "Phase",
    "Recipe",
    "RunData",
    "RunRecipe",
    "RunResult",
    "SyncMNISTData",
    "VideoData",
    "VideoRecipe",
    "chunk_checkpoint",
    "evaluate",
    "full_recipe",
    "full_video_recipe",
    "graph_matrices",
    "hidden_matrices",
    "load_model_weights",
    "open_run",
    "paper_recipe",
    "read_checkpoint",
    "run_loggers",
    "run_trainer",
    "save_weights",
    "small_recipe",
    "small_video_recipe",
    "train_and_test",
]
