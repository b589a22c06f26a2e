"""What the C library does with memory that tensors free."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have glibc keep what tensors free for the next ones, in the whole process and from now on.

    By default glibc gives large blocks back to the kernel, which clears and maps every page anew in the next step. On
    CPUs that can take a third of a training step of :class:`~rstg_pyg.RSTG`. The price: memory that was used once stays
    with the process. Does nothing on systems without glibc, and need not be called with another allocator (jemalloc,
    tcmalloc).

    Returns:
        Whether it took effect.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
