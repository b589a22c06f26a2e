"""The names of the variables of the program's video networks, and where each goes."""

from rstg_pyg.authors.block_names import block_placements
from rstg_pyg.authors.graph_branch import GraphBranch
from rstg_pyg.authors.placement import Placements, copy_placement, linear_placements
from rstg_pyg.authors.resnet_names import resnet_placements
from rstg_pyg.authors.video_network import FINAL, AuthorsVideoNet


def video_placements(net: AuthorsVideoNet, root: str = "tower/") -> Placements:
    """List the placements of a video network, by variable name.

    Args:
        net: the network.
        root: what all names start with, with its last slash.

    Source: variable names of the program, IuliaDuta/RSTG at 788a7a3.

    Example:
        >>> table = video_placements(AuthorsVideoNet("i3d", ("res3", "res4"), width=8))
        >>> table["tower/resnet_i3d/backbone/whole_graph_model_res4/project_i3d/kernel"].shape
        (128, 64)
    """
    network = f"{root}resnet_{net.form}/"
    table = resnet_placements(net, f"{network}backbone/")
    for place in net.places:
        # The program opens the scope of a block in the backbone's where the block stands inside it.
        scopes = [network] if place == FINAL else [f"{network}backbone/", network]
        # Its two networks name the norm after a block differently.
        norms = [f"{place}_after_graph_ln"]
        if net.form == "c2d" and len(net.places) == 1:
            norms.insert(0, "after_graph_ln")
        for scope in scopes:
            prefix, branch = net.branch(place)
            graph = f"{scope}whole_graph_model_{place}/"
            table |= block_placements(branch.graph, graph, f"{root}positional_emb", f"{prefix}.graph.")
            for norm in norms:
                table |= _after_graph(f"{scope}{norm}", f"{prefix}.norm", branch)
    return table | linear_placements(f"{network}pred", "classifier", net.classifier, ones=3)


def _after_graph(scope: str, name: str, branch: GraphBranch) -> Placements:
    shape = tuple(branch.norm.scale.shape)
    return {
        f"{scope}/beta": copy_placement(f"{name}.bias", shape),
        f"{scope}_scale": copy_placement(f"{name}.scale", shape),
    }
