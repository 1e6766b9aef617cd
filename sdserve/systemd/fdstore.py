"""systemd's file descriptor store: descriptors that outlive the service (sd_pid_notify_with_fds(3)).

A unit opts in with FileDescriptorStoreMax=. systemd 254 and newer say so in FDSTORE; older ones do not, and log each
descriptor that they cannot keep, so there the operator says it (the setting `fd_store`). What is stored comes back at
the next start among the passed descriptors, after the sockets, under the name that it was stored with.

Neither word is proof: the store may be full, or something else may read NOTIFY_SOCKET. So the write end of a pipe is
stored last, and no other copy of it is kept. As long as somebody has it, what was stored before it is there as well;
else its read end reports the end of file. systemd drops it by itself when the reader has gone.
"""

import os
from collections.abc import MutableMapping

from sdserve.descriptor import Descriptor
from sdserve.systemd.notify import Notifier

ADOPTION_SEND = "sdserve-adoption-send"
ADOPTION_RECEIVE = "sdserve-adoption"
NAMES = (ADOPTION_SEND, ADOPTION_RECEIVE)
COUNTERS = "sdserve-counters"
PROOF = "sdserve-proof"


def offered(environ: MutableMapping[str, str]) -> bool:
    """Whether systemd says that it keeps as many descriptors as we have. Takes FDSTORE out of `environ`."""
    most = environ.pop("FDSTORE", "")
    return most.isdigit() and int(most) > len(NAMES)


def keep_counters(notifier: Notifier, fd: int, *, fresh: bool) -> None:
    """Has systemd keep the memory of counters. A `fresh` one takes the place of what it has by that name.

    Nothing proves that it does: without it counting starts anew at the next start, which readers of counters expect.
    """
    if fresh:
        notifier.forget(COUNTERS)
    notifier.store(COUNTERS, fd)


class Proof(Descriptor):
    """Has systemd keep copies of `fds`, by name; becomes readable when they are not kept, or not any more.

    `heard` says whether systemd was told at all: it may have no room for a moment, or be replaced just now, and the
    kernel refuses to send descriptors while too many others are on their way (unix(7), ETOOMANYREFS).

    Raises OSError like pipe(2).
    """

    def __init__(self, notifier: Notifier, fds: dict[str, int]) -> None:
        ours, kept = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        super().__init__(ours)
        # The proof comes last: else it would be of one part alone.
        self.heard = all(notifier.store(name, fd) for name, fd in {**fds, PROOF: kept}.items())
        os.close(kept)
