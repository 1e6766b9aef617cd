"""What a worker gives back when memory is short: Python's garbage, and what malloc keeps for later (malloc_trim(3)).

ctypes takes memory itself, so it is imported when it is needed. In most services it never is.
"""

import gc

from sdserve.workers.recycling import resident


def give_back() -> int:
    """Gives back what it can; returns by how many bytes this process became smaller.

    Raises OSError if /proc does not tell its size.
    """
    before = resident()
    gc.collect()
    try:
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
    except (ImportError, MemoryError, OSError, AttributeError):
        pass  # MemoryDenyWriteExecute= (no ctypes), another C library: the garbage is gone all the same
    return max(0, before - resident())
