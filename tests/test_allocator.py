import subprocess
import sys

import pytest

CODE = """
import resource, sys
import torch
from rstg_pyg.allocator import keep_freed_memory
if len(sys.argv) > 1:
    assert keep_freed_memory()
for _ in range(3):
    torch.ones(1 << 22)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(1 << 22)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_memory_that_was_freed_is_not_mapped_anew():
    faults = [
        int(subprocess.run([sys.executable, "-c", CODE, *argument], capture_output=True, text=True, check=True).stdout)
        for argument in ([], ["keep"])
    ]
    assert faults[1] < faults[0] / 10 and faults[1] < 4096
