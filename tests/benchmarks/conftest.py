import sys
from pathlib import Path

import pytest
from process_settings import process_settings

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(autouse=True)
def as_before():
    """What a command changes in its process is put back."""
    with process_settings():
        yield
