"""The space stage as layers of PyG's GraphGym: after ``import rstg_pyg.graphgym``, ``gnn.layer_type: rstgconv``, or
``rstgedgeconv`` with the edge features that ``dataset.edge_dim`` counts."""

from torch.nn import Module
from torch_geometric.data import Data
from torch_geometric.graphgym.models.layer import LayerConfig
from torch_geometric.graphgym.register import register_layer

from rstg_pyg.conv import RSTGConv


@register_layer("rstgconv")
class RSTGConvLayer(Module):
    r""":class:`~rstg_pyg.RSTGConv` on the node features of a batch.

    Args:
        layer_config: GraphGym's settings of a layer.
        **kwargs: What else GraphGym gives its layers; nothing of it is used.

    Example:
        >>> import torch
        >>> from torch_geometric.graphgym.models.layer import LayerConfig
        >>> from rstg_pyg.graphgym import RSTGConvLayer
        >>> layer = RSTGConvLayer(LayerConfig(dim_in=4, dim_out=8))
        >>> layer(Data(x=torch.randn(3, 4), edge_index=torch.tensor([[0, 1], [1, 2]]))).x.shape
        torch.Size([3, 8])
    """

    takes_edges = False

    def __init__(self, layer_config: LayerConfig, **kwargs: object) -> None:
        super().__init__()
        self.model = RSTGConv(
            layer_config.dim_in,
            layer_config.dim_out,
            bias=layer_config.has_bias,
            edge_dim=layer_config.edge_dim if self.takes_edges else None,
        )

    def forward(self, batch: Data) -> Data:
        batch.x = self.model(batch.x, batch.edge_index, batch.edge_attr if self.takes_edges else None)
        return batch


@register_layer("rstgedgeconv")
class RSTGEdgeConvLayer(RSTGConvLayer):
    """A :class:`RSTGConvLayer` that takes ``edge_attr`` too."""

    takes_edges = True
