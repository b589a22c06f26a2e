"""Pictures of what a recurrent space-time graph looks at and of how well it does (install the ``examples`` extra for
matplotlib). :func:`explain_clips` runs a model and returns what the pictures of clips need.
"""

from rstg_pyg.visualize.animation import animate_clips
from rstg_pyg.visualize.changing_graph import animate_graph
from rstg_pyg.visualize.clips import draw_clips
from rstg_pyg.visualize.explanation import ClipExplanation, explain_clips
from rstg_pyg.visualize.forecasts import draw_forecasts, draw_node_errors, place_nodes
from rstg_pyg.visualize.learning_curves import draw_learning_curves
from rstg_pyg.visualize.pairs import PairAccuracy, digits_in_step, draw_pair_accuracy, pair_accuracy, pair_names
from rstg_pyg.visualize.regions import draw_attention, draw_graph, draw_regions, scale_colours
from rstg_pyg.visualize.sheet import COLOURS
from rstg_pyg.visualize.trajectories import ForecastExplanation, draw_trajectories, explain_forecast

__all__ = [
    "COLOURS",
    "ClipExplanation",
    "ForecastExplanation",
    "PairAccuracy",
    "animate_clips",
    "animate_graph",
    "digits_in_step",
    "draw_attention",
    "draw_clips",
    "draw_forecasts",
    "draw_graph",
    "draw_learning_curves",
    "draw_node_errors",
    "draw_pair_accuracy",
    "draw_regions",
    "draw_trajectories",
    "explain_clips",
    "explain_forecast",
    "pair_accuracy",
    "pair_names",
    "place_nodes",
    "scale_colours",
]
