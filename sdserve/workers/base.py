"""The base of every worker class: what a process must do to be one of sdserve's workers.

A worker class serves requests in `run()` and leaves everything else to this base: signals, the channel to the master,
the busy mark, max_requests, the hooks around boot. Constructor and attribute names are gunicorn's, so hooks and
custom classes find what they know.
"""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from sdserve import events
from sdserve.errors import BootError, call_hook
from sdserve.process.counters import BYTES, CounterCell
from sdserve.process.forked import Border
from sdserve.process.scoreboard import HAND_ON, HAND_ON_CRASH, HAND_ON_RESTART, HAND_ON_SUCCESSORS
from sdserve.workers.recycling import Recycling
from sdserve.workers.told import Told
from sdserve.workers.words import BUSY, READY, RECYCLE

if TYPE_CHECKING:
    from sdserve.config import Config
    from sdserve.log import Logger
    from sdserve.process.adoption import AdoptionQueue
    from sdserve.process.listeners import Listener
    from sdserve.process.scoreboard import Cell
    from sdserve.workers.application import Application


NO_CELL = CounterCell.private()  # of a worker without a master


class Heartbeat:
    """gunicorn's `worker.tmp`, for hooks and worker classes that ask it for the last sign of life.

    Nothing is touched: the scoreboard says since when a worker is busy, and one that is not busy is well.
    """

    def __init__(self, worker: object) -> None:
        self._worker = worker

    def last_update(self) -> float:
        """Monotonic seconds: since when the worker is busy, or now where it is idle, or is not forked yet."""
        cell = getattr(self._worker, "cell", None)
        return (cell.busy_since if cell is not None else 0.0) or monotonic()

    def notify(self) -> None:
        """Nothing needs to be said."""

    def close(self) -> None:
        """Nothing is open."""


class Worker(Told):
    """One process that serves. Subclasses implement `run()` and may extend `check_config`, `init_process`.

    The master makes the object before it forks (hooks see it there), so `__init__` must open nothing that only the
    child needs. `slot`, `generation`, `cell`, `counters`, `adoption` and `channel` are the master's to set.
    """

    slot: int = 0
    generation: int = 0
    cell: "Cell"
    counters: CounterCell = NO_CELL
    adoption: "AdoptionQueue | None" = None
    wsgi: Callable[..., Any]
    adopts = False  # whether it serves connections that others leave in the adoption queue
    undecided = False  # whether the application decides what serves it: see auto.py

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
        super().__init__()
        self.aborted = False
        self.reloader = None
        self.tmp = Heartbeat(self)
        self.nr = 0
        self._recycling = Recycling(cfg.max_requests, cfg.max_requests_jitter, cfg.max_memory)
        self._worn = False  # and the log says so
        self._replacing = False  # and the master has been told

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
        with Border(self.log.error):
            self.load_wsgi()
            call_hook("post_worker_init", self.cfg.post_worker_init, self)
            self.prepare()
        for target in self.cfg.warmup:
            self.warming = target
            self.warm_up(target)
        self.warming = ""
        with Border(self.log.error):
            call_hook("post_worker_warmup", self.cfg.post_worker_warmup, self)
        self.get_ready()
        self.take_back()
        self.booted = True
        self.interrupts(False)
        if not self.tell(READY):
            raise BootError("the master cannot be told that this worker can serve")
        self.log.echo(False)
        self.log.trace("worker %s: serves", self.pid)
        self.run()

    def prepare(self) -> None:
        """What a class does once the application is there, before it is asked for anything. Raises BootError."""

    def get_ready(self) -> None:
        """Makes what `run` serves with, the last of the boot: what cannot be had is known before this worker is ready.

        Raises BootError.
        """

    @classmethod
    def check_app(cls, app: Callable[..., Any], uri: str) -> None:
        """Looks at the application that was loaded. Raises AppImportError if this class cannot serve it."""

    @classmethod
    def decide(cls, app: Callable[..., Any], uri: str) -> "tuple[type[Worker], str]":
        """The class that serves the application, and why, for the log: its name, and a reason in brackets."""
        return cls, cls.__name__

    def become(self, using: str) -> None:
        """Takes on the class that `decide` gave this reason for; nothing for one that was decided before."""

    def load_wsgi(self) -> None:
        self.wsgi = self.app.wsgi()
        self.check_app(self.wsgi, self.app.app_uri)

    def warm_up(self, target: str) -> None:
        """Answers one request of the setting `warmup`, a path or a URL, before this worker is ready.

        Raises BootError when the answer is not good enough to serve. This base speaks no protocol and answers none.
        """
        self.log.warning("worker class %s has no warm-up: %s is not requested", type(self).__name__, target)

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

        It took from the last `request_begins` on. Afterwards this worker serves on: the master boots the replacement
        first, and retires it then.
        """
        began = self.cell.last_busy
        self.counters.answered("500" if errors else "200", max(0.0, monotonic() - began) if began else 0.0)
        self.counters.add(BYTES, size)
        self.count_requests(1, began)

    def count_requests(self, count: int, since: float) -> None:
        """So many requests were answered, the last ones since `since` (monotonic seconds). `counters` has them."""
        self.nr = number = self.nr + count
        self.cell.answered(number, since)
        recycling = self._recycling
        if number >= recycling.looks_from and not self._replacing and (reason := recycling.reason(number)):
            self.ask_for_replacement(reason)

    def ask_for_replacement(self, reason: str) -> bool:
        """Has the master boot a replacement, and retire this worker when that serves. Asking again changes nothing.

        False when the master cannot be told.
        """
        if not self._worn:
            self._worn = True
            self.log.event(events.WORKER_RECYCLED, WORKER_PID=self.pid, REASON=reason)
        self._replacing = self._replacing or self.tell(RECYCLE)
        return self._replacing

    @property
    def gpu_id(self) -> int | str | None:
        """The GPU of this worker, by index or identifier, as `gpus` deals them; None without."""
        gpus = self.cfg.gpus
        device = gpus[self.slot % len(gpus)] if gpus else None
        return int(device) if device is not None and device.isdigit() else device

    @property
    def max_requests(self) -> int:
        """After how many requests this worker is replaced, jitter included."""
        return self._recycling.max_requests

    def notify(self) -> None:
        """gunicorn's heartbeat, for classes that call it. The master reads the busy mark instead."""

    def has_successors(self) -> bool:
        """Whether other workers serve on when this one leaves: it may pass on even what it has just accepted."""
        if self.adoption is None or self.orphaned:
            return False
        return bool(self.cell.word(HAND_ON) & HAND_ON_SUCCESSORS)

    def hands_on(self) -> bool:
        """Whether this worker, which leaves, may pass its idle connections on: somebody will adopt them."""
        if self.adoption is None:
            return False
        wanted = HAND_ON_CRASH if self.orphaned else HAND_ON_SUCCESSORS | HAND_ON_RESTART
        return bool(self.cell.word(HAND_ON) & wanted)

    def close_in_child(self) -> None:
        """Said in a process that the application has forked: it keeps nothing of this worker."""
        self.hear_nothing()
        for listener in self.sockets:
            listener.close()
        if self.adoption is not None:
            for end in (self.adoption.send_end, self.adoption.receive_end):
                end.close()
        if self.log.statsd is not None:
            self.log.statsd.close()
