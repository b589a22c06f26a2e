import importlib.util
import subprocess
import sys

import pytest

CODE = """
import runpy
import sys
import torch

def kept():
    before = resident()
    tensor = torch.ones(1 << 25)
    del tensor
    return resident() - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

print(kept())
assert runpy.run_path(sys.argv[1])["keep_freed_memory"]()
print(kept())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_memory_that_was_freed_stays_with_the_process():
    command = [sys.executable, "-c", CODE, importlib.util.find_spec("rstg_pyg.allocator").origin]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < 2**25 and after > 2**26
