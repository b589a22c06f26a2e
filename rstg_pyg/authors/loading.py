"""Weights of the authors' program into a module, strictly."""

import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from rstg_pyg.authors.block import AuthorsRSTG
from rstg_pyg.authors.names import Placements, placements
from rstg_pyg.authors.networks import AuthorsSyncMNISTNet, AuthorsVideoNet
from rstg_pyg.files import weight_fault


@dataclass(frozen=True)
class LoadReport:
    """What became of every variable that was loaded: placed or ignored. Loading raises where there is a third kind.

    Args:
        placed: By variable name, the entries of the module's ``state_dict`` that it filled.
        ignored: By variable name, the pattern of names to ignore that matched it.

    Example:
        >>> print(LoadReport({"pred/kernel": ("classifier.weight",)}, {"pred/kernel/Momentum": "*/Momentum"}))
        placed 1 variable in 1 entry of the module; ignored 1 variable (1 as '*/Momentum')
    """

    placed: Mapping[str, tuple[str, ...]]
    ignored: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        def counted(items: Mapping | set, one: str, more: str) -> str:
            return f"{len(items)} {one if len(items) == 1 else more}"

        placed = counted(self.placed, "variable", "variables")
        entries = counted({entry for names in self.placed.values() for entry in names}, "entry", "entries")
        ignored = counted(self.ignored, "variable", "variables")
        patterns = ", ".join(f"{count} as {pattern!r}" for pattern, count in Counter(self.ignored.values()).items())
        return f"placed {placed} in {entries} of the module; ignored {ignored}" + (f" ({patterns})" if patterns else "")


def load_variables(
    module: AuthorsRSTG | AuthorsSyncMNISTNet | AuthorsVideoNet,
    variables: Mapping[str, np.ndarray | Tensor],
    scope: str = "tower",
    graph: str = "whole_graph_model_final",
    ignore: Sequence[str] = (),
) -> LoadReport:
    """Load variables of the authors' program into a module, all of them or none.

    Args:
        module: Block or network, with the arguments that the weights were trained with.
        variables: Arrays by the program's names. An LSTM may come as ``cudnn_lstm/{w_ih, w_hh, b_ih, b_hh}``, matrices
            in torch's layout, or in the form that checkpoints have,
            ``rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell/{kernel, bias}``: kernel ``[in + C, 4C]`` with gates
            in the order i, c, f, o, and the sum of the two biases.
        scope: What all names start with.
        graph: Name of the block's own scope in it; a video network has its own names for its blocks.
        ignore: Patterns (as of ``fnmatch``) of names to leave out, such as ``"*/Momentum"``.

    Returns:
        What was placed where, and what was ignored.

    Raises:
        ValueError: For variables that have no place here and entries of the module that no variable filled, all of
            them listed; for an array of another shape, of complex numbers or values that are not finite; for two
            variables with one place; for a module that there is no table for.

    Source: variable names of the program, IuliaDuta/RSTG at 788a7a3.

    Example:
        >>> from rstg_pyg.authors import AuthorsSyncMNISTNet, load_variables, placements
        >>> net = AuthorsSyncMNISTNet(filters=8)
        >>> arrays = {name: np.zeros(where.shape) for name, where in placements(net).items()}
        >>> report = load_variables(net, arrays, ignore=["*/rnn/multi_rnn_cell/*"])
        >>> net.classifier.weight.abs().max().item()
        0.0
    """
    return fill(module, placements(module, scope, graph), variables, ignore)


def fill(
    module: nn.Module,
    table: Placements,
    variables: Mapping[str, np.ndarray | Tensor],
    ignore: Sequence[str] = (),
) -> LoadReport:
    """Fill a module's whole state by a table of placements: :func:`load_variables` for any module.

    Counters of batches, which the program does not keep, stay as they are.

    Args:
        module: Any module.
        table: Its placements, by variable name.
        variables: Arrays by variable name.
        ignore: Patterns (as of ``fnmatch``) of names to leave out.

    Returns:
        What was placed where, and what was ignored.

    Raises:
        ValueError: As in :func:`load_variables`.

    Example:
        >>> from rstg_pyg.authors import Piece, Placement, fill
        >>> layer = nn.Linear(3, 2, bias=False)
        >>> table = {"fc/kernel": Placement((3, 2), lambda array: [Piece("weight", array.t())])}
        >>> print(fill(layer, table, {"fc/kernel": np.eye(3, 2)}))
        placed 1 variable in 1 entry of the module; ignored 0 variables
        >>> layer.weight.tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    ignored = {
        name: pattern for pattern in reversed(ignore) for name in variables if fnmatch.fnmatchcase(name, pattern)
    }
    given = variables.keys() - ignored.keys()
    state = {
        name: value.detach().clone()
        for name, value in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    filled = {name: torch.zeros(value.shape[:1], dtype=torch.bool) for name, value in state.items()}
    placed: dict[str, tuple[str, ...]] = {}
    for variable in sorted(given & table.keys()):
        array, placement = torch.as_tensor(variables[variable]), table[variable]
        if tuple(array.shape) != placement.shape:
            raise ValueError(f"expected '{variable}' of shape {list(placement.shape)}, got {list(array.shape)}")
        pieces = placement.place(array)
        for piece in pieces:
            if filled[piece.name][piece.rows].any():
                raise ValueError(f"expected one variable for '{piece.name}', got '{variable}' as a second one")
            if fault := weight_fault(piece.value, state[piece.name]):
                raise ValueError(f"expected '{variable}' to hold finite weights of the module's kind, got {fault}")
            filled[piece.name][piece.rows] = True
            state[piece.name][piece.rows] = piece.value.to(state[piece.name])
        placed[variable] = tuple(piece.name for piece in pieces)

    problems = []
    if unplaced := sorted(given - table.keys()):
        problems.append(f"variables without a place: {', '.join(unplaced)}")
    if unfilled := sorted(name for name, rows in filled.items() if not rows.all()):
        problems.append(f"entries that no variable fills: {', '.join(unfilled)}")
        problems.append(f"variables expected for them: {', '.join(_expected(table, given, unfilled))}")
    if problems:
        raise ValueError("; ".join(problems))
    module.load_state_dict(state, strict=False)
    return LoadReport(placed, dict(sorted(ignored.items())))


def _expected(table: Placements, given: set[str], unfilled: Sequence[str]) -> list[str]:
    """Variables that would fill the entries; where several spellings of one would, the first in the table."""
    expected: list[str] = []
    claimed: set[tuple[str, str]] = set()
    for variable in (name for name in table if name not in given):
        pieces = table[variable].place(torch.empty(table[variable].shape, device="meta"))
        places = {(piece.name, repr(piece.rows)) for piece in pieces if piece.name in unfilled}
        if places - claimed:
            expected.append(variable)
            claimed |= places
    return expected
