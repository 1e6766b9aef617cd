"""What an operator may want to hear of: one table of events, each with its MESSAGE_ID, its text, and what to do then.

`Logger.event` logs one. In the journal it is a structured record, with what it is about in fields of their own:
SDSERVE_EVENT is its name, SDSERVE_REASON a REASON, and so on. Anywhere else it is the line that its message gives.

Parameters in capitals become fields, others stand in the message only. Subject and text are the catalogue's, which
`journalctl -x` shows: what has happened, and what to do. @SDSERVE_REASON@ is a field there. sdserve/sdserve.catalog and
the table in docs/reference/events.md are made of this by docs/generate.py. An id stands for its event for ever, and a
new one comes from `systemd-id128 new`.
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
    subject: str
    text: str
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

STARTING = Event(
    "starting",
    "f438f8537b68432faad235d4254074ff",
    INFO,
    "Starting sdserve %(VERSION)s",
    "sdserve @SDSERVE_VERSION@ starts",
    """A master process has begun to start: at the start of the service, and as the new master of an upgrade. It
    says 'ready' when all workers serve, or 'failed' with the reason.""",
)
READY = Event(
    "ready",
    "f7c2cad6bf594a4e8c3d9bcb0ce9fcc6",
    INFO,
    "Ready: %(STATUS)s",
    "All workers serve",
    """The wanted number of workers has loaded the application, and serves.

    @SDSERVE_STATUS@""",
)
FAILED = Event(
    "failed",
    "5a8ae51246b8416aa4b169f46fd9372e",
    ERROR,
    "%(REASON)s",
    "sdserve cannot serve",
    """The master ends, with exit status @SDSERVE_EXIT_STATUS@:

        @SDSERVE_REASON@

    Mend what the reason names, then `systemctl start @_SYSTEMD_UNIT@`. With the shipped units the statuses 1 (a
    setting, a socket), 3 (the application cannot be loaded) and 4 (there is no such application) lead to no
    further attempt. What was said just before this, with tracebacks: `journalctl -u @_SYSTEMD_UNIT@ -p err`.""",
    ("EXIT_STATUS",),
    last=True,
)
CRASHED = Event(
    "crashed",
    "240645650d184d52a655990b35dc5de0",
    ERROR,
    "Unhandled exception in main loop",
    "The master has crashed",
    """An error in sdserve itself has ended the master; the traceback is in the message. systemd starts the service
    again (Restart=on-failure). Please report it, with the traceback.""",
    last=True,
)
MASTER_ERROR = Event(
    "master-error",
    "203dcbb1679e436c8b48d004a607ef25",
    ERROR,
    "Exception in the master, which goes on and tries again in %(SECONDS)g s",
    "The master met an error, and goes on",
    """Something that nobody foresaw went wrong in the master; the traceback is in the message. The workers serve
    on. Ten such errors one after the other end the master. Often a limit of the system is behind it: memory,
    TasksMax=, LimitNOFILE=. Otherwise please report it.""",
)
RESIZED = Event(
    "resized",
    "ae625af210154591826837bc53d50767",
    INFO,
    "%(WORKERS)s workers are wanted, before it was %(BEFORE)s",
    "The number of workers is @SDSERVE_WORKERS@ now",
    """TTIN, TTOU, WINCH or sdservectl has changed the number of workers, till the next reload or start. The
    setting `workers` changes it for good.""",
)
DRAINING = Event(
    "draining",
    "d05d37cf07de4d13a158e3c450ceddb4",
    INFO,
    "Draining: health checks are answered so for %(SECONDS)g s, then %(then)s",
    "The service leaves its load balancer",
    """`sdservectl drain` was asked for. Everything is served as ever, while health checks ask for no more requests.
    `sdservectl undrain` takes it back.""",
)
DRAIN_ENDS_CONNECTIONS = Event(
    "drain-ends-connections",
    "4c4ae4270fe14ed4b13a92063ae8d808",
    INFO,
    "Draining: every answer ends its connection now",
    "The service drains, and ends its connections",
    """Load balancers have had their time to look elsewhere. Idle connections are closed, and each answer is the last
    of its connection. 'drained' follows when none is left, or graceful_timeout is over.""",
)
DRAINED = Event(
    "drained",
    "c350dbe5fa85445d9c7e63cc5d547038",
    INFO,
    "Drained: %(told)s",
    "The service has drained",
    """@SDSERVE_CONNECTIONS@ connections are left. The service can be stopped now; until then, or until `sdservectl
    undrain`, it goes on to drain.""",
    ("CONNECTIONS",),
)
UNDRAINED = Event(
    "undrained",
    "20cf230f8bcb45949d795cf5f44c26d4",
    INFO,
    "Draining is taken back",
    "The service wants requests again",
    """`sdservectl undrain` has taken the drain back: health checks say so, and connections are kept.""",
)
IDLE = Event(
    "idle",
    "9d413c9d012847dc87b14446cff6b42d",
    INFO,
    "No request for %(SECONDS)g seconds (idle_exit): leaving the socket to systemd",
    "Nobody asks: the service leaves the socket to systemd",
    """There was no request for @SDSERVE_SECONDS@ seconds (idle_exit), so the service stops. The next connection
    starts it again.""",
)
STOPPED = Event(
    "stopped",
    "3e42e38f91f24b68860215cea17ebabf",
    INFO,
    "Shutting down: %(MASTER)s",
    "The master has no workers any more, and ends",
    """All workers have left. After an upgrade this is the old master, and the new one serves; otherwise the
    service ends, with exit status @SDSERVE_EXIT_STATUS@. Requests that had no time to end were named before
    ('request-cut').""",
    ("EXIT_STATUS",),
    last=True,
)
# --- reload and upgrade -----------------------------------------------------------------------------------------------

RELOADED = Event(
    "reloaded",
    "72d986a4c97b4835a4f97aec1a2095ce",
    INFO,
    "Reloaded: %(STATUS)s",
    "Reloaded: generation @SDSERVE_GENERATION@ serves",
    """New workers with new configuration and code serve, and the old ones finish their requests and leave.

    @SDSERVE_STATUS@""",
    ("GENERATION",),
)
RELOAD_FAILED = Event(
    "reload-failed",
    "6ee63901621348099d69190221eea9c3",
    ERROR,
    "Reload failed, the old workers serve on: %(REASON)s",
    "A reload failed and was rolled back",
    """The new configuration or code does not serve:

        @SDSERVE_REASON@

    No request was lost: the old workers serve on, with the old configuration. Mend it, then `systemctl reload
    @_SYSTEMD_UNIT@` once more. Do not restart before that: a restart has no old workers to fall back on.
    Tracebacks: `journalctl -u @_SYSTEMD_UNIT@ -p err`.""",
)
UPGRADE_STARTED = Event(
    "upgrade-started",
    "b4252e1d51e64f42aaadc0dc34c1e828",
    INFO,
    "Upgrade: the new master is pid %(NEW_MASTER_PID)s",
    "A new master is booting (pid @SDSERVE_NEW_MASTER_PID@)",
    """The old master serves until the new one does. 'handed-over' or 'upgrade-failed' tells how it ends.""",
)
HANDED_OVER = Event(
    "handed-over",
    "a193d3b4a279489d9ebe92c447927f7b",
    INFO,
    "Handing over to the new master (pid %(NEW_MASTER_PID)s)",
    "The new master (pid @SDSERVE_NEW_MASTER_PID@) takes over",
    """The workers of the new master serve, and it is the main process of the unit from now on. The old workers
    give their idle connections to the new ones, finish their requests and leave.""",
)
UPGRADE_FAILED = Event(
    "upgrade-failed",
    "e8b81fe394af45bfb4954a5a3c23bb9a",
    ERROR,
    "Upgrade backed out, this master serves on: %(REASON)s",
    "An upgrade failed and was backed out",
    """The new master does not serve:

        @SDSERVE_REASON@

    No request was lost: the old master and its workers serve on. Mend it, then `sdservectl upgrade` once more.
    Do not restart before that: a restart has no old workers to fall back on.""",
)
PROMOTED = Event(
    "promoted",
    "c8ae46304b0c4ad3aaf922b91ad3b0d8",
    INFO,
    "Master has been promoted.",
    "The old master has ended: the upgrade is complete",
    """The new master has what the old one held by name: pidfile, title, control socket.""",
)
OLD_MASTER_DIED = Event(
    "old-master-died",
    "9709f744806e45238f91383c7fa32979",
    ERROR,
    "The old master died before it handed over: this one leaves, systemd starts another",
    "The old master died in the middle of an upgrade",
    """For systemd the dead process is still the main one, so the new master cannot take its place: it finishes its
    requests and leaves, and systemd starts the service again. Look before this record for what ended the old
    master.""",
)
OLD_MASTER_KILLED = Event(
    "old-master-killed",
    "26209ca31b28401d864edcc94edba0c8",
    ERROR,
    "The old master (pid %(OLD_MASTER_PID)s) has not ended %(SECONDS).0f seconds after the hand-over and is killed",
    "The old master did not end after an upgrade, and is killed",
    """Its workers had their time (graceful_timeout) and were ended, so it hangs itself: in a hook of the
    configuration (child_exit, on_exit), or because the machine stands still.""",
)
# --- workers ----------------------------------------------------------------------------------------------------------

WORKER_DIED = Event(
    "worker-died",
    "04fc7c1eaf614911af70df95bd9b8783",
    ERROR,
    "Worker (pid:%(WORKER_PID)s) %(END)s",
    "A worker died: it @SDSERVE_END@",
    """Nobody had told it to end; its requests are lost, and another worker takes its place at once. By SIGKILL it
    was the OOM killer as a rule: see `journalctl -k -g oom`, MemoryMax= of the unit, and the setting
    max_memory, which replaces a worker before that. By SIGSEGV or SIGABRT it was a C extension: the stacks of
    its threads are in the journal before this record. With an exit code it was the application, which called
    os._exit().""",
    ("SLOT", "GENERATION"),
)
BOOT_TIMEOUT = Event(
    "boot-timeout",
    "99c5794474eb48e68b6fd3fdbd66ac53",
    CRITICAL,
    "WORKER BOOT TIMEOUT (pid:%(WORKER_PID)s): %(REASON)s",
    "A worker took too long to boot, and is ended",
    """The application did not load in time: @SDSERVE_REASON@. The stacks in the journal around this record show
    where it was: it often waits for a database or a network that is not there. If it needs so long, raise
    boot_timeout, and TimeoutStartSec= of the unit with it.""",
    ("SLOT", "GENERATION"),
)
BACKING_OFF = Event(
    "backing-off",
    "4ffa4a971ab7471bb4bf427509afe026",
    ERROR,
    "%(REASON)s (%(DEATHS)d in a row, the next boots in %(SECONDS).1f s)",
    "Workers die one after the other: the next one waits",
    """@SDSERVE_REASON@

    This is number @SDSERVE_DEATHS@ in a row. Each time the next boot waits twice as long, up to 30 seconds, so
    that a fault that boots again and again takes nothing from the workers that serve. Mend what the reason
    names, then `systemctl reload @_SYSTEMD_UNIT@`, which boots new workers at once.""",
)
WORKER_TIMEOUT = Event(
    "worker-timeout",
    "a3352a34c9234613b4e06adabb6f2f7f",
    CRITICAL,
    "WORKER TIMEOUT (pid:%(WORKER_PID)s): busy for %(SECONDS).1f seconds",
    "A worker was busy for longer than timeout, and is ended",
    """Another worker takes its place. The record 'request-timeout' of the same worker names the request and shows
    where it was: `journalctl -u @_SYSTEMD_UNIT@ SDSERVE_WORKER_PID=@SDSERVE_WORKER_PID@`. Without one, C code
    did not return: then the stacks of its threads are in the journal after this record.""",
    ("SLOT", "GENERATION"),
)
WORKER_KILLED = Event(
    "worker-killed",
    "372d24bf4b914e37877b63b51bc3fd54",
    WARNING,
    "Worker (pid:%(WORKER_PID)s) did not finish in time and is killed",
    "A worker that should leave did not, and is killed",
    """It was told to leave, by a reload, an upgrade or a stop, and its time (graceful_timeout) is over. What it
    had not finished is lost; 'request-cut' names the requests where it could still say so. Long requests need a
    longer graceful_timeout, and a TimeoutStopSec= of the unit beyond that.""",
    ("SLOT", "GENERATION"),
)
WORKER_PAUSED = Event(
    "worker-paused",
    "cc131bae088845368e723ae2b369a115",
    WARNING,
    "Worker (pid:%(WORKER_PID)s) was %(WHAT)s",
    "A worker was @SDSERVE_WHAT@ by a signal",
    """Somebody has sent SIGSTOP or SIGCONT, or a debugger is at work. A worker that stays stopped for longer than
    timeout is ended.""",
)
WORKER_RECYCLED = Event(
    "worker-recycled",
    "d6cc5cc071cc4557bf7b3dba517e94ca",
    INFO,
    "Worker %(WORKER_PID)s %(REASON)s and asks for its replacement",
    "A worker is replaced: it @SDSERVE_REASON@",
    """It serves until its replacement does. Settings: max_requests, max_memory, max_age. A thread that is stuck
    leads to this as well.""",
)
ORPHANED = Event(
    "orphaned",
    "be8be5af7c1546028023d5b0ab5e114c",
    WARNING,
    "The master is gone, worker %(WORKER_PID)s finishes its requests and leaves",
    "The master died: a worker finishes its requests and leaves",
    """Nobody told the worker to leave: the master was killed, or crashed. systemd starts the service again. Look
    for who killed it: `journalctl -k -g oom`, and `systemctl status @_SYSTEMD_UNIT@`.""",
)
# --- requests and connections -----------------------------------------------------------------------------------------

REQUEST_FAILED = Event(
    "request-failed",
    "b1ffaae77b324386a478835f9316a784",
    ERROR,
    "Error handling request %(REQUEST)s",
    "The application raised @SDSERVE_ERROR@: @SDSERVE_REQUEST@",
    """The traceback is in the message. The client got 500, or a response that ends too early if it had begun.""",
    ("ERROR",),
)
REQUEST_TIMEOUT = Event(
    "request-timeout",
    "3a1fbf51108b461aac661ca3f1d79895",
    CRITICAL,
    "%(CALL)s%(note)s",
    "A request took longer than timeout: @SDSERVE_REQUEST@",
    """@SDSERVE_CALL@. The connection of its client is lost, its worker is replaced, and the other requests of that
    worker are finished. It was here:

    @SDSERVE_STACK@

    Give what it waits for a time-out of its own (a database, another service), or raise `timeout` if it needs
    so long.""",
    ("REQUEST", "CLIENT", "SECONDS", "STACK", "WORKER_PID"),
    last=True,
)
REQUEST_CUT = Event(
    "request-cut",
    "113495d9545b4018861e979b25dd5f1b",
    WARNING,
    "%(CALL)s, and is cut: %(REASON)s",
    "A stop, reload or upgrade cut a request short: @SDSERVE_REQUEST@",
    """Its worker had to leave (@SDSERVE_REASON@), and the request had not ended. Long requests need a longer
    graceful_timeout, and a TimeoutStopSec= of the unit beyond that.""",
    ("REQUEST", "CLIENT", "SECONDS", "WORKER_PID"),
    last=True,
)
CONNECTIONS_FULL = Event(
    "connections-full",
    "b6d9170a512a4f46b3839bf9ecf25e95",
    WARNING,
    "Worker %(WORKER_PID)s is full (%(CONNECTIONS)d connections): %(CLOSED)d idle ones were closed for new "
    "ones; see LimitNOFILE=",
    "A worker holds as many connections as it may",
    """Idle connections were closed to make room for new ones. Raise LimitNOFILE= of the unit, run more workers, or
    lower keepalive.""",
)
ACCEPT_FAILED = Event(
    "accept-failed",
    "59de116a4bea4bccb575e5ac0fd9e01e",
    ERROR,
    "cannot accept on %(LISTENER)s: %(REASON)s; worker %(WORKER_PID)s has %(CONNECTIONS)d connections",
    "A worker cannot accept connections: @SDSERVE_REASON@",
    """They wait in the queue of the socket for another worker, or for later. `Too many open files` asks for a
    higher LimitNOFILE= of the unit, unless the application leaks descriptors: see
    /proc/@SDSERVE_WORKER_PID@/fd.""",
)
ADOPTION_FULL = Event(
    "adoption-full",
    "c792befc2e264e41b7012e23f25711fa",
    ERROR,
    "cannot take connections over: %(REASON)s; worker %(WORKER_PID)s has %(CONNECTIONS)d. They wait for "
    "%(SECONDS)g s; see LimitNOFILE=",
    "There is no room for the connections of a worker that leaves",
    """After @SDSERVE_SECONDS@ seconds those that find no room are closed. Raise LimitNOFILE= of the unit: during a
    reload one worker may hold what two did.""",
)
NOT_KEPT = Event(
    "connections-not-kept",
    "06eae432454b41988d8bcd9b27cf505f",
    WARNING,
    "systemd does not keep the queue of idle connections, a restart will close them: fd_store is set, and the "
    "unit needs FileDescriptorStoreMax=8 or more",
    "A restart will close idle connections",
    """fd_store is set, and systemd does not take what is stored. Set FileDescriptorStoreMax=8 in @_SYSTEMD_UNIT@,
    as the shipped unit does.""",
)
WRITES_LOST = Event(
    "writes-lost",
    "4dd10b1a44a8473f99c0757d0fa2ac01",
    WARNING,
    "%(COUNT)d writes to %(DESTINATION)s were lost: %(REASON)s",
    "Log records were lost: @SDSERVE_REASON@",
    """@SDSERVE_COUNT@ writes to @SDSERVE_DESTINATION@ failed, and the service went on without them. A full disk,
    or a journald that did not read, is behind it as a rule.""",
)

EVENTS: tuple[Event, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Event))
