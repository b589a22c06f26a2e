"""Pictures of what a recurrent space-time graph looks at and of how well it does (install the ``examples`` extra for
matplotlib). :func:`explain_clips` runs a model and returns what the pictures of clips need.
"""

from rstg_pyg.visualize.animation import animate_clips
from rstg_pyg.visualize.attention import draw_attention
from rstg_pyg.visualize.clips import draw_clips
from rstg_pyg.visualize.explanation import ClipExplanation, explain_clips
from rstg_pyg.visualize.graph import draw_graph
from rstg_pyg.visualize.learning_curves import draw_learning_curves
from rstg_pyg.visualize.pair_counting import PairAccuracy, pair_accuracy
from rstg_pyg.visualize.pair_matrix import draw_pair_accuracy
from rstg_pyg.visualize.palette import COLOURS
from rstg_pyg.visualize.regions import draw_regions, scale_colours
from rstg_pyg.visualize.syncmnist import digits_in_step, pair_names

__all__ = [
    "COLOURS",
    "ClipExplanation",
    "PairAccuracy",
    "animate_clips",
    "digits_in_step",
    "draw_attention",
    "draw_clips",
    "draw_graph",
    "draw_learning_curves",
    "draw_pair_accuracy",
    "draw_regions",
    "explain_clips",
    "pair_accuracy",
    "pair_names",
    "scale_colours",
]
