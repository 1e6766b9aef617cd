"""systemd's file descriptor store: descriptors that outlive the service (sd_pid_notify_with_fds(3)).

A unit opts in with FileDescriptorStoreMax=. systemd 254 and newer say so in FDSTORE; older ones do not, and log each
descriptor that they cannot keep, so there the operator says it (the setting `fd_store`). What is stored comes back at
the next start among the passed descriptors, after the sockets, under the name that it was stored with.
"""

from collections.abc import MutableMapping

from sdserve.systemd.notify import Notifier

ADOPTION_SEND = "sdserve-adoption-send"
ADOPTION_RECEIVE = "sdserve-adoption"
NAMES = (ADOPTION_SEND, ADOPTION_RECEIVE)


def offered(environ: MutableMapping[str, str]) -> bool:
    """Whether systemd says that it keeps as many descriptors as we have. Takes FDSTORE out of `environ`."""
    most = environ.pop("FDSTORE", "")
    return most.isdigit() and int(most) >= len(NAMES)


def store(notifier: Notifier, fds: dict[str, int]) -> None:
    """Has systemd keep copies of descriptors, by name."""
    for name, fd in fds.items():
        notifier.store(name, fd)
