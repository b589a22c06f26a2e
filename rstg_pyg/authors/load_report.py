"""What became of every variable that was loaded."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LoadReport:
    """Every variable that was given, either placed or ignored; loading raises where there is a third kind.

    Args:
        placed: by variable name, the entries of the module's `state_dict` that it filled.
        ignored: by variable name, the pattern of names to ignore that matched it.

    Example:
        >>> print(LoadReport({"pred/kernel": ("classifier.weight",)}, {"pred/kernel/Momentum": "*/Momentum"}))
        placed 1 variable in 1 entry of the module; ignored 1 variable (1 as '*/Momentum')
    """

    placed: Mapping[str, tuple[str, ...]]
    ignored: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        entries = {entry for names in self.placed.values() for entry in names}
        variables = "variable" if len(self.placed) == 1 else "variables"
        placed = (
            f"placed {len(self.placed)} {variables} in {len(entries)} {'entry' if len(entries) == 1 else 'entries'}"
        )
        ignored = f"ignored {len(self.ignored)} {'variable' if len(self.ignored) == 1 else 'variables'}"
        counts = ", ".join(f"{count} as {pattern!r}" for pattern, count in Counter(self.ignored.values()).items())
        return f"{placed} of the module; {ignored}" + (f" ({counts})" if counts else "")
