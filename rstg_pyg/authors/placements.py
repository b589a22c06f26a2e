"""The names of the program's variables, and where each goes: tables of whole modules."""

from rstg_pyg.authors.block import AuthorsRSTG
from rstg_pyg.authors.block_names import block_placements
from rstg_pyg.authors.network import AuthorsSyncMNISTNet
from rstg_pyg.authors.placement import Placements, convolution_placements, linear_placements
from rstg_pyg.authors.video_names import video_placements
from rstg_pyg.authors.video_network import AuthorsVideoNet


def placements(
    module: AuthorsRSTG | AuthorsSyncMNISTNet | AuthorsVideoNet,
    scope: str = "tower",
    graph: str = "whole_graph_model_final",
) -> Placements:
    """List the placements of a block or network, by variable name.

    Args:
        module: block or network.
        scope: what all names start with.
        graph: name of the block's own scope in it; a video network has its own names for its blocks.

    Raises:
        TypeError: for another module.

    Source: variable names of the program, IuliaDuta/RSTG at 788a7a3.

    Example:
        >>> table = placements(AuthorsRSTG(16))
        >>> table["tower/whole_graph_model_final/my_attn/att_conv1/kernel"].shape
        (1, 16, 1)
    """
    root = scope + "/" if scope else ""
    if isinstance(module, AuthorsRSTG):
        return block_placements(module, f"{root}{graph}/", f"{root}positional_emb")
    if isinstance(module, AuthorsVideoNet):
        return video_placements(module, root)
    if not isinstance(module, AuthorsSyncMNISTNet):
        raise TypeError(
            f"expected an AuthorsRSTG, an AuthorsSyncMNISTNet or an AuthorsVideoNet, got {type(module).__name__}"
        )
    table = block_placements(module.graph, f"{root}{graph}/", f"{root}positional_emb", "graph.")
    for index, convolution in enumerate(module.backbone[::3]):
        table |= convolution_placements(f"{root}conv{index}/conv2d", f"backbone.{3 * index}", convolution)
    return table | linear_placements(f"{root}pred", "classifier", module.classifier, ones=3)
