"""Work in a forked child: its signals, user and limits are its own."""

import gc
import os
import sys
import traceback
from collections.abc import Callable


def in_a_child(work: Callable[[], object]) -> int:
    """Runs `work` in a forked child; returns the wait status, 0 if it came to its end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            gc.unfreeze()  # what earlier tests have left behind may hold descriptors, and limits count those
            gc.collect()
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitpid(pid, 0)[1]
