"""The scripts of the examples as modules, and how they end after bad input."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

from pytest import CaptureFixture

EXAMPLES = Path(__file__).parents[1] / "examples"


def load_example(name: str) -> ModuleType:
    """Import a script by the name of its file; it finds the modules beside it."""
    if str(EXAMPLES) not in sys.path:
        sys.path.append(str(EXAMPLES))
    return importlib.import_module(name)


def run_example(example: ModuleType, argv: list[str]) -> int:
    """Run a script in this process; return its exit code."""
    return load_example("run_command").run_command(f"{example.__name__}.py", example.main, argv)


def end_of(example: ModuleType, argv: list[str], capsys: CaptureFixture[str]) -> tuple[str, int, str]:
    """Run a script in this process: return its name, its exit code and the last line that it wrote to stderr."""
    try:
        code = run_example(example, argv)
    except SystemExit as error:
        code = error.code
    return example.__name__, code, (capsys.readouterr().err.strip().splitlines() or [""])[-1]


def check_refused(done: tuple[str, int, str], *parts: str) -> None:
    """Assert that a script ended with one sentence, in its own name, that says every part, and code 2."""
    name, code, last = done
    assert code == 2
    assert last.startswith(f"{name}.py: ")
    for part in parts:
        assert part in last
