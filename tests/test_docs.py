"""The README and the pages of docs/: their Python runs where its libraries are, and what they link to is there."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
"""Notebooks among them have no block that runs here: the site runs their cells."""
OPTIONAL = {"torchvision", "transformers", "timm", "lightning", "av", "PIL", "matplotlib", "tensorflow"}
OPTIONAL |= {"minGRU_pytorch", "huggingface_hub"}
"""Libraries without which a block is skipped."""


class Page:
    """The Python blocks of a page, which run in their order and in one namespace."""

    def __init__(self, path):
        self.path = path
        text = path.read_text()
        self.blocks = [(match[1], text.count("\n", 0, match.start())) for match in re.finditer(PYTHON, text)]
        self.namespace = {"__name__": path.stem}
        self.results = []

    def run(self, number):
        """Run what has not run yet up to a block; raise what that block raised."""
        while len(self.results) <= number:
            self.results.append(self._outcome(*self.blocks[len(self.results)]))
        if self.results[number] is not None:
            raise self.results[number]

    def _outcome(self, code, line):
        """None, or the exception with which the block ended."""
        try:
            tree = ast.parse(code)
            for name in sorted(imported(tree) & OPTIONAL):
                skip_without(name)
            exec(compile("\n" * (line + 1) + code, str(self.path), "exec"), self.namespace)
        except (Exception, pytest.skip.Exception) as error:
            return error


PYTHON = r"(?ms)^```python\n(.*?)^```"


def imported(tree):
    """The packages that code imports."""
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


def skip_without(name):
    """A torchvision built for another torch raises RuntimeErrors."""
    try:
        importlib.import_module(name)
    except Exception as error:
        pytest.skip(f"{name} does not work here: {type(error).__name__}: {error}")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return {path: (Page(path), tmp_path_factory.mktemp(path.stem)) for path in PAGES}


BLOCKS = [
    pytest.param(path, number, id=f"{path.stem}-{number}") for path in PAGES for number in range(len(Page(path).blocks))
]


@pytest.mark.parametrize(("path", "number"), BLOCKS)
def test_python_of_a_page(path, number, pages, monkeypatch):
    page, folder = pages[path]
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    page.run(number)


def test_the_pages_that_show_how_to_use_it_are_run():
    """README, insertion and prediction; else the pattern that finds blocks is wrong."""
    numbers = {path.stem: len(Page(path).blocks) for path in PAGES}
    assert numbers["README"] >= 4
    assert numbers["insertion"] >= 8
    assert numbers["predict"] >= 3


def test_links_and_pictures_of_all_pages():
    pattern = r"\]\(([^)#:]+)(?:#[^)]*)?\)|src=\"([^\":]+)\""
    for path in [*PAGES, ROOT / "benchmarks" / "README.md"]:
        for found in re.finditer(pattern, path.read_text()):
            link = found[1] or found[2]
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_the_readme_has_two_commands_that_install_the_tested_versions():
    """Continuous integration takes them from there."""
    example, tests = re.findall(r"```bash\n(.*?)```", README.read_text(), re.DOTALL)
    for command in (example, tests):
        assert "python3 -m venv" in command
        assert "-c constraints.txt" in command
    assert "examples/syncmnist.py" in example
    assert "pytest" in tests


def test_a_block_that_fails_or_lacks_its_library(tmp_path, monkeypatch):
    path = tmp_path / "page.md"
    blocks = ["a = 1", "import timm", "assert a == 2", "a = 3", "assert a == 3"]
    path.write_text("".join(f"text\n\n```python\n{block}\n```\n" for block in blocks))
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    page = Page(path)
    page.run(4)
    with pytest.raises(pytest.skip.Exception, match="timm does not work here: ModuleNotFoundError"):
        page.run(1)
    with pytest.raises(AssertionError) as caught:
        page.run(2)
    assert caught.traceback[-1].lineno + 1 == 14
    page.run(3)
