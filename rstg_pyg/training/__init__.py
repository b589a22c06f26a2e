"""Training clip classifiers and forecasters on graphs with Lightning (install the ``examples`` extra)."""

from rstg_pyg.training.checkpoint import chunk_checkpoint, read_checkpoint
from rstg_pyg.training.classifier import ClipClassifier
from rstg_pyg.training.data import Curriculum, RunData, SyncMNISTData
from rstg_pyg.training.forecast import SequenceForecaster, SequenceRecipe, forecast_errors
from rstg_pyg.training.forecast_data import ForecastTask, SequenceData
from rstg_pyg.training.metrics import ClipMetrics, ClipProgress, run_loggers
from rstg_pyg.training.module import DivergenceError, RunModule
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
    "ForecastTask",
    "MuonAdamW",
    "Phase",
    "Recipe",
    "RunData",
    "RunModule",
    "RunRecipe",
    "RunResult",
    "SequenceData",
    "SequenceForecaster",
    "SequenceRecipe",
    "SyncMNISTData",
    "VideoData",
    "VideoRecipe",
    "chunk_checkpoint",
    "evaluate",
    "forecast_errors",
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
