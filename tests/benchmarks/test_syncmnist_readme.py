"""The SyncMNIST table in a README."""

from pathlib import Path

import pytest
from syncmnist_report import MARKS, put_between
from tiny_table import Table, pretend

README = f"before\n\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n"


@pytest.fixture
def table(tmp_path, monkeypatch):
    return Table(tmp_path, monkeypatch, pretend(lambda run: (0.5, 0.4)))


def test_the_table_goes_between_the_marks_of_a_readme(table):
    path = table.folder / "README.md"
    path.write_text(README)
    table.start("--rows", "i3d", "--seeds", "0", "--readme", str(path))
    text = (table.results / "syncmnist_cpu.md").read_text().split("\n\n", 1)[1]
    assert path.read_text() == f"before\n\n{MARKS[0]}\n{text}{MARKS[1]}\nafter\n"
    table.start("--report-only", "--rows", "i3d", "--seeds", "0", "--readme", str(path))
    assert path.read_text() == f"before\n\n{MARKS[0]}\n{text}{MARKS[1]}\nafter\n"


@pytest.mark.parametrize("text", ["", MARKS[0], f"{MARKS[1]} {MARKS[0]}", README + MARKS[0]])
def test_a_readme_without_the_marks_is_refused_before_anything_is_trained(table, text):
    with pytest.raises(ValueError, match="expected the README to hold <!-- syncmnist table --> and then "):
        put_between(text, "table")
    (table.folder / "README.md").write_text(text)
    with pytest.raises(ValueError, match="expected the README to hold"):
        table.start("--readme", str(table.folder / "README.md"))
    assert table.trained == []


def test_the_readme_of_the_package_has_the_marks():
    put_between((Path(__file__).parents[2] / "README.md").read_text(), "table")
