"""What commands that are run within the tests' process may change in it."""

import logging
import os
import warnings
from contextlib import contextmanager

import torch
import torch._dynamo

VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
COMPILER = ("allow_rnn", "recompile_limit")
LOGGER = logging.getLogger("lightning.pytorch")


@contextmanager
def process_settings():
    """Put torch's threads, precision and compiler, Lightning's seed and log level and the form of warnings back
    afterwards."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    level, form = LOGGER.level, warnings.formatwarning
    before = {name: os.environ.get(name) for name in VARIABLES}
    compiler = {name: getattr(torch._dynamo.config, name) for name in COMPILER}
    try:
        with torch._dynamo.config.patch(compiler):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        LOGGER.setLevel(level)
        warnings.formatwarning = form
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
