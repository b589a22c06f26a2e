import subprocess
import sys

import pytest

CODE = """
import sys
import torch
from rstg_pyg.allocator import keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

if len(sys.argv) > 1:
    assert keep_freed_memory()
before = resident()
tensor = torch.ones(1 << 25)
del tensor
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_memory_that_was_freed_stays_with_the_process():
    kept = [
        int(subprocess.run([sys.executable, "-c", CODE, *argument], capture_output=True, text=True, check=True).stdout)
        for argument in ([], ["keep"])
    ]
    assert kept[0] < 2**25 and kept[1] > 2**26
