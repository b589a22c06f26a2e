import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import BaseTransform, Compose

from rstg_pyg import RSTG, RegionPool, SyncMNIST, ToRegionGraph, region_graph


def test_it_makes_a_sequence_of_region_means():
    video = torch.randn(3, 4, 8, 10)
    data = ToRegionGraph((2, 1))(Data(video=video, y=torch.tensor([7])))
    assert data.x.shape == (5, 4, 3)
    for t in range(4):
        torch.testing.assert_close(data.x[:, t], RegionPool((2, 1))(video[:, t]))
    assert torch.equal(data.edge_index, region_graph((2, 1)).edge_index)
    assert data.num_nodes == 5
    assert "video" not in data
    assert data.y.item() == 7


def test_the_stock_loader_batches_clips():
    transform = Compose([ToRegionGraph((2, 1))])
    clips = [transform(Data(video=torch.randn(1, 3, 4, 8, 8), y=torch.tensor([i]))) for i in range(6)]
    batch = next(iter(DataLoader(clips, batch_size=6)))
    assert batch.x.shape == (30, 4, 3)
    assert batch.edge_index.shape == (2, 96)
    assert batch.heatmap.shape == (30, 36)
    assert batch.y.tolist() == list(range(6))
    torch.testing.assert_close(batch[3].x, clips[3].x)


def test_the_input_is_left_alone_and_the_volume_can_stay():
    data = Data(volume=torch.randint(0, 255, (1, 2, 4, 4), dtype=torch.uint8))
    out = ToRegionGraph((1,), attr="volume", keep_volume=True)(data)
    assert "x" not in data
    assert "volume" in out
    torch.testing.assert_close(out.x[0, :, 0], data.volume[0].float().mean((1, 2)))


def test_it_is_a_transform_of_pyg():
    assert isinstance(ToRegionGraph(), BaseTransform)
    assert repr(ToRegionGraph((2, 1))) == "ToRegionGraph(scales=((2, 2), (1, 1)), attr='video')"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(image=torch.randn(3, 4, 8, 8)), r"data\['video'\], got a Data with \['image'\]"),
        (Data(video=torch.randn(4, 8, 8)), r"\[C, T, H, W\] or \[1, C, T, H, W\], got \[4, 8, 8\]"),
        (Data(video=torch.randn(2, 3, 4, 8, 8)), r"got \[2, 3, 4, 8, 8\]"),
    ],
)
def test_it_refuses(data, message):
    with pytest.raises(ValueError, match=message):
        ToRegionGraph()(data)


def test_syncmnist_clips_become_region_graphs_on_the_way_into_the_loader(tmp_path):
    clips = SyncMNIST(tmp_path, num_digits=2, digits="sklearn", num_clips=4, size=32, transform=ToRegionGraph((2, 1)))
    batch = next(iter(DataLoader(clips, batch_size=4)))
    assert batch.x.shape == (20, 10, 1)
    assert batch.num_nodes == 20
    assert batch.edge_index.max() == 19
    assert batch.y.shape == (4,)
    out, _ = RSTG(1, num_stages=1, pe_channels=36)(batch.x, batch.edge_index, pe=batch.heatmap)
    assert out.shape == batch.x.shape
