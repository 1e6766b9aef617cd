"""The base of every worker class: what a process must do to be one of sdserve's workers.

A worker class serves requests in `run()` and leaves everything else to this base: signals, the channel to the master,
the busy mark, max_requests, the hooks around boot. Constructor and attribute names are gunicorn's, so hooks and
custom classes find what they know.

How a worker is told things:

- SIGTERM retires it: `alive` becomes False, it takes no new connection, finishes what it holds and returns from `run()`
  by `drain_by`. The end of file on the channel means that the master died: that retires it as well, for a shorter time.
- SIGINT and SIGQUIT end it at once: `quick` becomes True.
- SIGUSR1 reopens the log files. SIGABRT is how the master ends a hung worker: the stacks are logged, what can be saved
  is (`outlive`), the process goes.
- SIGHUP, SIGUSR2, SIGTTIN, SIGTTOU, SIGWINCH and SIGRTMIN are meant for masters. `systemctl kill` sends them to every
  process of a unit, so workers, and the programs that applications start, ignore them.

The master says by the channel what SIGTERM means, too: an application may have taken the signal for itself, and who was
told by somebody else does not know yet what becomes of the service. Every
signal also makes the wake-up pipe readable. A loop polls `control_fds()`, so whichever thread polls hears of it.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from sdserve.errors import BootError, Leave, call_hook
from sdserve.process import output
from sdserve.process.scoreboard import HAND_ON, HAND_ON_CRASH, HAND_ON_RESTART, HAND_ON_SUCCESSORS
from sdserve.workers.heartbeat import Heartbeat
from sdserve.workers.orphan import end_within
from sdserve.workers.preimport import preimport
from sdserve.workers.recycling import Recycling

if TYPE_CHECKING:
    from sdserve.config import Config
    from sdserve.log import Logger
    from sdserve.process.adoption import AdoptionQueue
    from sdserve.process.listeners import Listener
    from sdserve.process.scoreboard import Cell
    from sdserve.workers.application import Application

IGNORED = (
    *(signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH),
    signal.SIGRTMIN,
)
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1)

NEVER = float("inf")
LEAVE = 0.5  # seconds for the hook worker_exit and the way out, once the time for requests is over

# What a worker says to its master, one datagram each; a reason may follow a colon.
READY = b"ready"
RETIRING = b"retiring"
BUSY = b"busy"
RECYCLE = b"recycle"
FAILED = b"failed:"

# What a master says to its worker, besides the signal of the same meaning: the application may have taken that.
RETIRE = b"retire"

# Its answer to READY: a worker imports what it may need later. The first one of a start did not wait for that.
PREIMPORT = b"preimport"

STACKS = signal.SIGRTMIN + 1  # writes the stacks of all threads, and changes nothing
STDERR = 2  # the descriptor: sys.stderr may be anything that a hook or an application made of it


class Worker:
    """One process that serves. Subclasses implement `run()` and may extend `check_config`, `init_process`.

    The master makes the object before it forks (hooks see it there), so `__init__` must open nothing that only the
    child needs. `slot`, `generation`, `cell`, `adoption` and `channel` are the master's to set.
    """

    SIGNALS = (signal.SIGABRT, *HANDLED, *IGNORED)

    slot: int = 0
    generation: int = 0
    cell: "Cell"
    adoption: "AdoptionQueue | None" = None
    channel: socket.socket
    lifeline: int = -1  # the end of a pipe that only the master holds open
    wsgi: Callable[..., Any]

    def __init__(
        self,
        age: int,
        ppid: int,
        sockets: "Sequence[Listener]",
        app: "Application",
        timeout: float,
        cfg: "Config",
        log: "Logger",
    ) -> None:
        self.age = age
        self.pid: int | str = "[booting]"
        self.ppid = ppid
        self.sockets = sockets
        self.app = app
        self.timeout = timeout
        self.cfg = cfg
        self.log = log
        self.booted = False
        self.warming = ""  # the warm-up request that is being answered
        self.aborted = False
        self.alive = True
        self.quick = False
        self.drain_by: float | None = None
        self.reloader = None
        self.tmp = Heartbeat(self)
        self.nr = 0
        self._recycling = Recycling(cfg.max_requests, cfg.max_requests_jitter, cfg.max_memory)
        self.rewired: Callable[[int], None] = lambda fd: None  # hears of one more control fd to poll
        self.say_goodbye: Callable[[], None] = lambda: None  # the hook worker_exit, for ends that boot.py does not see
        self._replacing = False
        self._told = False  # the master has said that this worker shall leave, and by that, whether somebody follows
        self._orphaned = False
        self._wake_read = self._wake_write = -1

    def __str__(self) -> str:
        return f"<Worker {self.pid}>"

    # --- for subclasses -------------------------------------------------------------------------------------------

    @classmethod
    def check_config(cls, cfg: "Config", log: "Logger") -> None:
        """Looks at the configuration before anything is started. Raises ConfigError if this class cannot serve it."""

    def run(self) -> None:
        """Serves until `alive` is False and nothing is left to finish, or `quick` is True."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it serves: it has no run()")

    def init_process(self) -> None:
        """The child's life: load the application, warm up, report ready, serve. Subclasses call super() last.

        Raises AppImportError when the application cannot be loaded, HookError when a hook raises, BootError when a
        warm-up request fails.
        """
        self.load_wsgi()
        call_hook("post_worker_init", self.cfg.post_worker_init, self)
        for target in self.cfg.warmup:
            self.warming = target
            self.warm_up(target)
        self.warming = ""
        call_hook("post_worker_warmup", self.cfg.post_worker_warmup, self)
        self.booted = True
        if not self.tell(READY):
            raise BootError("the master cannot be told that this worker can serve")
        self.log.echo(False)
        self.log.trace("worker %s: serves", self.pid)
        self.run()

    @classmethod
    def check_app(cls, app: Callable[..., Any], uri: str) -> None:
        """Looks at the application that was loaded. Raises AppImportError if this class cannot serve it."""

    def load_wsgi(self) -> None:
        self.wsgi = self.app.wsgi()
        self.check_app(self.wsgi, self.app.app_uri)

    def warm_up(self, target: str) -> None:
        """Answers one request of the setting `warmup`, a path or a URL, before this worker is ready.

        Raises BootError when the answer is not good enough to serve. This base speaks no protocol and answers none.
        """
        self.log.warning("worker class %s has no warm-up: %s is not requested", type(self).__name__, target)

    def control_fds(self) -> list[int]:
        """The file descriptors that `run()` polls besides its listeners; give each readable one to `handle_control`."""
        return [self._wake_read, self.channel.fileno()]

    def handle_control(self, fd: int) -> None:
        """Hears what made a control fd readable; `alive` and `quick` say the rest. Never blocks."""
        if fd == self._wake_read:
            try:
                heard = os.read(fd, 4096)
            except BlockingIOError:  # another thread was quicker
                return
            for signum in dict.fromkeys(heard):
                self.handle_signal(signum)
        else:
            self._hear_master()

    def request_begins(self, now: float) -> None:
        """Marks this process busy since `now` (monotonic seconds); the master's `timeout` counts from here."""
        if self.cell.begin(now):
            self.tell(BUSY)

    def not_polling(self, now: float) -> None:
        """Marks this process busy without a request: if it does not poll again within `timeout`, it hangs."""
        if self.cell.mark(now):
            self.tell(BUSY)

    def request_ends(self) -> None:
        """Marks this process idle."""
        self.cell.end()

    def count_request(self, size: int = 0, errors: int = 0) -> None:
        """Counts one answered request (body bytes, 1 if its status was 500 or above) and asks for a successor in time.

        It serves on: the master boots the replacement first and retires it then.
        """
        self.count_requests(1, size, errors)

    def count_requests(self, count: int, size: int = 0, errors: int = 0) -> None:
        """`count_request` for several at a time."""
        self.nr += count
        self.cell.count(count, size, errors)
        if not self._replacing and (reason := self._recycling.reason(self.nr)):
            self.ask_for_replacement(reason)

    def ask_for_replacement(self, reason: str) -> bool:
        """Has the master boot a replacement, and retire this worker when that serves. Asking again changes nothing.

        False when the master cannot be told.
        """
        if not self._replacing:
            self.log.info("Worker %s %s and asks for its replacement", self.pid, reason)
            self._replacing = self.tell(RECYCLE)
        return self._replacing

    @property
    def gpu_id(self) -> int | str | None:
        """The GPU of this worker, by index or identifier, as `gpus` deals them; None without."""
        gpus = self.cfg.gpus
        device = gpus[self.slot % len(gpus)] if gpus else None
        return int(device) if device is not None and device.isdigit() else device

    @property
    def PIPE(self) -> tuple[int, int]:
        """The pipe that signals write to: its reading and its writing end."""
        return self._wake_read, self._wake_write

    @property
    def max_requests(self) -> int:
        """After how many requests this worker is replaced, jitter included."""
        return self._recycling.max_requests

    def notify(self) -> None:
        """gunicorn's heartbeat, for classes that call it. The master reads the busy mark instead."""

    @property
    def orphaned(self) -> bool:
        """Whether the master has died."""
        return self._orphaned

    def has_successors(self) -> bool:
        """Whether other workers serve on when this one leaves: it may pass on even what it has just accepted."""
        if self.adoption is None or self._orphaned:
            return False
        return bool(self.cell.word(HAND_ON) & HAND_ON_SUCCESSORS)

    def knows_who_follows(self) -> bool:
        """Whether the master has said what becomes of the service.

        SIGTERM may come from somebody else, to this worker or to all processes at once (KillMode=control-group): then
        the master answers RETIRING with RETIRE, once it has heard all signals itself.
        """
        return self._told or self._orphaned

    def interrupts(self, wanted: bool) -> None:
        """Whether a signal interrupts the call that the main thread waits in: its handler then runs at once."""
        for signum in HANDLED:
            signal.siginterrupt(signum, wanted)

    def hands_on(self) -> bool:
        """Whether this worker, which leaves, may pass its idle connections on: somebody will adopt them."""
        if self.adoption is None:
            return False
        wanted = HAND_ON_CRASH if self._orphaned else HAND_ON_SUCCESSORS | HAND_ON_RESTART
        return bool(self.cell.word(HAND_ON) & wanted)

    def retire(self) -> None:
        """Stop taking connections, finish, leave. Does nothing when it was said before."""
        if self.alive:
            self._retire()

    def _retire(self) -> None:
        self.alive = False
        self.drain_by = time.monotonic() + self.cfg.graceful_timeout
        self.tell(RETIRING)
        self.log.trace("worker %s: retires", self.pid)

    def tell(self, message: bytes) -> bool:
        """One datagram to the master; false if it was not sent.

        A master that is gone needs no telling: the channel's end of file says so.
        """
        try:
            self.channel.send(message)
        except (BrokenPipeError, ConnectionResetError):
            return True  # `handle_control` hears of it, and retires this worker
        except OSError as error:
            # Hundreds of messages unread: the master hangs. Or the kernel has no memory, or the application has closed
            # the channel. Each of our messages is repeated or superseded in time.
            self.log.debug("the master cannot be told %r: %s", message, error)
            return False
        return True

    # --- signals --------------------------------------------------------------------------------------------------

    def init_signals(self) -> None:
        """Replaces the master's signal handling by a worker's. Called in the child while all signals are blocked."""
        self._open_wake_up_pipe()
        for signum in IGNORED:
            signal.signal(signum, signal.SIG_IGN)
        for signum in HANDLED:
            signal.signal(signum, self._on_signal)
            signal.siginterrupt(signum, False)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        import faulthandler

        # A crash of C code writes the stacks of all threads by itself. ABRT is ours; for a worker that is stuck in C
        # code, and never comes to run a handler of Python's, there is STACKS, which needs no interpreter.
        faulthandler.enable(file=STDERR, all_threads=True)
        faulthandler.register(STACKS, file=STDERR, all_threads=True)
        signal.signal(signal.SIGABRT, self.handle_abort)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.handle_signal(signum)
        # The interpreter has written to the wake-up pipe, unless the application has taken that place (asyncio does),
        # or has closed the pipe.
        try:
            os.write(self._wake_write, bytes((signum,)))
        except BlockingIOError:
            pass
        except OSError:
            self._open_wake_up_pipe()
            os.write(self._wake_write, bytes((signum,)))
            self.rewired(self._wake_read)

    def _open_wake_up_pipe(self) -> None:
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def handle_signal(self, signum: int) -> None:
        """What a signal means to a worker; hearing one twice (handler and wake-up pipe) changes nothing."""
        if signum == signal.SIGTERM:
            self.retire()
        elif signum in (signal.SIGINT, signal.SIGQUIT):
            if self.quick:
                return
            self.alive = False
            self.quick = True
            try:
                self.cfg.worker_int(self)
            except Exception:
                self.log.exception("Exception in the worker_int hook")
        elif signum == signal.SIGUSR1:
            self.log.reopen_files()
        if not self.booted and not self.alive:
            # Nothing is served yet, so there is nothing to finish: do not wait for the end of a long import.
            raise Leave(0)

    def handle_abort(self, signum: int, frame: FrameType | None) -> None:
        """SIGABRT, as a rule from a master whose time-out this worker exceeded. All stacks are written first."""
        import faulthandler

        faulthandler.dump_traceback(STDERR, all_threads=True)
        self.alive = False
        if self.warming:
            limit = f"{self.cfg.boot_timeout:g} seconds (boot_timeout)"
            self.tell(FAILED + f"it did not boot within {limit}: warm-up of {self.warming} was not answered".encode())
        try:
            self.cfg.worker_abort(self)
        except Exception:
            self.log.exception("Exception in the worker_abort hook")
        try:
            if self.outlive(frame):
                return
        except BaseException:
            self.log.exception("Worker %s cannot finish what it holds", self.pid)
        try:
            self.log.critical("Worker aborted (pid %s)", self.pid)
            self.say_goodbye()
            output.flush_all()
        finally:
            os._exit(1)

    def outlive(self, frame: FrameType | None) -> bool:
        """Finishes what this worker holds besides the request that is stuck at `frame`, before the process goes.

        True when nothing is stuck any more: then the worker retires as at any other time.
        """
        return False

    def _hear_master(self) -> None:
        try:
            try:
                message = self.channel.recv(4096)
            except ConnectionResetError:  # told once, before the master's last words, or its end
                message = self.channel.recv(4096)
        except BlockingIOError:
            return
        except ConnectionResetError:
            message = b""
        if message == RETIRE:
            self._told = True
            self.retire()
        elif message == PREIMPORT:
            preimport()
        elif not message:
            self.outlive_master()

    def outlive_master(self) -> None:
        """The master has died: nobody takes what this worker holds before it leaves, and nobody else would end it."""
        if self._orphaned:
            return
        self.log.info("The master is gone, worker %s finishes its requests and leaves", self.pid)
        self._orphaned = True
        self.retire()
        patience = float(self.cfg.orphan_timeout)
        self.drain_by = min(self.drain_by or NEVER, time.monotonic() + patience)
        # A request that takes longer, in whatever code, ends with the process, and the log says where it was.
        end_within(patience + LEAVE, STDERR)
