"""Muon for matrices and convolution kernels, AdamW for the rest, as one optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Embedding, Module, Parameter

_TILE = 64
"""Matrices whose sides are alike when rounded up to multiples of this take their steps together."""


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
            adamw = torch.optim.AdamW([{**group, "fused": self._fits_fused(group["params"]) or None}])
            adamw.state = self.state
            adamw.step()
        return loss

    def _fits_fused(self, parameters: list[Parameter]) -> bool:
        """Whether all parameters may take their step in one call on a CPU, which takes no notice of strides."""
        return all(
            [
                p.is_cpu and p.is_floating_point() and value.stride() == p.stride()
                for p in parameters
                if p.grad is not None
                for value in (p.grad, *self.state[p].values())
                if value.dim() == p.dim()
            ]
        )

    def _step_matrices(self, group: dict[str, Any]) -> None:
        parameters = [p for p in group["params"] if p.grad is not None]
        if not parameters:
            return
        grads = [p.grad.flatten(1) for p in parameters]
        for parameter, grad in zip(parameters, grads, strict=True):
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(grad)
        moments = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_lerp_(moments, grads, 1 - group["momentum"])
        if group["nesterov"]:
            moments = torch._foreach_lerp(grads, moments, group["momentum"])
        steps = orthogonalised(moments, group["ns_coefficients"], group["ns_steps"], group["eps"])
        lr = float(group["lr"])
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        for parameter, step in zip(parameters, steps, strict=True):
            rows, columns = step.shape
            of_rms = group["adjust_lr_fn"] == "match_rms_adamw"
            ratio = 0.2 * math.sqrt(max(rows, columns)) if of_rms else math.sqrt(max(1, rows / columns))
            parameter.add_(step.reshape(parameter.shape), alpha=-lr * ratio)


def orthogonalised(
    matrices: Sequence[Tensor], coefficients: tuple[float, float, float], num_steps: int, eps: float
) -> list[Tensor]:
    r"""Return every matrix with singular values of about 1, by the Newton-Schulz steps of :class:`torch.optim.Muon`,
    in bfloat16 as there, or in float32 on CPUs:

    .. math::
        \mathbf{G} = \mathbf{X} \mathbf{X}^\top, \qquad
        \mathbf{X} \leftarrow a \mathbf{X} + (b \mathbf{G} + c \mathbf{G}^2) \mathbf{X}

    Small products cost more to call than to compute, so matrices of about one size take their steps together; zeros
    fill them up, and stay zeros.

    Shapes:
        - **matrices, output:** each ``[R, C]``.

    Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.

    Example:
        >>> import torch
        >>> from rstg_pyg.training.optimizer import orthogonalised
        >>> wide, tall = orthogonalised([torch.randn(3, 8), torch.randn(8, 3)], (3.4445, -4.775, 2.0315), 5, 1e-7)
        >>> bool((wide.float() @ wide.float().T - torch.eye(3)).abs().max() < 0.8)
        True
    """
    a, b, c = coefficients
    wide = [matrix.T if matrix.size(0) > matrix.size(1) else matrix for matrix in matrices]
    alike: dict[tuple[int, ...], list[int]] = {}
    for number, matrix in enumerate(wide):
        alike.setdefault(tuple(-(-side // _TILE) * _TILE for side in matrix.shape), []).append(number)
    found = list(wide)
    for shape, numbers in alike.items():
        # CPUs take float32 as fast as bfloat16 at these sizes, and several times as fast where they have no bfloat16.
        x = wide[0].new_zeros(len(numbers), *shape, dtype=torch.float32 if wide[0].is_cpu else torch.bfloat16)
        rooms = [one[: wide[k].size(0), : wide[k].size(1)] for one, k in zip(x, numbers, strict=True)]
        torch._foreach_copy_(rooms, [wide[k] for k in numbers])
        x /= x.flatten(1).norm(dim=1).clamp(min=eps).view(-1, 1, 1)
        for _ in range(num_steps):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        for k, one in zip(numbers, x, strict=True):
            one = one[: wide[k].size(0), : wide[k].size(1)]
            found[k] = one if wide[k] is matrices[k] else one.T
    return found


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
