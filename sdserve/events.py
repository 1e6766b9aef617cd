"""What an operator may want to hear of: one table of events, each with its MESSAGE_ID and its message.

`Logger.event` logs one. In the journal it is a structured record, with what it is about in fields of their own:
SDSERVE_EVENT is its name, SDSERVE_REASON a REASON, and so on. Anywhere else it is the line that its message gives.

Parameters in capitals become fields, others stand in the message only. What has happened, and what to do then, says
sdserve.catalog, which `journalctl -x` shows: no server needs that in its memory. The table in docs/reference/events.md
is made of both by docs/generate.py. An id stands for its event for ever; a new one comes from `systemd-id128 new`.
"""

from __future__ import annotations

import re
from logging import CRITICAL, ERROR, INFO, WARNING

from sdserve.immutable import Immutable


class Event(Immutable):
    """One kind of event. `more` are fields beside those of its message; after a `last` one its process may end."""

    name: str
    id: str
    level: int
    message: str
    more: tuple[str, ...] = ()
    last: bool = False

    @property
    def parameters(self) -> frozenset[str]:
        """What must be said of it, each time."""
        return frozenset(re.findall(r"%\((\w+)\)", self.message)) | set(self.more)

    @property
    def fields(self) -> list[str]:
        """Those of them that become fields, without SDSERVE_ in front."""
        return sorted(name for name in self.parameters if name.isupper())


# --- the service ------------------------------------------------------------------------------------------------------

STARTING = Event("starting", "f438f8537b68432faad235d4254074ff", INFO, "Starting sdserve %(VERSION)s")
READY = Event("ready", "f7c2cad6bf594a4e8c3d9bcb0ce9fcc6", INFO, "Ready: %(STATUS)s")
FAILED = Event("failed", "5a8ae51246b8416aa4b169f46fd9372e", ERROR, "%(REASON)s", ("EXIT_STATUS",), last=True)
CRASHED = Event("crashed", "240645650d184d52a655990b35dc5de0", ERROR, "Unhandled exception in main loop", last=True)
MASTER_ERROR = Event(
    "master-error",
    "203dcbb1679e436c8b48d004a607ef25",
    ERROR,
    "Exception in the master, which goes on and tries again in %(SECONDS)g s",
)
RESIZED = Event(
    "resized", "ae625af210154591826837bc53d50767", INFO, "%(WORKERS)s workers are wanted, before it was %(BEFORE)s"
)
DRAINING = Event(
    "draining",
    "d05d37cf07de4d13a158e3c450ceddb4",
    INFO,
    "Draining: health checks are answered so for %(SECONDS)g s, then %(then)s",
)
DRAIN_ENDS_CONNECTIONS = Event(
    "drain-ends-connections", "4c4ae4270fe14ed4b13a92063ae8d808", INFO, "Draining: every answer ends its connection now"
)
DRAINED = Event("drained", "c350dbe5fa85445d9c7e63cc5d547038", INFO, "Drained: %(told)s", ("CONNECTIONS",))
UNDRAINED = Event("undrained", "20cf230f8bcb45949d795cf5f44c26d4", INFO, "Draining is taken back")
IDLE = Event(
    "idle",
    "9d413c9d012847dc87b14446cff6b42d",
    INFO,
    "No request for %(SECONDS)g seconds (idle_exit): leaving the socket to systemd",
)
STOPPED = Event(
    "stopped", "3e42e38f91f24b68860215cea17ebabf", INFO, "Shutting down: %(MASTER)s", ("EXIT_STATUS",), last=True
)

# --- reload and upgrade -----------------------------------------------------------------------------------------------

RELOADED = Event("reloaded", "72d986a4c97b4835a4f97aec1a2095ce", INFO, "Reloaded: %(STATUS)s", ("GENERATION",))
RELOAD_FAILED = Event(
    "reload-failed", "6ee63901621348099d69190221eea9c3", ERROR, "Reload failed, the old workers serve on: %(REASON)s"
)
UPGRADE_STARTED = Event(
    "upgrade-started", "b4252e1d51e64f42aaadc0dc34c1e828", INFO, "Upgrade: the new master is pid %(NEW_MASTER_PID)s"
)
HANDED_OVER = Event(
    "handed-over", "a193d3b4a279489d9ebe92c447927f7b", INFO, "Handing over to the new master (pid %(NEW_MASTER_PID)s)"
)
UPGRADE_FAILED = Event(
    "upgrade-failed", "e8b81fe394af45bfb4954a5a3c23bb9a", ERROR, "Upgrade backed out, this master serves on: %(REASON)s"
)
PROMOTED = Event("promoted", "c8ae46304b0c4ad3aaf922b91ad3b0d8", INFO, "Master has been promoted.")
OLD_MASTER_DIED = Event(
    "old-master-died",
    "9709f744806e45238f91383c7fa32979",
    ERROR,
    "The old master died before it handed over: this one leaves, systemd starts another",
)
OLD_MASTER_KILLED = Event(
    "old-master-killed",
    "26209ca31b28401d864edcc94edba0c8",
    ERROR,
    "The old master (pid %(OLD_MASTER_PID)s) has not ended %(SECONDS).0f seconds after the hand-over and is killed",
)

# --- workers ----------------------------------------------------------------------------------------------------------

WORKER_DIED = Event(
    "worker-died",
    "04fc7c1eaf614911af70df95bd9b8783",
    ERROR,
    "Worker (pid:%(WORKER_PID)s) %(END)s",
    ("SLOT", "GENERATION"),
)
BOOT_TIMEOUT = Event(
    "boot-timeout",
    "99c5794474eb48e68b6fd3fdbd66ac53",
    CRITICAL,
    "WORKER BOOT TIMEOUT (pid:%(WORKER_PID)s): %(REASON)s",
    ("SLOT", "GENERATION"),
)
BACKING_OFF = Event(
    "backing-off",
    "4ffa4a971ab7471bb4bf427509afe026",
    ERROR,
    "%(REASON)s (%(DEATHS)d in a row, the next boots in %(SECONDS).1f s)",
)
WORKER_TIMEOUT = Event(
    "worker-timeout",
    "a3352a34c9234613b4e06adabb6f2f7f",
    CRITICAL,
    "WORKER TIMEOUT (pid:%(WORKER_PID)s): busy for %(SECONDS).1f seconds",
    ("SLOT", "GENERATION"),
)
WORKER_KILLED = Event(
    "worker-killed",
    "372d24bf4b914e37877b63b51bc3fd54",
    WARNING,
    "Worker (pid:%(WORKER_PID)s) did not finish in time and is killed",
    ("SLOT", "GENERATION"),
)
WORKER_PAUSED = Event(
    "worker-paused", "cc131bae088845368e723ae2b369a115", WARNING, "Worker (pid:%(WORKER_PID)s) was %(WHAT)s"
)
WORKER_RECYCLED = Event(
    "worker-recycled",
    "d6cc5cc071cc4557bf7b3dba517e94ca",
    INFO,
    "Worker %(WORKER_PID)s %(REASON)s and asks for its replacement",
)
WORKER_MUTE = Event(
    "worker-mute",
    "42a3ad47f1584569927362004d080269",
    WARNING,
    "Worker (pid:%(WORKER_PID)s) has closed its channel to the master, and %(WHAT)s",
    ("SLOT", "GENERATION"),
)
ORPHANED = Event(
    "orphaned",
    "be8be5af7c1546028023d5b0ab5e114c",
    WARNING,
    "The master is gone, worker %(WORKER_PID)s finishes its requests and leaves",
)

# --- requests and connections -----------------------------------------------------------------------------------------

REQUEST_FAILED = Event(
    "request-failed", "b1ffaae77b324386a478835f9316a784", ERROR, "Error handling request %(REQUEST)s", ("ERROR",)
)
REQUEST_TIMEOUT = Event(
    "request-timeout",
    "3a1fbf51108b461aac661ca3f1d79895",
    CRITICAL,
    "%(CALL)s%(note)s",
    ("REQUEST", "CLIENT", "SECONDS", "STACK", "WORKER_PID"),
    last=True,
)
REQUEST_CUT = Event(
    "request-cut",
    "113495d9545b4018861e979b25dd5f1b",
    WARNING,
    "%(CALL)s, and is cut: %(REASON)s",
    ("REQUEST", "CLIENT", "SECONDS", "WORKER_PID"),
    last=True,
)
CONNECTIONS_FULL = Event(
    "connections-full",
    "b6d9170a512a4f46b3839bf9ecf25e95",
    WARNING,
    "Worker %(WORKER_PID)s is full (%(CONNECTIONS)d connections): %(CLOSED)d idle ones were closed for new "
    "ones; see LimitNOFILE=",
)
ACCEPT_FAILED = Event(
    "accept-failed",
    "59de116a4bea4bccb575e5ac0fd9e01e",
    ERROR,
    "cannot accept on %(LISTENER)s: %(REASON)s; worker %(WORKER_PID)s has %(CONNECTIONS)d connections",
)
ADOPTION_FULL = Event(
    "adoption-full",
    "c792befc2e264e41b7012e23f25711fa",
    ERROR,
    "cannot take connections over: %(REASON)s; worker %(WORKER_PID)s has %(CONNECTIONS)d. They wait for "
    "%(SECONDS)g s; see LimitNOFILE=",
)
NOT_KEPT = Event(
    "connections-not-kept",
    "06eae432454b41988d8bcd9b27cf505f",
    WARNING,
    "systemd does not keep the queue of idle connections, a restart will close them: fd_store is set, and the "
    "unit needs FileDescriptorStoreMax=8 or more",
)
WRITES_LOST = Event(
    "writes-lost",
    "4dd10b1a44a8473f99c0757d0fa2ac01",
    WARNING,
    "%(COUNT)d writes to %(DESTINATION)s were lost: %(REASON)s",
)

EVENTS: tuple[Event, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Event))
