"""Training clip classifiers with Lightning (install the ``examples`` extra)."""

from rstg_pyg.training.checkpoint import chunk_checkpoint, read_checkpoint
from rstg_pyg.training.chunk_stream import ChunkStream
from rstg_pyg.training.classifier import ClipClassifier
from rstg_pyg.training.clip_stream import ClipStream, Curriculum
from rstg_pyg.training.evaluate import evaluate
from rstg_pyg.training.finite import DivergenceError
from rstg_pyg.training.metrics import ClipMetrics, run_loggers
from rstg_pyg.training.optimizer import MuonAdamW, graph_matrices, hidden_matrices
from rstg_pyg.training.presets import full_recipe, paper_recipe, small_recipe
from rstg_pyg.training.progress import ClipProgress
from rstg_pyg.training.recipe import Phase, Recipe
from rstg_pyg.training.run import RunResult, open_run, run_trainer, train_and_test
from rstg_pyg.training.run_recipe import RunRecipe
from rstg_pyg.training.torch_file import CheckpointError
from rstg_pyg.training.video_presets import full_video_recipe, small_video_recipe
from rstg_pyg.training.video_recipe import VideoRecipe
from rstg_pyg.training.video_stream import VideoStream
from rstg_pyg.training.weights import load_model_weights, save_weights

__all__ = [
    "CheckpointError",
    "ChunkStream",
    "ClipClassifier",
    "ClipMetrics",
    "ClipProgress",
    "ClipStream",
    "Curriculum",
    "DivergenceError",
    "MuonAdamW",
    "Phase",
    "Recipe",
    "RunRecipe",
    "RunResult",
    "VideoRecipe",
    "VideoStream",
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
