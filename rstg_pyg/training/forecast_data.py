"""The sequences of a run on graphs, and a task: data, networks, recipe and errors that go together."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch.nn import Module
from torch.utils.data import Dataset
from torch_geometric.data import Batch, Data

from rstg_pyg.models.graph_rows import GRAPH_ROWS, GraphNetwork, GraphRow, build_graph_row
from rstg_pyg.training.data import RunData
from rstg_pyg.training.forecast import Measure, SequenceForecaster, SequenceRecipe
from rstg_pyg.training.weights import CheckpointError


class SequenceBatches(Dataset):
    """A dataset whose items are batches: ranges of sequences, as PyG's ``DataLoader`` would collate them.

    Args:
        sequences: A dataset of ``Data``.
        seed: Of the order in every epoch, see :class:`SequenceData`; None for the order of the dataset.
    """

    def __init__(self, sequences: Dataset, seed: int | None = None) -> None:
        self.sequences, self.seed = sequences, seed

    def __getitem__(self, index: range) -> Batch:
        count = len(self.sequences)
        numbers = index if self.seed is None else [_order(self.seed, i // count, count)[i % count] for i in index]
        return Batch.from_data_list([self.sequences[i] for i in numbers])


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    generator = torch.Generator().manual_seed(random.Random(f"{seed}/{epoch}").getrandbits(63))
    return torch.randperm(count, generator=generator).tolist()


class SequenceData(RunData):
    r"""Training, validation and test sequences of a :class:`SequenceRecipe`, see :class:`~rstg_pyg.training.RunData`
    for how they are cut into chunks and shared out among processes.

    The recipe's clips are epochs over the training sequences, one after the other, each in an order that follows from
    the seed and its number.

    Args:
        recipe: What to train on.
        train, val, test: Datasets of PyG ``Data`` with ``x``, ``edge_index`` and ``y``, as
            :class:`~rstg_pyg.temporal.Windows` are, which batch together.
        seed: Of the order.
        num_workers: Processes that make batches.

    Raises:
        ValueError: If a dataset is empty or has fewer sequences than the recipe wants.
        CheckpointError: By ``fit``, if a run is to go on with another number of sequences; it is a ValueError.

    Example:
        >>> import torch
        >>> from rstg_pyg.temporal import Windows
        >>> from rstg_pyg.training import SequenceData, SequenceRecipe
        >>> series = Data(x=torch.randn(4, 30, 2), edge_index=torch.tensor([[0, 1], [1, 2]]))
        >>> windows = Windows(series, history=5, horizon=3)
        >>> data = SequenceData(SequenceRecipe(100, batch_size=10), windows, windows, windows)
        >>> next(iter(data.train_dataloader())).x.shape
        torch.Size([40, 5, 2])
    """

    def __init__(
        self,
        recipe: SequenceRecipe,
        train: Dataset,
        val: Dataset,
        test: Dataset,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(recipe, num_workers)
        self.train, self.val, self.test, self.seed = train, val, test, seed
        for name, wanted in (("train", 1), ("val", recipe.val_clips or 1), ("test", recipe.test_clips or 1)):
            if len(getattr(self, name)) < wanted:
                raise ValueError(f"expected {name!r} to hold at least {wanted}, got {len(getattr(self, name))}")

    def training(self) -> SequenceBatches:
        return SequenceBatches(self.train, self.seed)

    def validation(self) -> tuple[SequenceBatches, range]:
        return SequenceBatches(self.val), range(self.recipe.val_clips or len(self.val))

    def testing(self) -> tuple[SequenceBatches, int, int]:
        return SequenceBatches(self.test), self.recipe.test_clips or len(self.test), self.recipe.batch_size

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint says of the training sequences."""
        return {"sequences": len(self.train)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raise :class:`CheckpointError` unless a checkpoint is of as many training sequences."""
        if state_dict != self.state_dict():
            raise CheckpointError(
                f"expected the {state_dict['sequences']:,} training sequences that the run began with, got "
                f"{len(self.train):,}"
            )


@dataclass(frozen=True)
class ForecastTask:
    r"""A question to forecasters: all that two rows of a table have in common.

    Args:
        name: What files and folders call it, as ``"traffic"``, or of several parts each, as ``"pedestrians-eth"``.
        title: What a table calls it.
        source: Where its data come from, in words; a run goes on with the same alone.
        network: Sizes and options of all rows.
        recipe: How every row is trained.
        train, val, test: See :class:`SequenceData`.
        measure, augment: See :class:`SequenceForecaster`.
        around: Puts a row's model within another one, as :class:`~rstg_pyg.models.MotionForecaster`.
        naive: Gives the errors on the test data of forecasts that nothing was trained for, by the name of the row.
        rows: The networks by name: those of all tasks, and what this one has beside them.

    Example:
        >>> from rstg_pyg.models import GraphNetwork
        >>> from rstg_pyg.temporal import Windows
        >>> from rstg_pyg.training import ForecastTask, SequenceRecipe
        >>> series = Data(x=torch.randn(4, 30, 2), edge_index=torch.tensor([[0, 1], [1, 2]]))
        >>> windows = Windows(series, history=5, horizon=3)
        >>> network = GraphNetwork(in_channels=2, history=5, horizon=3, channels=8)
        >>> recipe = SequenceRecipe(100, batch_size=10)
        >>> task = ForecastTask("noise", "Noise", "random", network, recipe, windows, windows, windows)
        >>> task.module("all-temp-stages").config["row"]
        'all-temp-stages'
    """

    name: str
    title: str
    source: str
    network: GraphNetwork
    recipe: SequenceRecipe
    train: Dataset = field(repr=False)
    val: Dataset = field(repr=False)
    test: Dataset = field(repr=False)
    measure: Measure | None = None
    augment: Callable[[Data], Data] | None = None
    around: Callable[[Module], Module] | None = None
    naive: Callable[[], Mapping[str, Mapping[str, float]]] = dict
    rows: Mapping[str, GraphRow] = field(default_factory=lambda: GRAPH_ROWS, repr=False)

    def data(self, seed: int = 0, num_workers: int = 0) -> SequenceData:
        """Return the sequences of a run."""
        return SequenceData(self.recipe, self.train, self.val, self.test, seed, num_workers)

    def module(self, row: str, seed: int = 0) -> SequenceForecaster:
        """Return a row with new weights, which are torch's random numbers, and the settings of its run.

        Raises:
            ValueError: If no row has that name.
        """
        config = {"task": self.name, "source": self.source, "row": row, "seed": seed, "network": asdict(self.network)}
        model = build_graph_row(row, self.network, self.rows)
        model = model if self.around is None else self.around(model)
        return SequenceForecaster(model, self.recipe, config, self.measure, self.augment)
