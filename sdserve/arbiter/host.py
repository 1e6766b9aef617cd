"""What a master asks of the machine it runs on: the one seam beneath the decisions.

What no start needs is imported where it is used, and stands in preimport.py.

The real one is here, thin enough to need no test of its own; the simulation puts a world of its own in its place
(tests/simulation), so the masters that it drives are the very ones that serve.
"""

import os
import select
import selectors
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from sdserve.arbiter.adoption import Adoption
from sdserve.arbiter.daemon import daemonize
from sdserve.arbiter.loop import Loop, Pipe
from sdserve.arbiter.signals import Handler, catch
from sdserve.arbiter.spawn import fork_worker
from sdserve.arbiter.worker_handle import WorkerHandle
from sdserve.config import Config
from sdserve.log import Logger
from sdserve.process import listeners, output
from sdserve.process.counter_memory import CounterMemory, obtain
from sdserve.process.handover import Handover
from sdserve.process.listeners import Listener
from sdserve.process.pidfd import Child, PidFd
from sdserve.process.pidfile import Pidfile
from sdserve.process.program import Program
from sdserve.process.timelimit import limited
from sdserve.systemd import activation, fdstore
from sdserve.systemd.notify import Notifier
from sdserve.systemd.watchdog import Watchdog
from sdserve.workers.boot import set_title

if TYPE_CHECKING:
    from sdserve.arbiter.addresses import Addresses
    from sdserve.arbiter.reexec import Reexec
    from sdserve.arbiter.service import Service


class Host:
    """The machine, as one process sees it. `environ` is its environment."""

    environ: MutableMapping[str, str] = os.environ

    pid = staticmethod(os.getpid)
    now = staticmethod(time.monotonic)  # seconds (CLOCK_MONOTONIC): no step of the wall clock moves it
    pause: Callable[[float], None] = staticmethod(time.sleep)  # after the loop has failed, and without it
    limited = staticmethod(limited)
    selector: Callable[[], selectors.BaseSelector] = staticmethod(selectors.DefaultSelector)
    pipe = staticmethod(Pipe)
    title = staticmethod(set_title)  # for ps(1)

    def program(self) -> Program:
        """How it was executed; to be asked at the start, while /proc has its memory as the kernel made it."""
        return Program.started()

    def catch_signals(self, handler: Handler, pipe: Pipe) -> None:
        catch(handler, pipe.write_fd)

    def daemonize(self) -> None:
        daemonize()
        output.install()

    def on_terminal(self) -> bool:
        return any(os.isatty(fd) for fd in (0, 1, 2))

    adopt = staticmethod(listeners.adopt)
    bind = staticmethod(listeners.bind)
    pidfile = staticmethod(Pidfile)

    def handover(self) -> Handover | None:
        """The connection to the old master, in a new one."""
        return Handover.inherited(self.environ)

    def found(
        self, described: Sequence[dict[str, Any]] | None, queue: list[int], counters: list[int], kept: bool
    ) -> tuple[list[Listener], Adoption, tuple[CounterMemory, str]]:
        """The passed listeners, the adoption queue, and the counters' memory with what is wrong with it.

        described: what the old master said of each listener; None: they are systemd's
        queue: the two ends of the old master's queue, or []
        counters: the old master's memory of counters, or []
        kept: whether systemd keeps the queue, for all that the configuration knows
        """
        taken = activation.take(self.environ)
        stored = [each for each in taken if each.name in fdstore.NAMES]
        counters = [*counters, *(each.fd for each in taken if each.name == fdstore.COUNTERS)]
        ours = (*fdstore.NAMES, fdstore.PROOF, fdstore.COUNTERS)
        passed = [each for each in taken if each.name not in ours]
        for each in taken:
            if each.name == fdstore.PROOF:  # the last master's, which systemd is about to drop
                os.close(each.fd)
        adoption = Adoption.found(stored, queue, kept=fdstore.offered(self.environ) or kept)
        if described is None:
            described = [{"activated": True}] * len(passed)
        listeners = [self.adopt(each.fd, each.name, told) for each, told in zip(passed, described, strict=True)]
        return listeners, adoption, obtain(counters)

    def log(self, cfg: Config) -> Logger:
        return Logger(*cfg.logging)

    def notifier(self, muted: bool) -> Notifier:
        return Notifier.from_environ(self.environ, muted=muted)

    def watchdog(self) -> Watchdog:
        return Watchdog.from_environ(self.environ)

    process = staticmethod(PidFd)
    fork_worker = staticmethod(fork_worker)
    handover_pair = staticmethod(Handover.pair)  # the old master's end, and the new one's

    def execute(self, reexec: "Reexec", passed: Sequence[Listener], handover: Handover) -> PidFd:
        """A new master. Raises OSError when there is no room for another process."""
        from sdserve.arbiter.reexec import fork_twice

        return fork_twice(lambda: reexec.execute(passed, handover))

    def fork_observer(self, service: "Service", addresses: "Addresses", lifeline: int) -> Child:
        """The process that answers on `service.observed`. Raises OSError when there is no room for another process."""
        from sdserve.arbiter.observe import fork_observer

        return fork_observer(service, addresses, lifeline)

    def end_leftovers(self) -> list[int]:
        """Ends what workers left running in this service; returns the pids."""
        from sdserve.process import control_group

        return control_group.end_others()

    def examine(
        self,
        loop: Loop,
        program: Program,
        directory: str,
        environ: Mapping[str, str],
        on_reason: Callable[[str], None],
    ) -> None:
        """Finds out why `program`, a new master in `directory`, ended without a word; `on_reason` gets one line."""
        from sdserve.arbiter.postmortem import examine

        examine(loop, program, directory, environ, on_reason)

    def moment(self, ago: float) -> str:
        """When it was so many seconds ago, as `systemctl status` shows times."""
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - ago))

    def await_ends(self, handles: Iterable[WorkerHandle], timeout: float) -> list[WorkerHandle]:
        """Waits without the loop for workers to end, and reaps them. Returns those left after `timeout` seconds."""
        by_fd = {handle.pidfd.fileno(): handle for handle in handles}
        poll = select.poll()
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        until = self.now() + timeout
        while by_fd:
            ready = poll.poll(max(0.0, until - self.now()) * 1000)
            if not ready:
                break
            for fd, _ in ready:
                poll.unregister(fd)
                by_fd.pop(fd).pidfd.reap()
        return list(by_fd.values())

    def reap_orphans(self) -> None:
        """Reaps everybody's orphans that have ended, as PID 1 must. A child of our own keeps its wait status for who
        waits for it: its pidfd tells."""
        try:
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if (child := Child.living(found.si_pid)) is not None:
                    child.reap()
                else:
                    os.waitpid(found.si_pid, 0)
        except ChildProcessError:
            return
