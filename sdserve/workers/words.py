"""The words between master and workers: datagrams of the channel, and signals that mean nothing but what is said here.

How a worker hears and says them is told.py's, how the master does arbiter/children.py's and worker_handle.py's.
"""

import signal

LONGEST = 4096  # bytes of a datagram

# What a worker says to its master; a reason may follow a colon, and all of it is in the log.
READY = b"ready"
RETIRING = b"retiring"
BUSY = b"busy"
RECYCLE = b"recycle"
FAILED = b"failed:"
USING = b"using:"  # the worker class, if the application decides that
CALLS = b"calls:"  # the answer to ASKED_CALLS

# What a master says to its worker, besides the signal of the same meaning: the application may have taken that.
RETIRE = b"retire"

# A service that drains: each answer is its connection's last, until that is taken back.
DRAIN = b"drain"
UNDRAIN = b"undrain"

# The answer to READY: import what may be needed later. The first worker of a start did not wait for that.
PREIMPORT = b"preimport"

# As many workers serve as are wanted, and no others: who has too many connections gives some away.
SHARE = b"share"

# Memory is short.
GIVE_BACK = b"give back"

# Who polls counts it (POLLS, process/counters.py).
POLL = b"poll"

# These write the stacks of all threads, and change nothing: to the log, or where the master reads them.
STACKS = signal.SIGRTMIN + 1
ASKED_STACKS = signal.SIGRTMIN + 2

# This asks which requests last. It interrupts what the main thread waits for: Python then goes on with that (PEP 475).
ASKED_CALLS = signal.SIGRTMIN + 3


def told_by(signum: signal.Signals) -> str:
    """Why a boot has failed. A master that has sent the signal itself knows a better reason."""
    return f"it was told to leave by {signum.name}"
