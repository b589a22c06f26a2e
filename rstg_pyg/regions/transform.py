"""From a feature volume to a region graph sequence, as a PyG transform."""

from collections.abc import Sequence

import torch
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from rstg_pyg.arguments import describe, num_dims
from rstg_pyg.regions.cells import Scale
from rstg_pyg.regions.graph import region_graph
from rstg_pyg.regions.pooling import RegionPool


@functional_transform("to_region_graph")
class ToRegionGraph(BaseTransform):
    r"""Turn a :class:`~torch_geometric.data.Data` that holds a feature volume into a sequence on the region graph of
    "Recurrent Space-time Graph Neural Networks" (Nicolicioiu, Duta, Leordeanu, NeurIPS 2019,
    `arXiv:1904.05582 <https://arxiv.org/abs/1904.05582>`_).

    The nodes' features are region means, :class:`~rstg_pyg.RegionPool`, at every frame; the graph is
    :func:`~rstg_pyg.region_graph`. The stock PyG ``DataLoader`` then batches clips: nodes are concatenated and
    ``edge_index`` is offset. The volume is dropped unless ``keep_volume`` is set; everything else stays.

    Args:
        scales: Grids of regions, see :func:`~rstg_pyg.region_graph`.
        heatmap_size: Side of the position heatmaps.
        attr: Name of the attribute that holds the volume.
        keep_volume: Keep the volume beside the graph.

    Shapes:
        - **data[attr]:** ``[C, T, H, W]`` or ``[1, C, T, H, W]``; integers are cast to the default type,
          their values unchanged.
        - **output:** ``x: [N, T, C]`` beside the attributes of :func:`~rstg_pyg.region_graph`.

    Raises:
        ValueError: If the attribute is missing or is not such a volume.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from rstg_pyg import ToRegionGraph
        >>> ToRegionGraph((2, 1))(Data(video=torch.rand(3, 10, 64, 64), y=torch.tensor([4]))).x.shape
        torch.Size([5, 10, 3])
    """

    def __init__(
        self,
        scales: Sequence[Scale] = (3, 2, 1),
        heatmap_size: int = 6,
        attr: str = "video",
        keep_volume: bool = False,
    ) -> None:
        self.graph = region_graph(scales, heatmap_size)
        self.pool = RegionPool(scales)
        self.attr = attr
        self.keep_volume = keep_volume

    def forward(self, data: Data) -> Data:
        if not isinstance(data, Data):
            raise ValueError(f"expected a Data with a feature volume {self.attr!r}, got {describe(data)}")
        volume = data.get(self.attr)
        if volume is None:
            raise ValueError(f"expected a feature volume in data[{self.attr!r}], got a Data with {data.keys()}")
        shape = describe(volume)
        if num_dims(volume) == 5 and volume.size(0) == 1:
            volume = volume.squeeze(0)
        if num_dims(volume) != 4:
            raise ValueError(f"expected data[{self.attr!r}] of shape [C, T, H, W] or [1, C, T, H, W], got {shape}")
        if not volume.is_floating_point():
            volume = volume.to(torch.get_default_dtype())
        graph = self.graph.clone().to(volume.device)
        data.x = self.pool.to(volume.device)(volume.transpose(0, 1)).transpose(0, 1).contiguous()
        for key, value in graph:
            data[key] = value
        data.num_nodes = None
        if not self.keep_volume:
            del data[self.attr]
        return data

    def __repr__(self) -> str:
        return f"{type(self).__name__}(scales={self.pool.scales}, attr={self.attr!r})"
