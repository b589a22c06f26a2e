"""Pictures of trajectories: what they are given is what they show."""

import pytest
import torch
from torch_geometric.data import Data

from rstg_pyg import RSTG
from rstg_pyg.datasets import Pedestrians
from rstg_pyg.models import Forecaster, MotionForecaster
from rstg_pyg.visualize import draw_trajectories, explain_forecast
from rstg_pyg.visualize.trajectories import LEAST_SHOWN


@pytest.fixture(scope="module")
def shown():
    options = {"out_channels": 2, "edge_dim": 6, "from_last": False, "num_stages": 1, "heads": 2}
    model = MotionForecaster(Forecaster(5, 12, 8, **options), 12)
    model.forecaster.lin_out.reset_parameters()
    window = Pedestrians("no/such/folder", "eth", "test", source="simulated")[3]
    return model, explain_forecast(model, window)


def test_an_explanation_is_what_the_model_says(shown):
    model, explanation = shown
    window = explanation.window
    given = {"edge_time": window.edge_time, "mask": window.mask}
    assert model.training
    torch.testing.assert_close(model(window.x, window.edge_index, **given), explanation.prediction)
    total = torch.zeros(window.num_nodes, 8).index_put(
        (window.edge_index[1], window.edge_time), explanation.alpha, accumulate=True
    )
    hears = total > 0
    torch.testing.assert_close(total[hears], torch.ones_like(total[hears]))
    silent = MotionForecaster(Forecaster(5, 12, 8, out_channels=2, from_last=False, stages="time-only"), 12)
    assert explain_forecast(silent, window).alpha is None


def test_a_panel_has_a_dot_for_everyone_and_an_arrow_for_every_edge_of_the_last_frame(shown):
    _, explanation = shown
    window = explanation.window
    figure = draw_trajectories([explanation, explanation], ["one", "two"], "both")
    assert {"one", "two", "both", "predicted"} <= {text.get_text() for text in figure.texts}
    ax = figure.axes[0]
    (dots,) = [part for part in ax.collections if len(part.get_offsets()) > 1 and not hasattr(part, "get_segments")]
    assert len(dots.get_offsets()) == window.mask[:, -1].sum()
    now = (window.edge_time == 7) & (explanation.alpha >= LEAST_SHOWN)
    assert len([text for text in ax.texts if text.get_text() == ""]) == now.sum() > 0
    came = [part for part in ax.collections if hasattr(part, "get_segments")][1]
    steps = torch.cat([window.mask[:, -1:], window.y_mask], 1)
    assert len(came.get_segments()) == (steps[:, :-1] & steps[:, 1:]).sum()


def test_a_window_without_masks_has_everyone_in_every_frame():
    window = Data(x=torch.rand(3, 4, 2), y=torch.rand(3, 2, 2), edge_index=torch.tensor([[0, 1], [1, 0]]))
    window.edge_time = torch.tensor([3, 3])

    class Asks(torch.nn.Module):
        """Looks at its own attention, as the drawing does."""

        def __init__(self):
            super().__init__()
            self.rstg = RSTG(2)

        def forward(self, x, edge_index, edge_attr, pe, **given):
            out, _, stages = self.rstg(x, edge_index, edge_attr, pe, return_attention_weights=True, **given)
            self.alpha = stages[-1][1].mean(-1)
            return out[:, -2:]

    model = Asks()
    explanation = explain_forecast(model, window)
    torch.testing.assert_close(explanation.alpha, model.alpha)
    seen, came, _ = draw_trajectories([explanation]).axes[0].collections[:3]
    assert (len(seen.get_segments()), len(came.get_segments())) == (9, 6)
    assert "mask" not in window and "mask" not in explanation.window


def test_bad_input(shown):
    with pytest.raises(ValueError, match="windows, and a name for each, got 0 and None"):
        draw_trajectories([])
    with pytest.raises(ValueError, match="a name for each, got 1 and "):
        draw_trajectories([shown[1]], ["a", "b"])
