"""What a worker gives back when memory is short: Python's garbage, and what malloc keeps for later (malloc_trim(3)).

What takes memory itself, ctypes, is imported when it is wanted, which in most services it never is.
"""

import gc

from sdserve.workers.recycling import resident


def give_back() -> int:
    """Gives back what can be given; returns the bytes by which this process became smaller.

    Raises OSError when it cannot be told.
    """
    before = resident()
    gc.collect()
    try:
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
    except (ImportError, MemoryError, OSError, AttributeError):
        pass  # no ctypes behind MemoryDenyWriteExecute=, another C library: the garbage is gone all the same
    return max(0, before - resident())
