"""The variant that follows the authors' program to the letter, for weights trained with it.

Everything else in this package follows the text of Nicolicioiu, Duta, Leordeanu, "Recurrent
Space-time Graph Neural Networks" (NeurIPS 2019, arXiv:1904.05582). The program beside it
(IuliaDuta/RSTG at revision 788a7a3, TensorFlow 1) computes something else in places; this subpackage
computes what the program does, and its tests hold it against arrays recorded from the program.
The departures, numbered as the docstrings here cite them:

1. SyncMNIST has a batch norm of the node input (epsilon 1e-3, 0.99 of the old statistics, unbiased
   running variance). A projection to the graph's own width comes after pooling.
2. None for the graph: cells that overlap or share a border are neighbours, no self-loops.
3. Positions are unnormalised Gaussian heatmaps of standard deviation 2 map cells at every scale,
   zero outside the node's cell; only messages see them.
4. Messages are computed between all N² pairs, a node and itself included, with a ReLU after both
   layers.
5. Attention: the adjacency multiplies the score, and for "additive" is added to it once more after
   the LeakyReLU. Both layers of the score have biases. Dot products are not scaled.
6. The softmax is not masked: a non-neighbour and the node itself have the logit 0 and pass on
   their messages.
7. Each of several heads has a query and a key from the whole node and a projection of the whole
   message; the heads are concatenated, and nothing follows.
8. The gathered sum gets a bias, a norm (with additive attention only) and a ReLU.
9. The update ends in a ReLU and a norm; no residual. MLPs per scale share the norm.
10. Layer norm takes its statistics over all axes but the batch, with epsilon 1e-12; batch norm is
    one layer used once per stage and frame, with statistics of its own each time.
11. Time stages stand in front of the space stages 0, 1 and 2 only, however many there are.
12. None for sharing: all frames and stages use the same weights, the last time stage its own.
13. The clip's vector is the mean over time, not the last time step. Where the graph has its own
    width, a linear layer takes the nodes back before either readout.
14. In a video network, a block inside a stage stands in front of the stage's last residual block.
15. Behind a block stands a layer norm over all axes but the batch (epsilon 1e-12), with a bias per
    channel and, over both, a gain per channel that starts at zero.
16. The ResNets have no padding in the first max-pooling and stride 1 in res5, which makes 14 x 14
    out of 224 x 224, and use batch norm with running statistics in training too.
17. Larger maps are averaged over windows of 14 x 14, which counts the middle more than the border.
"""

from rstg_pyg.authors.block import AuthorsRSTG, AuthorsToMap, AuthorsToVec
from rstg_pyg.authors.loading import LoadReport, fill, load_variables
from rstg_pyg.authors.names import Piece, Placement, block_placements, placements
from rstg_pyg.authors.networks import AuthorsSyncMNISTNet, AuthorsVideoNet
from rstg_pyg.authors.tf_checkpoint import load_tf_checkpoint, read_tf_checkpoint

__all__ = [
    "AuthorsRSTG",
    "AuthorsSyncMNISTNet",
    "AuthorsToMap",
    "AuthorsToVec",
    "AuthorsVideoNet",
    "LoadReport",
    "Piece",
    "Placement",
    "block_placements",
    "fill",
    "load_tf_checkpoint",
    "load_variables",
    "placements",
    "read_tf_checkpoint",
]
