"""What the master says of a worker's end."""

import signal

from sdserve.arbiter.worker_handle import describe
from sdserve.process.pidfd import UNKNOWN


def test_only_a_kill_that_nobody_ordered_may_be_for_want_of_memory() -> None:
    assert describe(signal.SIGKILL) == "was sent SIGKILL! Perhaps out of memory?"
    assert describe(signal.SIGKILL, ordered=True) == "was sent SIGKILL!"
    assert describe(signal.SIGTERM) == "was sent SIGTERM!"
    assert describe(3 << 8) == "exited with code 3"
    assert "somebody else reaped it" in describe(UNKNOWN)
