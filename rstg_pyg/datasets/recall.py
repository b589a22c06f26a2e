"""Something to remember, on any graph: a symbol that one node saw first is what another node has to say last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad
from torch_geometric.data import Data, Dataset

from rstg_pyg.arguments import check_flags, check_index, check_positive, whole_number
from rstg_pyg.datasets.random_numbers import RandomNumbers
from rstg_pyg.temporal.series import check_edge_index

SERIES = {True: 0x726563616C6C, False: 0x6C6C61636572}
"""Second word of the random numbers' key: training and test clips share no random number."""


class RecallClips(NamedTuple):
    """B clips on one graph, as :class:`~rstg_pyg.RSTG` takes them.

    Attributes:
        x: What nodes see, ``[N, B, T, S + 2]``.
        y: The symbol to say, ``[B]``.
        asked: The node that has to say it, ``[B]``.
    """

    x: Tensor
    y: Tensor
    asked: Tensor


class DelayedRecall(Dataset):
    r"""What one node saw at time 0, another one, some edges away, must say some frames later.

    In every frame every node sees a random symbol. In frame 0 one node, the source, sees a first cue beside it: this
    symbol counts. In the last frame another node, which the source reaches over ``distance`` edges and no fewer, sees a
    second cue: it has to name that symbol. All other symbols distract. So a network has to carry a symbol through space
    and time, and a guess is right once in ``num_symbols``.

    Clip i is a function of the seed, the split, the graph, ``distance`` and i. Clips of different ``delay`` agree in
    what their common frames show, but for the second cue. They are made on the CPU.

    Args:
        edge_index: The edges of the graph.
        distance: Edges d on the shortest path from the source to the node that is asked; 0 asks the source.
        delay: Frames G from the symbol to the question.
        num_symbols: Number S of symbols.
        num_nodes: Number N of nodes (default: up to the largest in ``edge_index``).
        num_clips: Number of clips.
        train: Take the training split; else the test split.
        seed: The seed, 0 to 2^64 - 1.

    Shapes:
        - **edge_index:** ``[2, E]``.
        - **item.x:** ``[N, T, S + 2]`` with T = G + 1: the symbol, one-hot, and the two cues.
        - **item.y:** ``[1]``, the symbol, 0 to S - 1. **item.asked:** ``[N]`` bool, True at the node that has to say
          it.

    Raises:
        ValueError: If an argument is out of its range, or no two nodes are so far apart.

    Example:
        >>> from torch_geometric.loader import DataLoader
        >>> path = torch.tensor([[0, 1, 2, 1, 2, 3], [1, 2, 3, 0, 1, 2]])
        >>> dataset = DelayedRecall(path, distance=2, delay=10)
        >>> dataset[0]
        Data(x=[4, 11, 6], edge_index=[2, 6], y=[1], asked=[4])
        >>> batch = next(iter(DataLoader(dataset, batch_size=8)))
        >>> batch.x[batch.asked].shape, batch.y.shape
        (torch.Size([8, 11, 6]), torch.Size([8]))
        >>> dataset.clips(range(8)).x.shape
        torch.Size([4, 8, 11, 6])
    """

    def __init__(
        self,
        edge_index: Tensor,
        distance: int = 1,
        delay: int = 0,
        num_symbols: int = 4,
        num_nodes: int | None = None,
        num_clips: int = 10_000,
        train: bool = True,
        seed: int = 0,
    ) -> None:
        check_flags(train=train)
        if edge_index is None:
            raise ValueError("expected integer 'edge_index' of shape [2, num_edges], got None")
        if num_nodes is None and isinstance(edge_index, Tensor) and edge_index.numel() > 0:
            num_nodes = int(edge_index.max()) + 1
        check_positive(num_nodes=num_nodes, num_clips=num_clips)
        check_edge_index(edge_index, num_nodes)
        self.edge_index = edge_index.cpu()
        self.num_nodes = num_nodes
        self.distance = whole_number("distance", distance, 0)
        self.delay = whole_number("delay", delay, 0)
        self.num_symbols = whole_number("num_symbols", num_symbols, 2)
        self.num_clips = num_clips
        self._pairs = pairs_at_distance(self.edge_index, num_nodes, self.distance)
        if len(self._pairs) == 0:
            raise ValueError(f"expected 'distance' of two nodes of the graph, got {distance}: none are so far apart")
        self._uniforms = RandomNumbers(whole_number("seed", seed, 0, 2**64 - 1), SERIES[train], "cpu")
        super().__init__()

    def clips(self, numbers: Tensor | Sequence[int]) -> RecallClips:
        """Make the clips with the given numbers at once, for a network that takes many clips on one graph.

        Raises:
            IndexError: If there is no such clip.
        """
        if not isinstance(numbers, Tensor):
            numbers = torch.tensor(list(numbers), device="cpu")
        check_index("clip", numbers, self.num_clips)
        numbers, num_frames = numbers.cpu() % self.num_clips, self.delay + 1
        chance, shown = self._uniforms(numbers, 1 + num_frames * self.num_nodes).tensor_split([1], 1)
        source, asked = self._pairs[(chance[:, 0] * len(self._pairs)).long()].unbind(1)
        symbols = (shown * self.num_symbols).long().view(-1, num_frames, self.num_nodes).permute(2, 0, 1)
        x = pad(one_hot(symbols, self.num_symbols).float(), (0, 2))
        clip = torch.arange(len(numbers), device="cpu")
        x[source, clip, 0, -2] = 1
        x[asked, clip, -1, -1] = 1
        return RecallClips(x, symbols[source, clip, 0], asked)

    def len(self) -> int:
        """The number of clips."""
        return self.num_clips

    def get(self, idx: int) -> Data:
        """Make clip number ``idx``."""
        x, y, asked = self.clips([idx])
        return Data(
            x=x[:, 0], edge_index=self.edge_index, y=y, asked=torch.arange(self.num_nodes, device="cpu") == asked
        )


def pairs_at_distance(edge_index: Tensor, num_nodes: int, distance: int) -> Tensor:
    """All pairs (source, destination) whose shortest path has ``distance`` edges, ``[P, 2]``.

    Example:
        >>> pairs_at_distance(torch.tensor([[0, 1], [1, 2]]), 3, 2)
        tensor([[0, 2]])
    """
    adjacency = edge_index.new_zeros(num_nodes, num_nodes, dtype=torch.float)
    adjacency[edge_index[0], edge_index[1]] = 1
    reached = newest = torch.eye(num_nodes, dtype=torch.bool, device=edge_index.device)
    for _ in range(distance):
        newest = (newest.float() @ adjacency > 0) & ~reached
        reached = reached | newest
    return newest.nonzero()
