"""What the sizes of weights do not tell: state dicts carry it, so that weights of another formula are refused."""

from typing import Any

from torch.nn import Module


class Formula(Module):
    """A module whose state dicts name the options that its weights fit whatever they are, beside its version.

    A ``state_dict`` of another formula fits by its sizes and gives other numbers; it is refused by name. Plain dicts,
    as ``dict(state_dict)`` or files of safetensors, carry no options and load as they are.
    """

    formula: dict[str, Any]
    """The options by name, such as ``{"heads": 4}``; texts, numbers and tuples of them."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        getattr(destination, "_metadata", {}).setdefault(prefix[:-1], {}).update(self.formula)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], strict: bool, *lists: list[str]
    ) -> None:
        *_, errors = lists
        for name, own in self.formula.items():
            other = local_metadata.get(name, own)
            if other != own:
                errors.append(
                    f"expected weights of {name}={own!r} for {prefix[:-1] or repr(self)}, got those of "
                    f"{name}={other!r}; dict(state_dict) loads them all the same"
                )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *lists)
