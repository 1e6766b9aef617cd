"""The arbiter: one master that keeps workers serving.

Method names are gunicorn's verbs. Each turn of `run` waits in the loop, handles the signals that came, decides what the
pool needs (decide.py), does it, and tells systemd what changed. Nothing here waits anywhere else: starting, reloading,
upgrading and stopping are states (lifecycle.py) with deadlines.
"""

import signal
import sys
from collections.abc import Callable
from signal import Signals
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from sdserve import SERVER_SOFTWARE, __version__
from sdserve.arbiter import decide
from sdserve.arbiter.commands import Commands
from sdserve.arbiter.control import Control
from sdserve.arbiter.generation import Generation, goal_of
from sdserve.arbiter.host import Host
from sdserve.arbiter.idle import watch_idleness
from sdserve.arbiter.lifecycle import MASTER, Master, MasterEvent, advance
from sdserve.arbiter.loop import TRY_AGAIN, Loop
from sdserve.arbiter.pidfile_claim import PidfileClaim
from sdserve.arbiter.pool import Pool
from sdserve.arbiter.preimport import preimport
from sdserve.arbiter.reload import Reload
from sdserve.arbiter.server import Server
from sdserve.arbiter.service_manager import ServiceManager
from sdserve.arbiter.shutdown import Shutdown
from sdserve.arbiter.signals import SignalQueue
from sdserve.arbiter.steps import Steps
from sdserve.arbiter.upgrade import Upgrade
from sdserve.errors import AddressInUse, AppImportError, BootError, ListenError, SdserveError
from sdserve.gateway.blame import account
from sdserve.process.handover import VARIABLE
from sdserve.process.listeners import Listener
from sdserve.status import Status
from sdserve.systemd.fdstore import Proof

if TYPE_CHECKING:
    from sdserve.config import Config

CRASHED = 255
SURVIVES = (Master.RUNNING, Master.RELOADING, Master.STOPPING)  # here an unforeseen error is no reason to end
LAST_TURNS = 10  # turns that fail one after the other, before the master gives up
ORPHANS_END = 1.0  # seconds beyond orphan_timeout in which the last worker of a dead master is gone
IN_USE_PAUSE = 1.0  # seconds between two attempts to listen on an address that is in use
IN_USE_PATIENCE = 5.0  # seconds for all of them, as in gunicorn


class Arbiter(Server):
    """A master process. `load` gives the configuration anew at each reload and raises ConfigError if it cannot."""

    def __init__(self, cfg: "Config", load: "Callable[[], Config]", host: Host | None = None) -> None:
        self.host = host = host or Host()
        super().__init__(cfg, host.log(cfg), host.pid())
        self.log.echo(True)
        self.load = load
        self.program = host.program()
        self.launched_with = {name: value for name, value in host.environ.items() if name != VARIABLE}
        host.environ["SERVER_SOFTWARE"] = SERVER_SOFTWARE
        self.state = Master.STARTING
        self.exit_status = 0
        self.trouble = ""  # the last failed reload or upgrade, in one line
        self.loop = Loop(host.selector(), host.now, self._note_failure)
        self._failed_turns = 0  # in a row
        self.signals = SignalQueue(host.pipe())
        self.claim = PidfileClaim(host, self.log)
        self.pool = Pool(self)
        self.children = self.pool.children
        self.reloading = Reload(self)
        self.upgrade = Upgrade(self, host.handover())
        self.ending = Shutdown(self)
        self.commands = Commands(self)
        self.control = Control(self.loop, self.log, self.commands.table(), host.bind)
        notifier = host.notifier(self.upgrade.succeeding)
        self.manager = ServiceManager(self.loop, self.log, notifier, host.watchdog(), self.pool.healthy)
        self.steps = Steps(host, self.manager)

    # --- start ----------------------------------------------------------------------------------------------------

    def run(self) -> NoReturn:
        """Serves until told to stop. Exits with 0, the code of the error that ended it, or 255 after a crash."""
        self.attempt(self.start)
        while self.state is not Master.DOWN:
            self.attempt(self.turn)
        sys.exit(self.exit_status)

    def attempt(self, step: Callable[[], None]) -> None:
        """Does one step of the run.

        Any error ends the start. Later, only one that says that no worker can be had does: what else goes wrong is
        logged, and the next turn tries again, while the workers serve on. When turn after turn fails, the loop is
        broken.
        """
        try:
            step()
            self._failed_turns = 0
        except Exception as error:
            self._failed_turns += 1
            if self.state in SURVIVES and self._failed_turns < LAST_TURNS and not isinstance(error, BootError):
                self._note_failure()
                self.host.pause(TRY_AGAIN)
                return
            if isinstance(error, SdserveError):
                if isinstance(error, AppImportError) and (told := account(error)):
                    self.log.error("Exception while loading the application\n%s", told)
                self.log.error("%s", error)
                self.log.debug("the start failed", exc_info=True)
                self.ending.crash(str(error), error.exit_code, error.errno)
                return
            self.log.exception("Unhandled exception in main loop")
            reason = f"Unhandled exception in main loop: {type(error).__name__}: {error}"
            self.ending.crash(reason, CRASHED, 0)

    def _note_failure(self) -> None:
        """Inside of an `except` clause: the loop goes on."""
        self.log.exception("Exception in the master, which goes on and tries again in %g s", TRY_AGAIN)

    def turn(self) -> None:
        """Waits for something to happen, and does what follows."""
        self.sleep()
        for signum in self.signals.take():
            self._heed(signum)
        self.manage_workers()
        self.report()
        self._complete()

    def _complete(self) -> None:
        if self.state is Master.DOWN:
            self.ending.complete()

    def setup(self, generation: Generation) -> None:
        """Makes `generation` the one in force: what new workers are forked with, and what everything here reads.

        Raises ConfigError when its log files cannot be opened; that may be so the first time only.
        """
        if generation.logs is None:
            generation.logs = self.log.open(generation.cfg.errorlog, generation.cfg.accesslog, generation.cfg.loglevel)
        self.generation = generation
        self.cfg = generation.cfg
        self.manager.spare = self.cfg.orphan_timeout + ORPHANS_END
        self.log.use(generation.logs)

    def announce(self) -> None:
        """Tells the log what a newly loaded configuration is, and what of it the operator may see differently."""
        for warning in self.cfg.warnings:
            self.log.warning("%s", warning)
        if self.generation is not None and self.generation.unused:
            source = self.cfg.settings["bind"].source
            unused = ", ".join(self.generation.unused)
            self.log.warning("bind (%s): %s is not used: systemd's sockets are, see ListenStream=", source, unused)
        if self.manager.watchdog.falls_short(self.manager.spare):
            self.log.warning(
                "WatchdogSec= is %g s, orphan_timeout %g s: should the master die, systemd may kill the workers before "
                "they have finished; let WatchdogSec= be longer by a few seconds",
                *(self.manager.watchdog.limit, self.cfg.orphan_timeout),
            )
        if self.log.is_enabled("debug"):
            lines = [f"  {name}: {setting.value}" for name, setting in self.cfg.settings.items()]
            self.log.debug("Current configuration:\n%s", "\n".join(lines))

    def start(self) -> None:
        """Claims what a master needs: signals, pidfile, listeners, the application if it is preloaded; then workers."""
        if self.cfg.daemon and not self.upgrade.succeeding:
            self.host.daemonize()
            self.log.setup(self.cfg.errorlog, self.cfg.accesslog, self.cfg.loglevel)
        self.pid = self.host.pid()
        self.init_signals()
        self.log.info("Starting sdserve %s", __version__)
        if self.cfg.config:
            self.log.info("Using config file: %s", self.cfg.config)
        generation = self.steps.step(
            *("the import of the worker class", self.cfg.boot_timeout),
            work=lambda: Generation.of(self.goal.generation, self.cfg, self.log),
        )
        self.setup(generation)
        self.goal = goal_of(self.cfg, generation.number)
        self.hook("nworkers_changed", self.num_workers, None)
        self.claim.make(self.cfg.pidfile, second=bool(self.master_pid))
        self.hook("on_starting")
        upgrade = self.upgrade
        found, self.adoption = self.host.found(upgrade.described, upgrade.inherited_queue, self.cfg.fd_store)
        self.systemd = any(listener.activated for listener in found)
        if not self._open_listeners(generation, found):
            return
        self.announce()
        self.take_title()
        self.log.debug("Arbiter booted")
        self.log.info("Listening at: %s (%s)", ",".join(map(str, self.LISTENERS)), self.pid)
        self.log.info("Using worker: %s", self.cfg.worker_class_str)
        self.store_queue()
        self.manager.begin()
        self.manager.ask_for_time(True)
        self.steps.step("the import of the application", self.cfg.boot_timeout, generation.preload)
        if not upgrade.succeeding:
            self.open_control()
        upgrade.listen()
        watch_idleness(self)
        self.hook("when_ready")
        self.manage_workers()
        self._complete()  # the very first worker could not be forked
        preimport()  # while the workers boot

    def _open_listeners(self, generation: Generation, found: list[Listener]) -> bool:
        """Opens what the configuration asks for. False when a signal said to stop meanwhile. Raises ListenError.

        Who has an address may be about to leave it, so one that is in use is tried again for some seconds.
        """
        until = self.loop.now() + IN_USE_PATIENCE
        while True:
            try:
                generation.open_listeners(found, self.host.bind)
                return True
            except AddressInUse as error:
                if self.loop.now() >= until:
                    raise
                self.log.error("%s; trying again in %g s", error, IN_USE_PAUSE)
            self.loop.call_at(self.loop.now() + IN_USE_PAUSE, lambda: None)
            self.loop.turn()
            for signum in self.signals.take():
                self._heed(signum)
            if self.state is not Master.STARTING:
                return False

    def init_signals(self) -> None:
        """Catches the signals of a master; the loop hears of them through a pipe."""
        self.host.catch_signals(self.signal, self.signals.pipe)
        self.loop.watch(self.signals.pipe, self.signals.pipe.drain)

    def signal(self, sig: int, frame: FrameType | None = None) -> None:
        """Queues a signal, as if it had been sent: what signal handlers call."""
        self.signals.put(sig)

    def take_title(self) -> None:
        """Shows in ps(1) which master this is."""
        self.host.title(f"sdserve: master [{self.proc_name}]")

    def wakeup(self) -> None:
        """Makes the loop turn."""
        self.signals.pipe.wake()

    def sleep(self) -> None:
        """Waits for the next event or deadline and runs what it calls for."""
        self.loop.turn()

    def open_control(self) -> None:
        """Listens to sdservectl, unless it does so already; anew where somebody took the socket's file away."""
        if self.cfg.control_socket and not self.control.reachable:
            try:
                self.control.open(self.cfg.control_socket)
            except ListenError as error:  # sdservectl will miss it, clients will not
                self.log.warning("no control socket: %s", error)

    def store_queue(self) -> None:
        """Has systemd keep the adoption queue beyond this master, and believes that it does till the contrary shows."""
        proof = self.adoption.store(self.manager.notifier)
        if proof is not None:
            self.loop.watch(proof, lambda: self._not_kept(proof))

    def _not_kept(self, proof: Proof) -> None:
        self.loop.unwatch(proof)
        proof.close()
        self.adoption.kept = False
        self.pool.tell_successors()
        self.log.warning(
            "systemd does not keep the queue of idle connections, a restart will close them: fd_store is set, and the "
            "unit needs FileDescriptorStoreMax=3 or more"
        )

    # --- signals --------------------------------------------------------------------------------------------------

    def _heed(self, signum: Signals) -> None:
        """One signal; what fails there must not keep the others from being heard."""
        try:
            self._handle(signum)
        except BootError:
            raise
        except Exception:
            self.log.exception("Exception while handling the signal %s", signum.name)

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

    def handle_rtmin(self) -> None:
        """RTMIN: graceful stop before a new start (RestartKillSignal=)."""
        self.stop(restart=True)

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
        if self.host.on_terminal():
            self.log.debug("SIGWINCH ignored. Not daemonized")
            return
        self.log.info("graceful stop of workers")
        self.upgrade.withdraws(self.num_workers)
        self.num_workers = 0

    def handle_chld(self) -> None:
        """CHLD: pidfds tell of deaths; this is for workers that were stopped, and for an init's orphans."""
        self.children.note_stops()
        self.reap_workers()

    # --- workers --------------------------------------------------------------------------------------------------

    def manage_workers(self) -> None:
        """Brings the pool nearer to the goal, then sees what state that leaves the master in."""
        self.pool.manage()
        goal = self.goal
        self._settle()
        if self.goal is not goal:  # a reload that had to wait has begun
            self.wakeup()

    def spawn_worker(self, slot: int) -> int:
        """Forks a worker into `slot` and returns its pid, or 0 if that failed and was dealt with."""
        return self.pool.spawn(slot)

    def spawn_workers(self) -> None:
        """Forks what is missing."""
        self.manage_workers()

    def murder_workers(self) -> None:
        """Ends the workers whose deadlines have passed."""
        self.manage_workers()

    def reap_workers(self) -> None:
        """Takes leave of all workers that have ended; as PID 1 of a container, of everybody's orphans too."""
        for handle in self.children:
            self.children.reap(handle)
        if self.pid == 1:
            self.host.reap_orphans(self.children.handles)

    def kill_worker(self, pid: int, sig: int) -> None:
        """Sends `sig` to one worker; nothing happens if it has ended."""
        handle = self.children.handles.get(pid)
        if handle is not None:
            handle.send(sig)

    def kill_workers(self, sig: int) -> None:
        """Sends `sig` to all workers."""
        for handle in self.children:
            handle.send(sig)

    # --- changes of state -----------------------------------------------------------------------------------------

    def advance(self, event: MasterEvent) -> None:
        before, self.state = self.state, advance(MASTER, self.state, event)
        self.log.trace(
            "%s %s: %s, was %s, now %s", self.master_name, self.pid, event.value, before.value, self.state.value
        )
        self.manager.ask_for_time(self.state in (Master.STARTING, Master.RELOADING, Master.STOPPING))

    def _settle(self) -> None:
        """Moves on when what the present state waits for has come."""
        serve = decide.all_serve(self.children.members(), self.goal)
        if self.state is Master.STARTING and serve:
            self.advance(MasterEvent.SERVES)
            self.log.echo(False)
            self.log.info("Ready: %s", self.status().line())
            self.manager.ready(self.status().line())
            self.upgrade.serves()
            self.reloading.catch_up()
        elif self.state is Master.RELOADING and serve and self.reloading.heeded():
            self.reloading.commit()
        elif self.state is Master.STOPPING and not self.children and not self.upgrade.waits:
            self.advance(MasterEvent.EMPTY)

    def reload(self) -> None:
        """Begins a reload; during a start or another reload, the next one after it."""
        self.reloading.begin()

    def reexec(self) -> None:
        """Launches a new master, unless there is a child or a parent of an upgrade already."""
        self.upgrade.begin()

    def maybe_promote_master(self) -> None:
        """Takes the pidfile and the name of the old master, once that has ended."""
        self.upgrade.promote()

    def stop(self, graceful: bool = True, restart: bool = False) -> None:
        """Begins to stop: no new connections, workers finish, or leave at once; ends when all are gone.

        `restart`: the service is started again at once, so idle connections may wait for that.
        """
        self.ending.begin(graceful, restart)

    def halt(self, reason: str, error: SdserveError) -> None:
        """Stops because of an error: its reason goes to the log and to systemd, its exit code is the process's."""
        self.ending.because(reason, error)

    # --- what others are told ---------------------------------------------------------------------------------------

    def status(self) -> Status:
        """What the service is doing right now."""
        now = self.loop.now()
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
            workers=tuple(handle.status(now) for handle in self.children),
        )

    def hook(self, name: str, *args: object) -> None:
        """Calls a hook of the configuration in force, bounded by `boot_timeout`. What it raises is the caller's."""
        self.steps.hook(name, getattr(self.cfg, name), self.cfg.boot_timeout, self, *args)

    def tolerant_hook(self, name: str, *args: object) -> None:
        """Calls a hook that only hears of something: what it raises is logged."""
        try:
            self.hook(name, *args)
        except Exception:
            self.log.exception("Exception in the %s hook", name)

    def report(self) -> None:
        """Brings STATUS= up to date; without a word where nothing changed."""
        if self.state is not Master.DOWN and self.exit_status == 0:
            self.manager.status(self.status().line())


VERBS: dict[Signals, Callable[[Arbiter], None]] = {
    signal.SIGHUP: Arbiter.handle_hup,
    signal.SIGQUIT: Arbiter.handle_quit,
    signal.SIGINT: Arbiter.handle_int,
    signal.SIGTERM: Arbiter.handle_term,
    signal.SIGRTMIN: Arbiter.handle_rtmin,
    signal.SIGTTIN: Arbiter.handle_ttin,
    signal.SIGTTOU: Arbiter.handle_ttou,
    signal.SIGUSR1: Arbiter.handle_usr1,
    signal.SIGUSR2: Arbiter.handle_usr2,
    signal.SIGWINCH: Arbiter.handle_winch,
    signal.SIGCHLD: Arbiter.handle_chld,
}
