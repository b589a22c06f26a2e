"""The Triton kernels compile for CUDA. No CUDA device is needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

SCRIPT = Path(__file__).with_name("compile_for_cuda.py")


@pytest.mark.parametrize("compiled", [("80", "fp32"), ("90", "bf16", "fp64")], ids=str)
def test_every_kernel_compiles(tmp_path, compiled):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, str(SCRIPT), *compiled]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
