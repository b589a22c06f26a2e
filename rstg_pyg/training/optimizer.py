"""Muon for matrices and convolution kernels, AdamW for the rest, as one optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import Embedding, Module, Parameter


class MuonAdamW(torch.optim.Optimizer):
    r""":class:`torch.optim.Muon` for ``matrices`` and :class:`torch.optim.AdamW` for ``others``, as one optimiser.

    .. math::
        \mathbf{M} \leftarrow \mu \mathbf{M} + \nabla_{\mathbf{W}} \mathcal{L}, \qquad
        \mathbf{W} \leftarrow \mathbf{W} - \eta \, \mathrm{orthogonalise}(\mathbf{M})

    Muon gives every direction of a matrix the same step. Where two small features must grow
    together before either lowers the loss, as for comparing two motions, that shortens the plateau. A convolution
    kernel ``[out, in, ...]`` counts as the matrix ``[out, in * ...]``.

    Its first group is the matrices, its second the others; each group has the settings of its optimiser.

    Args:
        matrices: Parameters with two dimensions or more, see :func:`graph_matrices` and :func:`hidden_matrices`.
        others: All other parameters.
        lr: Learning rate of AdamW.
        muon_lr: Learning rate of Muon.
        weight_decay: Of both.

    Shapes:
        - **matrices:** each ``[out, in]`` or ``[out, in, ...]``. **others:** any.

    Raises:
        ValueError: If there is no matrix or no other parameter, or a parameter of ``matrices`` is a vector.

    Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; I. Loshchilov, F. Hutter,
    "Decoupled weight decay regularization", ICLR 2019.

    Example:
        >>> import torch
        >>> from rstg_pyg.training import MuonAdamW
        >>> layer = torch.nn.Linear(4, 4)
        >>> optimizer = MuonAdamW([layer.weight], [layer.bias], lr=3e-3, muon_lr=0.01)
        >>> layer(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        matrices: Iterable[Parameter],
        others: Iterable[Parameter],
        lr: float = 3e-3,
        muon_lr: float = 0.01,
        weight_decay: float = 0.01,
    ) -> None:
        matrices, others = list(matrices), list(others)
        if not matrices:
            raise ValueError("expected 'matrices' to hold at least one parameter, got none: has the model no RSTG?")
        if not others:
            raise ValueError("expected 'others' to hold at least one parameter, got none")
        defaults = {"lr": lr, "muon_lr": muon_lr, "weight_decay": weight_decay}
        super().__init__([{"params": matrices, "use_muon": True}, {"params": others}], defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters that AdamW trains, or with ``"use_muon": True`` matrices that Muon does."""
        use_muon = param_group.get("use_muon", False)
        kind = torch.optim.Muon if use_muon else torch.optim.AdamW
        lr = self.defaults["muon_lr" if use_muon else "lr"]
        settings = kind([torch.empty(1, 1)], lr=lr, weight_decay=self.defaults["weight_decay"]).defaults
        super().add_param_group({"use_muon": use_muon, **settings, **param_group})
        del self.param_groups[-1]["muon_lr"]
        wrong = [list(p.shape) for p in self.param_groups[-1]["params"] if use_muon and p.dim() < 2]
        if wrong:
            self.param_groups.pop()
            raise ValueError(f"expected 'matrices' to hold parameters of at least two dimensions, got shapes {wrong}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["use_muon"]:
                self._step_matrices(group)
                continue
            adamw = torch.optim.AdamW([{**group}])
            adamw.state = self.state
            adamw.step()
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        parameters = [p for p in group["params"] if p.grad is not None]
        flat = [p.detach().flatten(1) for p in parameters]
        muon = torch.optim.Muon([{**group, "params": flat}])
        for parameter, matrix in zip(parameters, flat, strict=True):
            matrix.grad = parameter.grad.flatten(1)
            muon.state[matrix] = self.state[parameter]
        muon.step()
        for parameter, matrix in zip(parameters, flat, strict=True):
            # Where memory is in another order than the dimensions, the matrix is a copy.
            if matrix.data_ptr() != parameter.data_ptr():
                parameter.copy_(matrix.view_as(parameter))


def graph_matrices(model: Module) -> tuple[list[Parameter], list[Parameter]]:
    """Split a model's parameters into the matrices of its graph blocks and all others.

    Matrices are the weights with two dimensions, both above 1, of every :class:`~rstg_pyg.RSTG` in the model: of its
    recurrent cells and of its convolutions.

    Example:
        >>> from rstg_pyg import FrameCNN, RSTGToVec, VideoClassifier
        >>> from rstg_pyg.training.optimizer import graph_matrices
        >>> matrices, others = graph_matrices(VideoClassifier(FrameCNN(1, (8, 8)), RSTGToVec(8), num_classes=46))
        >>> any(p.dim() == 4 for p in matrices)
        False
    """
    from rstg_pyg.recurrence import RSTG

    inside = [block for block in model.modules() if isinstance(block, RSTG)]
    matrices = {id(p): p for block in inside for p in block.parameters() if p.dim() == 2 and min(p.shape) > 1}
    return list(matrices.values()), [p for p in model.parameters() if id(p) not in matrices]


def hidden_matrices(model: Module) -> tuple[list[Parameter], list[Parameter]]:
    """Split the parameters of any network into the matrices and kernels of its hidden layers and all others.

    Hidden are all weights that make a matrix ``[out, in * ...]`` with both sides above 1, except the first and the last
    one in the order of ``model.parameters()``, which see pixels and give logits, and the tables of
    :class:`torch.nn.Embedding`. The rule asks for no graph, so that networks with and without one train on equal terms.

    Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024, for the layers left out.

    Example:
        >>> from rstg_pyg import FrameCNN, RSTGToVec, VideoClassifier
        >>> from rstg_pyg.training.optimizer import hidden_matrices
        >>> matrices, others = hidden_matrices(VideoClassifier(FrameCNN(1, (8, 8)), RSTGToVec(8), num_classes=46))
        >>> [list(p.shape) for p in matrices if p.dim() == 4]
        [[8, 8, 3, 3]]
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, Embedding)}
    wide = [p for p in model.parameters() if p.dim() > 1 and min(p.flatten(1).shape) > 1 and id(p) not in tables]
    hidden = {id(p): p for p in wide[1:-1]}
    return list(hidden.values()), [p for p in model.parameters() if id(p) not in hidden]
