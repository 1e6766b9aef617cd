"""The arbiter: one master that keeps workers serving.

Method names are gunicorn's verbs. Each turn of `run` waits in the loop, handles the signals that came, decides what the
pool needs (pool.py), does it, and tells systemd what changed. Nothing here waits anywhere else: starting, reloading,
upgrading and stopping are states (lifecycle.py) with deadlines.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from signal import Signals
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from sdserve import SERVER_SOFTWARE, __version__
from sdserve.arbiter import crash, pool
from sdserve.arbiter.commands import Commands
from sdserve.arbiter.control import Control
from sdserve.arbiter.crew import Crew, backoff_after
from sdserve.arbiter.generation import Generation
from sdserve.arbiter.handle import Handle, describe
from sdserve.arbiter.lifecycle import MASTER, Master, MasterEvent, Phase, Upgrade, advance, allows
from sdserve.arbiter.loop import Deadline, Loop
from sdserve.arbiter.pool import Backoff, Goal, Kill, Retire, Spawn
from sdserve.arbiter.reload import Reload
from sdserve.arbiter.signals import SignalQueue
from sdserve.arbiter.spawn import fork_worker
from sdserve.arbiter.supervision import Supervision
from sdserve.arbiter.upgrade import Launch, Reexec, Succession
from sdserve.errors import AppImportError, BootError, ListenError, SdserveError
from sdserve.log import Logger
from sdserve.process import listeners
from sdserve.process.handover import VARIABLE, Handover
from sdserve.process.listeners import Listener
from sdserve.process.pidfile import Pidfile
from sdserve.process.scoreboard import REQUESTS
from sdserve.status import Status, WorkerStatus
from sdserve.systemd import activation
from sdserve.systemd.notify import Notifier
from sdserve.systemd.watchdog import Watchdog
from sdserve.workers.base import Worker
from sdserve.workers.boot import set_title

if TYPE_CHECKING:
    from sdserve.config import Config

BOOT_KILLS = 3  # boots ended by a signal from outside (the OOM killer, say) before they count as failed
LAST_BOOTS = 5  # failed boots in a row, with nobody serving, before the master gives up
CRASHED = 255


class Arbiter:
    """A master process. `load` gives the configuration anew at each reload and raises ConfigError if it cannot.

    The attributes that hooks find in gunicorn's arbiter are here under the same names.
    """

    def __init__(self, cfg: "Config", load: "Callable[[], Config]", handover: Handover | None = None) -> None:
        self.launched_with = dict(os.environ)
        os.environ["SERVER_SOFTWARE"] = SERVER_SOFTWARE
        self.cfg = cfg
        self.load = load
        self._handover = handover or Handover.inherited(os.environ)
        self.launched_with.pop(VARIABLE, None)
        self.log = Logger(cfg.errorlog, cfg.accesslog, cfg.loglevel)
        self.state = Master.STARTING
        self.goal = Goal(cfg.workers, gpus=max(1, len(cfg.gpus)))
        self.backoff = Backoff()
        self.worker_age = 0
        self.master_name = "Master"
        self.pid = os.getpid()
        self.pidfile: Pidfile | None = None
        self.systemd = False
        self.trouble = ""
        self.exit_status = 0
        self.succession: Succession | None = None
        self.upgrade_again = False
        self._kills_at_boot = 0
        self._wake: Deadline | None = None

    # --- what hooks read, by gunicorn's names ---------------------------------------------------------------------

    @property
    def num_workers(self) -> int:
        """The wanted number of workers; setting it tells `nworkers_changed`."""
        return self.goal.size

    @num_workers.setter
    def num_workers(self, value: int) -> None:
        old, self.goal = self.goal.size, replace(self.goal, size=value)
        self.cfg.nworkers_changed(self, value, old)

    @property
    def WORKERS(self) -> dict[int, Worker]:
        return {handle.pid: handle.worker for handle in self.crew}

    @property
    def LISTENERS(self) -> list[Listener]:
        return self.generation.listeners

    @property
    def master_pid(self) -> int:
        """The old master's pid while this one succeeds it, else 0."""
        return self.succession.parent if self.succession else 0

    @property
    def reexec_pid(self) -> int:
        """The new master's pid while an upgrade is under way, else 0."""
        return self.reexecution.pid

    @property
    def proc_name(self) -> str:
        return f"{self.cfg.proc_name}.2" if self.master_pid else str(self.cfg.proc_name)

    @property
    def app(self) -> Any:
        return self.generation.app

    @property
    def worker_class(self) -> type[Worker]:
        return self.generation.worker_class

    @property
    def address(self) -> list[Any]:
        return list(self.cfg.address)

    @property
    def timeout(self) -> float:
        return float(self.cfg.timeout)

    # --- start ----------------------------------------------------------------------------------------------------

    def run(self) -> NoReturn:
        """Serves until told to stop. Exits with 0, the code of the error that ended it, or 255 after a crash."""
        try:
            self.start()
            self.manage_workers()
            while self.state is not Master.DOWN:
                self.sleep()
                for signum in self.signals.take():
                    self._handle(signum)
                self.manage_workers()
                self._report()
            self.leave()
        except SdserveError as error:  # before anything was forked
            self._refuse(error)
        except Exception:
            self.log.exception("Unhandled exception in main loop")
            self._abandon()
        sys.exit(self.exit_status)

    def setup(self, cfg: "Config") -> None:
        """Makes `cfg` the configuration that everything here reads."""
        self.cfg = cfg
        self.log.setup(cfg.errorlog, cfg.accesslog, cfg.loglevel)

    def start(self) -> None:
        """Claims what a master needs: signals, pidfile, listeners, the application if it is preloaded."""
        if self.cfg.daemon and self._handover is None:
            from sdserve.arbiter.daemon import daemonize

            daemonize()
        self.pid = os.getpid()
        self.loop = Loop()
        self.signals = SignalQueue()
        self.init_signals()
        self.crew = Crew(self.loop, self.log, self)
        self.reexecution = Reexec(self.loop, self.log, self._successor_serves, self._successor_lost)
        self.reloading = Reload(self)
        self.commands = Commands(self)
        self.control = Control(self.loop, self.log, self.commands.table())
        self._adopt_predecessor()
        notifier = Notifier.from_environ(os.environ, muted=self.succession is not None)
        watchdog = Watchdog.from_environ(os.environ)
        self.supervision = Supervision(self.loop, self.log, notifier, watchdog, self._healthy)
        self.log.info("Starting sdserve %s", __version__)
        self._claim_pidfile()
        self.cfg.on_starting(self)
        self.generation = Generation.of(self.goal.generation, self.cfg, self.log)
        self.generation.enter()
        self.generation.open_listeners(self._inherited())
        set_title(f"sdserve: master [{self.proc_name}]")
        self.log.info("Listening at: %s (%s)", ",".join(map(str, self.LISTENERS)), self.pid)
        self.log.info("Using worker: %s", self.cfg.worker_class_str)
        self.supervision.begin()
        self.supervision.ask_for_time(True)
        self.generation.preload()
        self.num_workers = self.cfg.workers
        if self.succession is None:
            self._open_control()
        else:
            self.succession.begin()
        self.cfg.when_ready(self)

    def init_signals(self) -> None:
        """Catches the signals of a master; the loop hears of them through a pipe."""
        self.signals.install(self.signal)
        self.loop.watch(self.signals.pipe, self.signals.pipe.drain)

    def signal(self, sig: int, frame: FrameType | None = None) -> None:
        """Queues a signal, as if it had been sent: what signal handlers call."""
        self.signals.put(sig)

    def wakeup(self) -> None:
        """Makes the loop turn."""
        self.signals.pipe.wake()

    def sleep(self) -> None:
        """Waits for the next event or deadline and runs what it calls for."""
        self.loop.turn()

    def _adopt_predecessor(self) -> None:
        if self._handover is not None:
            self.succession = Succession(self.loop, self._handover, self._became_main, self.maybe_promote_master)
            self.master_name = "Master.2" if self.master_pid else "Master"

    def _claim_pidfile(self) -> None:
        if self.cfg.pidfile is not None:
            self.pidfile = Pidfile(f"{self.cfg.pidfile}.2" if self.master_pid else self.cfg.pidfile)
            self.pidfile.create(self.pid)

    def _inherited(self) -> list[Listener]:
        """The listeners from systemd, or from the old master, who also knows which were systemd's."""
        passed = activation.take(os.environ)
        if self.succession is None:
            found = [listeners.adopt(each.fd, each.name, activated=True) for each in passed]
        else:
            described = self.succession.described
            found = [
                listeners.adopt(each.fd, each.name, activated=told["activated"], inode=told["inode"])
                for each, told in zip(passed, described, strict=True)
            ]
        self.systemd = any(listener.activated for listener in found)
        return found

    def _open_control(self) -> None:
        if self.cfg.control_socket and self.control.listener is None:
            try:
                self.control.open(self.cfg.control_socket)
            except ListenError as error:  # sdservectl will miss it, clients will not
                self.log.warning("no control socket: %s", error)

    # --- signals --------------------------------------------------------------------------------------------------

    def _handle(self, signum: Signals) -> None:
        name = signum.name.removeprefix("SIG").lower()
        log = self.log.debug if signum == signal.SIGCHLD else self.log.info
        log("Handling signal: %s", name)
        VERBS[signum](self)

    def handle_hup(self) -> None:
        """HUP: new configuration, new workers, then the old ones retire."""
        self.log.info("Hang up: %s", self.master_name)
        self.reload()

    def handle_term(self) -> None:
        """TERM: graceful stop."""
        self.stop()

    def handle_int(self) -> None:
        """INT: quick stop."""
        self.stop(graceful=False)

    def handle_quit(self) -> None:
        """QUIT: quick stop."""
        self.stop(graceful=False)

    def handle_ttin(self) -> None:
        """TTIN: one worker more."""
        self.num_workers += 1

    def handle_ttou(self) -> None:
        """TTOU: one worker less; the last one stays."""
        if self.num_workers > 1:
            self.num_workers -= 1

    def handle_usr1(self) -> None:
        """USR1: log files are reopened, in the workers too."""
        self.log.reopen_files()
        self.kill_workers(signal.SIGUSR1)

    def handle_usr2(self) -> None:
        """USR2: a new master by re-exec."""
        self.reexec()

    def handle_winch(self) -> None:
        """WINCH: the workers retire, the master stays; a terminal sends it at each change of its size, so not there."""
        if any(os.isatty(fd) for fd in (0, 1, 2)):
            self.log.debug("SIGWINCH ignored. Not daemonized")
            return
        self.log.info("graceful stop of workers")
        self.num_workers = 0

    def handle_chld(self) -> None:
        """CHLD: pidfds tell of deaths; this is for workers that were stopped, and for an init's orphans."""
        self.crew.note_stops()
        self.reap_workers()

    # --- workers --------------------------------------------------------------------------------------------------

    def manage_workers(self) -> None:
        """Brings the pool nearer to the goal, then sees what state that leaves the master in."""
        now = time.monotonic()
        decision = pool.decide(self.crew.members(), self.goal, self.backoff, now)
        for action in decision.actions:
            if isinstance(action, Spawn):
                self.spawn_worker(action.slot)
            elif isinstance(action, Retire):
                self.crew.retire(self.crew.of_age(action.age))
            elif isinstance(action, Kill):
                self.crew.overdue(self.crew.of_age(action.age), action.phase)
        # The actions set deadlines of their own: the next decision is due at the earliest of all.
        due = [member.deadline for member in self.crew.members()] + [decision.wake_at]
        self._wake_at(min((when for when in due if when is not None), default=None))
        self._settle()

    def _wake_at(self, when: float | None) -> None:
        if self._wake is not None:
            if self._wake.when == when and not self._wake.cancelled:
                return
            self._wake.cancel()
        self._wake = None if when is None else self.loop.call_at(when, lambda: None)

    def spawn_worker(self, slot: int) -> int:
        """Forks a worker into `slot` and returns its pid."""
        self.worker_age += 1
        generation = self.generation
        worker = generation.worker_class(
            self.worker_age, self.pid, generation.listeners, generation.app, self.timeout, self.cfg, self.log
        )
        worker.slot = slot
        worker.generation = generation.number
        self.cfg.pre_fork(self, worker)
        title = f"sdserve: worker [{self.proc_name}]"
        handle = fork_worker(worker, self, self.crew.scoreboard, title, self.loop.close)
        self.crew.add(handle)
        return handle.pid

    def spawn_workers(self) -> None:
        """Forks what is missing."""
        self.manage_workers()

    def murder_workers(self) -> None:
        """Ends the workers whose deadlines have passed."""
        self.manage_workers()

    def reap_workers(self) -> None:
        """Takes leave of all workers that have ended; as PID 1 of a container, of everybody's orphans too."""
        for handle in self.crew:
            self.crew.reap(handle)
        if self.pid == 1:
            self._reap_orphans()

    def _reap_orphans(self) -> None:
        try:
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if found.si_pid in self.crew.handles:
                    return  # its pidfd will tell
                os.waitpid(found.si_pid, 0)
        except ChildProcessError:
            return

    def kill_worker(self, pid: int, sig: int) -> None:
        """Sends `sig` to one worker; nothing happens if it has ended."""
        handle = self.crew.handles.get(pid)
        if handle is not None:
            handle.send(sig)

    def kill_workers(self, sig: int) -> None:
        """Sends `sig` to all workers."""
        for handle in self.crew:
            handle.send(sig)

    def worker_ready(self, handle: Handle) -> None:
        """A worker serves."""
        self._kills_at_boot = 0

    def worker_gone(self, handle: Handle, status: int) -> None:
        """A worker has ended: what that means depends on how far it had come, and on what the master is doing."""
        self.backoff = backoff_after(self.backoff, handle, time.monotonic())
        if handle.ended_in in (Phase.BOOTING, Phase.ABORTED) and handle.serving_since is None:
            self._boot_failed(handle, status)
        elif self.backoff.deaths > 1:
            wait = max(0.0, self.backoff.not_before - time.monotonic())
            self.log.warning("Workers keep dying (%d in a row), the next boots in %.1f s", self.backoff.deaths, wait)
        self.cfg.child_exit(self, handle.worker)

    def _boot_failed(self, handle: Handle, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        if code < 0 and not handle.worker.aborted:
            self._kills_at_boot += 1
            if self._kills_at_boot < BOOT_KILLS:
                return  # somebody killed it, which says nothing about the application: try again
        app = code == AppImportError.exit_code
        what = "App failed to load" if app else "Worker failed to boot"
        reason = f"{what}: {handle.reason or f'it {describe(status)}'}"
        if self.state is Master.STARTING:
            self.halt(reason, AppImportError(reason) if app else BootError(reason))
        elif self.state is Master.RELOADING and handle.generation == self.goal.generation:
            self.reloading.roll_back(reason)
        elif self.state is not Master.STOPPING:
            self.trouble = reason
            wait = max(0.0, self.backoff.not_before - time.monotonic())
            self.log.error("%s (attempt %d, the next in %.1f s)", reason, self.backoff.deaths, wait)
            if self.backoff.deaths >= LAST_BOOTS and not pool.some_serve(self.crew.members()):
                self.halt(reason, AppImportError(reason) if app else BootError(reason))

    def _healthy(self) -> bool:
        """Whether the watchdog may be told that all is well: a worker can answer, or none is wanted."""
        return self.goal.size == 0 or self.state is Master.STARTING or pool.some_serve(self.crew.members())

    # --- changes of state -----------------------------------------------------------------------------------------

    def advance(self, event: MasterEvent) -> None:
        before, self.state = self.state, advance(MASTER, self.state, event)
        self.log.trace(
            "%s %s: %s, was %s, now %s", self.master_name, self.pid, event.value, before.value, self.state.value
        )
        self.supervision.ask_for_time(self.state in (Master.STARTING, Master.RELOADING, Master.STOPPING))

    def _settle(self) -> None:
        """Moves on when what the present state waits for has come."""
        serve = pool.all_serve(self.crew.members(), self.goal)
        if self.state is Master.STARTING and serve:
            self.advance(MasterEvent.SERVES)
            self.log.info("Ready: %s", self.status().line())
            self.supervision.ready(self.status().line())
            if self.succession is not None:
                self.succession.ready()
        elif self.state is Master.RELOADING and serve and self.reloading.heeded():
            self.reloading.commit()
        elif self.state is Master.STOPPING and not self.crew and not self._predecessor_drains():
            self.advance(MasterEvent.EMPTY)

    def _predecessor_drains(self) -> bool:
        """Whether the old master is finishing requests: when the main process ends, systemd kills what is left."""
        return self.succession is not None and self.succession.is_main and bool(self.master_pid)

    def reload(self) -> None:
        """Begins a reload; during a start or another reload, the next one after it."""
        self.reloading.begin()

    def reexec(self) -> None:
        """Launches a new master, unless there is a child or a parent of an upgrade already."""
        if self.reexec_pid:
            self.log.warning("USR2 signal ignored. Child exists.")
        elif self.master_pid and self.succession is not None and self.succession.is_main:
            self.log.info("USR2: the old master (pid %s) still drains, the upgrade follows its end", self.master_pid)
            self.upgrade_again = True
        elif self.master_pid:
            self.log.warning("USR2 signal ignored. Parent exists.")
        elif not allows(MASTER, self.state, MasterEvent.STOP) or self.state in (Master.STARTING, Master.STOPPING):
            self.log.warning("USR2 signal ignored. The server is %s.", self.state.value)
        else:
            launch = Launch(
                self.cfg.directory, self.launched_with, self._for_successor, lambda: self.cfg.pre_exec(self)
            )
            patience = self.cfg.boot_timeout + pool.Backoff.CAP if self.cfg.boot_timeout else None
            self.reexecution.start(self.LISTENERS, launch, patience)
            self.log.info("Upgrade: the new master is pid %s", self.reexec_pid)

    def _for_successor(self, pid: int) -> dict[str, str]:
        return {**self.supervision.notifier.variables(), **self.supervision.watchdog.variables(pid)}

    @property
    def upgrades_itself(self) -> bool:
        """Whether a new master takes over by itself once it serves (upgrade=auto), or waits for the operator."""
        if self.cfg.upgrade is None:
            return self.systemd or self.supervision.notifier.enabled
        return bool(self.cfg.upgrade == "auto")

    def _successor_serves(self) -> None:
        self.log.info("Upgrade: the new master (pid %s) serves", self.reexec_pid)
        self.trouble = ""
        if self.upgrades_itself:
            self.stop()
        else:
            self.commands.upgraded("")

    def _successor_lost(self, reason: str) -> None:
        self.log.error("Upgrade backed out, this master serves on: %s", reason)
        self.trouble = f"upgrade failed: {reason}"
        self.commands.upgraded(reason)

    def hand_over(self) -> None:
        """Makes the new master the main process: first for systemd, then for itself, with the control socket."""
        self.log.info("Handing over to the new master (pid %s)", self.reexec_pid)
        self.supervision.main_pid(self.reexec_pid)
        self.commands.upgraded("")
        self.reexecution.hand_over(self.control.release())

    def _became_main(self, message: dict[str, Any]) -> None:
        for fd in message["fds"]:
            told = message["control"]
            self.control.adopt(listeners.adopt(fd, activated=told["activated"], inode=told["inode"]))
        self._open_control()
        self.supervision.become_main(self.status().line())
        self.log.info("This master (pid %s) is the main process now", self.pid)

    def maybe_promote_master(self) -> None:
        """Takes the pidfile and the name of the old master, once that has ended."""
        if self.succession is None or self.master_pid:
            return
        was_main = self.succession.is_main
        self.succession = None
        self.master_name = "Master"
        self.log.info("Master has been promoted.")
        if self.pidfile is not None and self.cfg.pidfile is not None:
            self.pidfile.rename(self.cfg.pidfile)
        set_title(f"sdserve: master [{self.proc_name}]")
        if not was_main and self.state is not Master.STOPPING:
            self._open_control()
            self.supervision.become_main(self.status().line())
        if self.upgrade_again:
            self.upgrade_again = False
            self.reexec()

    def stop(self, graceful: bool = True) -> None:
        """Begins to stop: no new connections, workers finish, or leave at once; ends when all are gone."""
        if self.state is Master.DOWN:
            return
        first = self.state is not Master.STOPPING
        if first:
            self.reloading.abandon()
            if self.reexecution.state is Upgrade.SERVING:
                self.hand_over()
            elif self.reexecution.state is Upgrade.BOOTING and self.upgrades_itself:
                self.reexecution.drop("the service is being stopped")
        self.advance(MasterEvent.STOP)
        self.goal = replace(self.goal, stopping=True)
        if first:
            self.supervision.stopping(self.status().line())
            self._close_listeners()
        if not graceful:
            for handle in self.crew:
                self.crew.retire(handle, graceful=False)

    def halt(self, reason: str, error: SdserveError) -> None:
        """Stops because of an error: its reason goes to the log and to systemd, its exit code is the process's."""
        self.log.error("%s", reason)
        self.exit_status = error.exit_code
        self.trouble = reason
        if self.succession is not None:
            self.succession.failed(reason)
        self.stop(graceful=False)
        self.supervision.failed(reason, error.errno)

    def _close_listeners(self) -> None:
        """Lets go of the listeners; a Unix socket's file is removed by the last master that has it."""
        alone = not self.reexec_pid and not self.master_pid
        for listener in self.LISTENERS:
            if alone:
                listener.unlink()
            listener.close()

    def leave(self) -> None:
        """The last things of an orderly end."""
        (self.log.info if self.exit_status == 0 else self.log.error)("Shutting down: %s", self.master_name)
        self.control.close()
        if self.pidfile is not None:
            self.pidfile.unlink()
        self.cfg.on_exit(self)

    def _refuse(self, error: SdserveError) -> None:
        """Ends a start that failed before there was a worker."""
        self.log.error("%s", error)
        self.log.debug("the start failed", exc_info=True)
        self.exit_status = error.exit_code
        if self._handover is not None:
            self._handover.send("failed", reason=str(error))
        if hasattr(self, "supervision"):
            self.supervision.failed(str(error), error.errno)
        if hasattr(self, "generation"):
            self._close_listeners()
        if self.pidfile is not None:
            self.pidfile.unlink()

    def _abandon(self) -> None:
        """Ends everything after the loop itself broke."""
        self.exit_status = CRASHED
        if hasattr(self, "crew"):
            crash.end_all(self.crew)
        if self.pidfile is not None:
            self.pidfile.unlink()

    # --- what others are told ---------------------------------------------------------------------------------------

    def status(self) -> Status:
        """What the service is doing right now."""
        now = time.monotonic()
        return Status(
            version=__version__,
            master=self.master_name,
            pid=self.pid,
            state=self.state.value,
            generation=self.goal.generation,
            wanted=self.goal.size,
            successor=self.reexec_pid,
            predecessor=self.master_pid,
            trouble=self.trouble,
            listeners=tuple(map(str, self.LISTENERS)),
            workers=tuple(worker_status(handle, now) for handle in self.crew),
        )

    def _report(self) -> None:
        if self.state is not Master.DOWN and self.exit_status == 0:
            self.supervision.status(self.status().line())


VERBS: dict[Signals, Callable[[Arbiter], None]] = {
    signal.SIGHUP: Arbiter.handle_hup,
    signal.SIGQUIT: Arbiter.handle_quit,
    signal.SIGINT: Arbiter.handle_int,
    signal.SIGTERM: Arbiter.handle_term,
    signal.SIGTTIN: Arbiter.handle_ttin,
    signal.SIGTTOU: Arbiter.handle_ttou,
    signal.SIGUSR1: Arbiter.handle_usr1,
    signal.SIGUSR2: Arbiter.handle_usr2,
    signal.SIGWINCH: Arbiter.handle_winch,
    signal.SIGCHLD: Arbiter.handle_chld,
}


def worker_status(handle: Handle, now: float) -> WorkerStatus:
    """A worker as the scoreboard shows it at `now`."""
    since = handle.cell.busy_since
    return WorkerStatus(
        pid=handle.pid,
        slot=handle.worker.slot,
        generation=handle.generation,
        phase=handle.phase.value,
        requests=handle.cell.word(REQUESTS),
        busy=now - since if since else None,
    )
