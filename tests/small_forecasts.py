"""A small task of forecasts on a graph."""

import torch
from torch_geometric.data import Data

from rstg_pyg.models import GraphNetwork
from rstg_pyg.temporal import Windows, slice_frames
from rstg_pyg.training import ForecastTask, SequenceRecipe

T, H = 4, 2
NETWORK = GraphNetwork(in_channels=1, history=T, horizon=H, channels=8, num_stages=1, heads=2, dropout=0.3)
RECIPE = SequenceRecipe(96, batch_size=8, chunk=24, lr=1e-2)


def make_task(recipe=RECIPE, network=NETWORK, **options):
    """Waves that run along a line of nodes, some of which are absent at times."""
    generator = torch.Generator().manual_seed(0)
    wave = (torch.arange(60)[None, :, None] * 0.7 - torch.arange(5)[:, None, None]).sin()
    mask = torch.rand(5, 60, generator=generator) < 0.9
    series = Data(
        x=torch.where(mask[..., None], wave, torch.nan), edge_index=torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    )
    series.mask = mask
    parts = [Windows(slice_frames(series, *ends), T, H) for ends in ((0, 36), (36, 48), (48, 60))]
    return ForecastTask("waves", "Waves", "made", network, recipe, *parts, **options)
