"""How a worker is told things: by signals, by its master's words, and by its master's end.

- SIGTERM retires it: `alive` becomes False, it takes no new connection, finishes what it holds and returns from `run()`
  by `drain_by`. The end of file on the channel means that the master died: that retires it as well, for a shorter time.
- SIGINT and SIGQUIT end it at once: `quick` becomes True.
- Each of these ends a boot at once, by the exception Leave. From then on (`leaving`) it is on its way out, as the
  application's shutdown and the hook worker_exit are: another SIGTERM changes nothing, a quick end cuts that, too.
- SIGUSR1 reopens the log files. SIGABRT is how the master ends a hung worker: the stacks are logged, what can be saved
  is (`outlive`), the process goes.
- SIGRTMIN+3 asks which requests last (lasting.py), for an operator who looks.
- SIGHUP, SIGUSR2, SIGTTIN, SIGTTOU, SIGWINCH and SIGRTMIN are meant for masters. `systemctl kill` sends them to every
  process of a unit, so workers, and the programs that applications start, ignore them.

The master says RETIRE on the channel as well: an application may have taken SIGTERM for itself, and a worker that was
told by somebody else does not know yet what becomes of the service. Every signal also makes the wake-up pipe readable.
A loop polls `control_fds()`, so whichever thread polls hears of it.
"""

import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

from sdserve import events
from sdserve.descriptor import Meaning
from sdserve.errors import Leave, WantsToLeave
from sdserve.gateway import blame
from sdserve.process import foreign, output
from sdserve.process.counters import POLLS
from sdserve.process.ending import STDERR, end_within
from sdserve.process.forked import Border
from sdserve.workers.lasting import Lasting, encode
from sdserve.workers.orphan import NEWS
from sdserve.workers.preimport import preimport
from sdserve.workers.relief import give_back
from sdserve.workers.words import (
    ASKED_CALLS,
    ASKED_STACKS,
    CALLS,
    DRAIN,
    FAILED,
    GIVE_BACK,
    LONGEST,
    POLL,
    PREIMPORT,
    RETIRE,
    RETIRING,
    SHARE,
    STACKS,
    UNDRAIN,
    told_by,
)

if TYPE_CHECKING:
    from sdserve.config import Config
    from sdserve.log import Logger
    from sdserve.process.counters import CounterCell

IGNORED = signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH, signal.SIGRTMIN
ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
HANDLED = (*ENDINGS, signal.SIGUSR1)

# They mean something to a worker, and nothing to what it forks.
OWN_SIGNALS = (signal.SIGABRT, NEWS, ASKED_CALLS, *HANDLED)

LEAVE = 0.5  # seconds for the hook worker_exit and the way out, once the time for requests is over


class Told:
    """What a worker hears, and what it says to its master: the base of `Worker` (base.py).

    `channel`, `lifeline` and `stacks` are the master's to set.
    """

    SIGNALS = (signal.SIGABRT, *HANDLED, *IGNORED)

    pid: int | str
    cfg: "Config"
    log: "Logger"
    counters: "CounterCell"
    lifeline: int = -1  # the end of a pipe that only the master holds open
    stacks: int = -1  # the memfd that ASKED_STACKS writes to, and the master reads
    booted = False
    leaving = False  # the way out has begun, which SIGTERM does not cut
    warming = ""  # the warm-up request that is being answered
    alive = True
    quick = False
    drain_by: float | None = None
    _told = False  # the master has said RETIRE, and what becomes of the service is on the scoreboard by then
    orphaned = False  # the master has died
    _wake_read = _wake_write = -1

    def __init__(self) -> None:
        self.rewired: Callable[[int], None] = lambda fd: None  # hears of one more control fd to poll
        self.drains: Callable[[bool], None] = lambda wanted: None  # hears whether connections are to end
        self.shares: Callable[[], None] = lambda: None  # hears that the others serve as well
        self._theirs: Callable[..., object] | None = None  # what the application would do at SIGTERM
        self.say_goodbye: Callable[[], None] = lambda: None  # the hook worker_exit, for ends that boot.py does not see

    @property
    def channel(self) -> socket.socket:
        return self._channel

    @channel.setter
    def channel(self, channel: socket.socket) -> None:
        self._channel = channel
        self._meaning = Meaning(channel.fileno())

    @classmethod
    def later(cls, cfg: "Config") -> Iterable[str]:
        """Modules that a worker of this class may need later. The master imports them as well, for later workers."""
        return ()

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

    @property
    def PIPE(self) -> tuple[int, int]:
        """The pipe that signals write to: its reading and its writing end."""
        return self._wake_read, self._wake_write

    def knows_who_follows(self) -> bool:
        """Whether the master has said what becomes of the service.

        SIGTERM may come from somebody else, to this worker or to all processes at once (KillMode=control-group): then
        the master answers RETIRING with RETIRE, once it has heard all signals itself.
        """
        return self._told or self.orphaned

    def interrupts(self, wanted: bool) -> None:
        """Whether a signal that ends this worker interrupts the call that the main thread waits in: its handler then
        runs at once. None else does: C code may take an interrupted call for a failed one."""
        for signum in ENDINGS:
            signal.siginterrupt(signum, wanted)

    def take_back(self) -> None:
        """What ends this worker is heard by us, whatever the application has set for it while it was loaded.

        Many exit by SIGTERM, which would cost the requests of all its threads: its own handler is called when they are
        finished. What an event loop has set does no harm.
        """
        for signum in ENDINGS:
            found = signal.getsignal(signum)
            if found == self._on_signal or str(getattr(found, "__module__", "")).startswith(("asyncio.", "uvloop")):
                continue
            signal.signal(signum, self._on_signal)
            then = "whatever the application does at it"
            if signum == signal.SIGTERM and callable(found):
                self._theirs = found
                theirs = getattr(found, "__qualname__", found)
                then = f"once its requests are finished; then the application's {theirs!r} is called"
            self.log.info("%s ends this worker, %s", signum.name, then)

    def call_theirs(self) -> None:
        """The requests are finished: the application's handler of SIGTERM is called, if it has one."""
        handler, self._theirs = self._theirs, None
        if handler is None or self.alive or self.quick:
            return
        try:
            foreign.call(self.log.error, lambda: handler(signal.SIGTERM, None))
        except WantsToLeave:  # that is under way
            return
        except Exception:
            self.log.exception("Exception in the application's handler of SIGTERM")

    def retire(self) -> None:
        """Stop taking connections, finish, leave. Does nothing when it was said before."""
        if self.alive:
            self._retire()

    def _retire(self) -> None:
        self.drain_by = time.monotonic() + self.cfg.graceful_timeout  # first: others read it once `alive` is False
        self.alive = False
        self.tell(RETIRING)
        self.log.trace("worker %s: retires", self.pid)

    def tell(self, message: bytes) -> bool:
        """One datagram to the master; false if it was not sent.

        A master that is gone needs no telling: the channel's end of file says so.
        """
        try:
            self._meaning.demand()
            self.channel.send(message[:LONGEST])
        except (BrokenPipeError, ConnectionResetError):
            return True  # `handle_control` hears of it, and retires this worker
        except OSError as error:
            # The master has read none of hundreds, so it hangs; or the kernel has no memory; or the application has
            # closed the channel. Each message is said again, or superseded, in time.
            self.log.debug("the master cannot be told %r: %s", message, error)
            return False
        return True

    def hear_nothing(self) -> None:
        """Undoes `init_signals` in a process that the application has forked: its signals are its own.

        A request to open the log files anew is still heard: it may come to all processes of a unit.
        """
        for signum in OWN_SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
        signal.signal(ASKED_STACKS, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, lambda signum, frame: self.log.reopen_files())
        signal.set_wakeup_fd(-1)
        self.channel.close()
        fds = self._wake_read, self._wake_write, self.lifeline, self.stacks
        self._wake_read = self._wake_write = self.lifeline = self.stacks = -1
        for fd in fds:
            with suppress(OSError):  # it has none
                os.close(fd)

    def init_signals(self) -> None:
        """Replaces the master's signal handling by a worker's. Called in the child while all signals are blocked."""
        self._open_wake_up_pipe()
        for signum in IGNORED:
            signal.signal(signum, signal.SIG_IGN)
        for signum in HANDLED:
            signal.signal(signum, self._on_signal)
        signal.siginterrupt(signal.SIGUSR1, False)
        self.interrupts(True)  # until it serves: an import may wait for long, and be told to leave
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(ASKED_CALLS, self._tell_calls)
        import faulthandler

        # A crash of C code writes the stacks of all threads by itself. ABRT is ours. A worker that is stuck in
        # C code never runs handlers of Python's: STACKS needs no interpreter.
        faulthandler.enable(file=STDERR, all_threads=True)
        faulthandler.register(STACKS, file=STDERR, all_threads=True)
        if self.stacks >= 0:
            faulthandler.register(ASKED_STACKS, file=self.stacks, all_threads=True)
        signal.signal(signal.SIGABRT, self.handle_abort)

    def calls(self) -> Iterable[Lasting]:
        """The requests that the application has now; this base knows of none. Called in the main thread, on top of
        whatever that does."""
        return ()

    def _tell_calls(self, signum: int, frame: FrameType | None) -> None:
        try:
            self.tell(CALLS + encode(self.calls(), time.monotonic()))
        except (RecursionError, MemoryError) as error:  # the application has used all up, and is not to hear of it
            self.log.debug("worker %s cannot say what lasts: %r", self.pid, error)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.handle_signal(signum)
        # The interpreter has written to the wake-up pipe, unless the application has set another descriptor (asyncio
        # does), or closed the pipe.
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
        self.hear_signals()

    def hear_signals(self) -> None:
        """Has each signal wake whoever polls `control_fds`, also one that comes just before that."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def handle_signal(self, signum: int) -> None:
        """What a signal means to a worker; hearing one twice (handler and wake-up pipe) changes nothing."""
        if signum == signal.SIGTERM:
            self.retire()
            if not self.leaving:
                self._leave_now(signal.SIGTERM)
        elif signum in (signal.SIGINT, signal.SIGQUIT):
            if self.quick:
                return
            self.alive = False
            self.quick = True
            try:
                with Border(self.log.error):
                    self.cfg.worker_int(self)
            except Exception:
                self.log.exception("Exception in the worker_int hook")
            self._leave_now(signal.Signals(signum))
        elif signum == signal.SIGUSR1:
            self.log.reopen_files()

    def _leave_now(self, signum: signal.Signals) -> None:
        """Nothing is served yet, or any more: do not wait for the end of a long import, or of a shutdown."""
        if not self.booted or self.leaving:
            if not self.leaving:
                self.tell(FAILED + told_by(signum).encode())
            self.leaving = True
            self.interrupt_boot()

    def interrupt_boot(self) -> None:
        """Ends what the main thread does, from within a signal handler. Raises Leave, at once or where that is safe."""
        raise Leave(0)

    def handle_abort(self, signum: int, frame: FrameType | None) -> None:
        """SIGABRT, as a rule from a master whose time-out this worker exceeded. All stacks are written first."""
        import faulthandler

        faulthandler.dump_traceback(STDERR, all_threads=True)
        self.alive = False
        if not self.booted and not self.leaving:
            at = f"warm-up of {self.warming} was not answered" if self.warming else self.boots_at(frame)
            said = f"{told_by(signal.SIGABRT)}: {at}" if at else told_by(signal.SIGABRT)
            self.tell(FAILED + said.encode(errors="replace"))
        try:
            with Border(self.log.error):
                self.cfg.worker_abort(self)
        except Exception:
            self.log.exception("Exception in the worker_abort hook")
        try:
            if self.booted and self.outlive(frame):
                return
        except BaseException:
            self.log.exception("Worker %s cannot finish what it holds", self.pid)
        try:
            self.log.critical("Worker aborted (pid %s)", self.pid)
            self.say_goodbye()
            output.flush_all()
        finally:
            os._exit(1)

    def boots_at(self, frame: FrameType | None) -> str:
        """What a boot was at, whose main thread is at `frame`; "" if that is not known."""
        where = blame.standing(frame)
        return f"it was at {where}" if where else ""

    def outlive(self, frame: FrameType | None) -> bool:
        """Finishes what this worker holds besides the request that is stuck at `frame`, before the process goes.

        True when nothing is stuck any more: then the worker retires as at any other time.
        """
        return False

    def _hear_master(self) -> None:
        try:
            try:
                message = self.channel.recv(LONGEST)
            except ConnectionResetError:  # told once, before the master's last words, or its end
                message = self.channel.recv(LONGEST)
        except BlockingIOError:
            return
        except ConnectionResetError:
            message = b""
        if message == RETIRE:
            self._told = True
            self.retire()
        elif message == PREIMPORT:
            for name, error in preimport(self.later(self.cfg)):
                self.log.debug("worker %s cannot import %s: %r", self.pid, name, error)
        elif message in (DRAIN, UNDRAIN):
            self.drains(message == DRAIN)
        elif message == SHARE:
            self.shares()
        elif message == GIVE_BACK:
            self._give_back()
        elif message == POLL:
            self.counters.add(POLLS)
        elif not message:
            self.outlive_master()

    def _give_back(self) -> None:
        try:
            self.log.info("Memory pressure: worker %s gave back %d MiB", self.pid, give_back() >> 20)
        except OSError as error:
            self.log.debug("worker %s does not know its size: %s", self.pid, error)

    def outlive_master(self) -> None:
        """The master has died: retires, within `orphan_timeout`. Nobody else would end this process."""
        if self.orphaned:
            return
        self.log.event(events.ORPHANED, WORKER_PID=self.pid)
        self.orphaned = True
        self.retire()
        patience = float(self.cfg.orphan_timeout)
        self.drain_by = min(self.drain_by or math.inf, time.monotonic() + patience)
        # A request that takes longer, in whatever code, ends with the process, and the log says where it was then.
        end_within(patience + LEAVE)
