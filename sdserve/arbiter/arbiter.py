"""The arbiter: one master that keeps workers serving. Here it is put together, and has gunicorn's verbs.

Each turn of `run` waits in the loop, handles the signals that came, decides what the pool needs (decide.py), does it,
and tells systemd what changed. Nothing here waits anywhere else: starting, reloading, handing over and stopping are
states (lifecycle.py) with deadlines.
"""

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from signal import Signals
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from sdserve import SERVER_SOFTWARE, events
from sdserve.arbiter.addresses import Addresses
from sdserve.arbiter.hooks import Hooks
from sdserve.arbiter.host import Host
from sdserve.arbiter.lifecycle import LEAVING, Master, MasterEvent
from sdserve.arbiter.loop import TRY_AGAIN, Loop
from sdserve.arbiter.pidfile_claim import PidfileClaim
from sdserve.arbiter.pool import Pool
from sdserve.arbiter.preimport import preimport
from sdserve.arbiter.server import Server
from sdserve.arbiter.service import Service
from sdserve.arbiter.service_manager import ServiceManager
from sdserve.arbiter.signals import SignalQueue
from sdserve.arbiter.start import Start
from sdserve.arbiter.steps import Steps
from sdserve.config import Config
from sdserve.errors import AppImportError, BootError, Interruption, SdserveError, WantsToLeave, in_words, out_of_room
from sdserve.gateway.blame import account
from sdserve.process.ending import leave_within
from sdserve.process.forked import exit_code, leave
from sdserve.process.handover import VARIABLE

if TYPE_CHECKING:
    from sdserve.arbiter.commands import Commands
    from sdserve.arbiter.control import Control
    from sdserve.arbiter.new_master import NewMaster
    from sdserve.arbiter.observation import Observation
    from sdserve.arbiter.old_master import OldMaster
    from sdserve.arbiter.policy import Parts
    from sdserve.arbiter.reload import Reload
    from sdserve.arbiter.shutdown import Shutdown

CRASHED = 255
SURVIVES = (Master.RUNNING, Master.RELOADING, *LEAVING)  # here an unforeseen error is no reason to end
LAST_WORDS = 3.0  # seconds for threads and atexit functions of an application that was preloaded
LAST_TURNS = 10  # turns that fail one after the other, before the master gives up


class Arbiter(Server):
    """A master process. `load` reads the configuration again at each reload and raises ConfigError if it cannot."""

    def __init__(self, cfg: Config, load: Callable[[], Config], host: Host | None = None) -> None:
        self.host = host = host or Host()
        self._load = load
        self._program = host.program()
        launched_with = {name: value for name, value in host.environ.items() if name != VARIABLE}
        host.environ["SERVER_SOFTWARE"] = SERVER_SOFTWARE
        self.loop = loop = Loop(host.selector(), host.now, self._note_failure)
        self._failed_turns = 0  # in a row
        self.signals = SignalQueue(host.pipe())
        self.service = service = Service(cfg, loop, host.log(cfg), host.pid(), launched_with)
        service.log.echo(True)
        self.addresses = addresses = Addresses(service)
        self._handover = host.handover()
        succeeds = self._handover is not None
        notifier = host.notifier(muted=succeeds)
        self.manager = manager = ServiceManager(service, notifier, host.watchdog(), lambda: self.pool.healthy())
        self._steps = steps = Steps(host, manager, service.log.error)
        self._hooks = hooks = Hooks(service, steps, self)
        self.claim = claim = PidfileClaim(host, service.log)
        self.pool = pool = Pool(
            service, host, addresses, hooks, lambda reason: self.reloading.roll_back(reason), self.halt
        )
        parts = (service, host, addresses, pool, manager, claim, hooks, steps)
        self.starting = Start(parts, self.new_master if succeeds else None, self._handle_signals)

    # --- rooms that no start needs, and no client shall wait for: made at their first use, imported by preimport.py --

    @cached_property
    def commands(self) -> "Commands":
        from sdserve.arbiter.commands import Commands

        verbs = self.handle_hup, self.handle_usr2
        upgrades = lambda: self.old_master.awaited(self.new_master.awaited), lambda: self.old_master.refusal
        return Commands(self.service, *verbs, *upgrades, self.pool.resize, self.pool.all_serve, self.stop)

    @cached_property
    def control(self) -> "Control":
        from sdserve.arbiter.control import Control

        return Control(self.loop, self.service.log, self.commands.table(), self.host.bind)

    @cached_property
    def observation(self) -> "Observation":
        from sdserve.arbiter.observation import Observation

        return Observation(self.service, self.host, self.addresses)

    @cached_property
    def _parts(self) -> "Parts":
        shared = (self.service, self.host, self.addresses, self.pool, self.manager, self.claim)
        return (*shared, self.control, self.commands, self._hooks, self._steps, self.observation)

    @cached_property
    def old_master(self) -> "OldMaster":
        from sdserve.arbiter.old_master import OldMaster

        return OldMaster(self._parts, self._program, self.stop)

    @cached_property
    def new_master(self) -> "NewMaster":
        from sdserve.arbiter.new_master import NewMaster

        return NewMaster(self._parts, self._handover, self.handle_hup, self.stop, self.old_master.catch_up)

    @cached_property
    def reloading(self) -> "Reload":
        from sdserve.arbiter.reload import Reload

        return Reload(self._parts, self._load, self.old_master.pass_on_reload, self.old_master.bring_along)

    @cached_property
    def shutdown(self) -> "Shutdown":
        from sdserve.arbiter.shutdown import Shutdown

        return Shutdown(self._parts, self.reloading, self.old_master, self.new_master)

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> NoReturn:
        """Serves until told to stop. Exits with 0, the code of the error that ended it, or 255 after a crash."""
        self.attempt(self.start)
        step = self.turn
        while self.service.state is not Master.DOWN:
            try:
                self.attempt(step)
                self._turns()
            except Interruption:
                raise
            except BaseException as error:  # noqa: BLE001 - by a signal handler of foreign code, between two turns
                step = partial(_raise, error)
        leave_within(LAST_WORDS, self.log.warning, self.service.exit_status)
        sys.exit(self.service.exit_status)

    def _turns(self) -> None:
        while self.service.state is not Master.DOWN:
            self.attempt(self.turn)

    def attempt(self, step: Callable[[], None]) -> None:
        """Does one step of the run.

        Any error ends the start. Later, only one that says that no worker can be had does: what else goes wrong is
        logged, and the next turn tries again, while the workers serve on. When turn after turn fails, the loop is
        broken. What wants to end this process can only come from a signal handler of foreign code: a stop follows.
        """
        try:
            step()
            self._failed_turns = 0
        except Interruption:
            raise
        except (SystemExit, KeyboardInterrupt) as leaving:
            self.attempt(partial(self._told_to_leave, leaving))
        except BaseException as error:
            self._failed_turns += 1
            goes_on = self.service.state in SURVIVES and self._failed_turns < LAST_TURNS
            if goes_on and not isinstance(error, BootError):
                self._note_failure()
                return
            self.loop.end()
            error = out_of_room("a master", error) or error
            if isinstance(error, SdserveError):
                if isinstance(error, AppImportError) and (told := account(error)):
                    self.log.error("Exception while loading the application\n%s", told)
                self.log.event(events.FAILED, REASON=str(error), EXIT_STATUS=error.exit_code)
                self.log.debug("the start failed", exc_info=True)
                self.shutdown.crash(str(error), error.exit_code, error.errno)
                return
            self.log.event(events.CRASHED, exc_info=True)
            reason = f"Unhandled exception in main loop: {in_words(error)}"
            self.shutdown.crash(reason, CRASHED, 0)

    def _told_to_leave(self, leaving: SystemExit | KeyboardInterrupt) -> None:
        """A signal handler of foreign code, which has taken the place of ours, wants this process to end."""
        service = self.service
        if self.host.pid() != service.pid:
            leave(self.log.error, leaving, "a master")
        if service.generation is None or service.state is Master.DOWN:  # nothing to stop yet, or any more
            raise WantsToLeave(in_words(leaving)) from leaving
        self.log.error("%s was raised by a signal handler: this master stops", in_words(leaving), exc_info=leaving)
        if isinstance(leaving, SystemExit):
            service.exit_status = exit_code(leaving, self.log.error) & 0xFF
        self.stop(graceful=isinstance(leaving, SystemExit))

    def _note_failure(self) -> None:
        """Inside of an `except` clause: the loop goes on."""
        self.log.event(events.MASTER_ERROR, exc_info=True, SECONDS=TRY_AGAIN)

    def start(self) -> None:
        """Claims what a master needs: signals, pidfile, listeners, the application if it is preloaded; then workers.

        The first one boots while the master makes itself ready for all that may follow; the others are forked after
        that, and have it in memory as well.
        """
        self.starting.daemonize()
        self.init_signals()
        if self.starting.claim():
            if self.service.state is Master.STARTING:  # no old master has died meanwhile, and left this one alone
                self.spawn_worker(0)
            self._prepare()
            self.manage_workers()
            self._complete()  # the very first worker could not be forked

    def _prepare(self) -> None:
        """The rest of a start, which no client waits for."""
        preimport()
        from sdserve.arbiter.gauges import tell_gauges
        from sdserve.arbiter.idle import watch_idleness
        from sdserve.arbiter.relief import watch_memory
        from sdserve.arbiter.traffic import watch_traffic

        if self._handover is None:
            self.control.keep_open(self.cfg.control_socket)
            self.observation.keep_open()
        watch_idleness(self.service, self.stop)
        watch_memory(self.service)
        watch_traffic(self.service, self.manager, self.host.moment)
        tell_gauges(self.service)

    def turn(self) -> None:
        """Waits for something to happen, and does what follows."""
        if self._failed_turns:
            self.host.pause(TRY_AGAIN)
        self.sleep()
        self._handle_signals()
        self.manage_workers()
        self.manager.report()
        self.commands.look()
        self._complete()

    def _complete(self) -> None:
        if self.service.state is Master.DOWN:
            self.shutdown.complete()

    def init_signals(self) -> None:
        """Catches the signals of a master; the loop hears of them through a pipe."""
        self.host.catch_signals(self.signal, self.signals.pipe)
        self.loop.watch(self.signals.pipe, self.signals.pipe.drain)

    def signal(self, sig: int, frame: FrameType | None = None) -> None:
        """Queues a signal, as if it had been sent: what signal handlers call."""
        self.signals.put(sig)
        # The interpreter has written to the pipe as well, but nobody hears of it where that failed, and the wait that
        # the signal interrupted goes on. Where this fails too, the loop hears of the signal at its next turn.
        with suppress(OSError):
            self.wakeup()

    def wakeup(self) -> None:
        """Makes the loop turn."""
        self.signals.pipe.wake()

    def sleep(self) -> None:
        """Waits for the next event or deadline and runs what it calls for."""
        self.loop.turn()

    def _handle_signals(self) -> None:
        for signum in self.signals.take():
            name = signum.name.removeprefix("SIG").lower()
            log = self.log.debug if signum in QUIET else self.log.info
            try:
                log("Handling signal: %s", name)
                VERBS[signum](self)
            except BootError:
                raise
            except Exception:  # what fails here must not keep the other signals from being heard
                self.log.exception("Exception while handling the signal %s", signum.name)

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

    def handle_quit(self) -> None:
        """QUIT and INT: quick stop."""
        self.stop(graceful=False)

    handle_int = handle_quit

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
        self.old_master.withdraws(self.num_workers)
        self.num_workers = 0

    def handle_chld(self) -> None:
        """CHLD: pidfds tell of deaths; this is for workers that were stopped, and for an init's orphans."""
        self.service.children.note_stops()
        self.reap_workers()

    def handle_cont(self) -> None:
        """CONT: a control socket whose file somebody has removed is made anew: ExecReload= asks for that.

        It is also what units of Type=notify-reload name as their ReloadSignal=: systemd 262 starts none that does not
        catch it. The reload itself is begun by ExecReload=.
        """
        before = self.service.previous  # what a reload brings is not in force yet
        self.control.renew((before.cfg if before is not None else self.cfg).control_socket)

    def manage_workers(self) -> None:
        """Brings the pool nearer to the goal, then moves on if what the present state waits for has come."""
        self.pool.manage()
        state = self.service.state
        if state is Master.STARTING and self.pool.all_serve():
            self.service.advance(MasterEvent.SERVES)
            self.log.echo(False)
            self.log.event(events.READY, STATUS=self.service.status_line())
            self.manager.ready()
            self.new_master.serves()
            self.old_master.catch_up()
            self.reloading.catch_up()
        elif state is Master.RELOADING:
            self.reloading.settle()
        elif state in LEAVING:
            self.shutdown.settle()

    def spawn_worker(self, slot: int) -> int:
        """Forks a worker into `slot` and returns its pid, or 0 if that failed and was dealt with."""
        return self.pool.spawn(slot)

    spawn_workers = murder_workers = manage_workers  # forks what is missing, ends those whose deadlines have passed

    def reap_workers(self) -> None:
        """Reaps all workers that have ended; as PID 1 of a container, everybody's orphans too."""
        children = self.service.children
        for handle in children:
            children.reap(handle)
        if self.pid == 1:
            self.host.reap_orphans()

    def kill_worker(self, pid: int, sig: int) -> None:
        """Sends `sig` to one worker; nothing happens if it has ended."""
        handle = self.service.children.handles.get(pid)
        if handle is not None:
            handle.send(sig)

    def kill_workers(self, sig: int) -> None:
        """Sends `sig` to all workers."""
        for handle in self.service.children:
            handle.send(sig)

    def reload(self) -> None:
        """Begins a reload; during a start or another reload, the next one after it."""
        self.reloading.begin()

    def reexec(self) -> None:
        """Executes a new master, unless there is a child or a parent of an upgrade already."""
        self.old_master.begin(self.new_master.awaited)

    def maybe_promote_master(self) -> None:
        """Takes the pidfile and the name of the old master, once that has ended."""
        self.new_master.promote()

    def stop(self, graceful: bool = True, restart: bool = False) -> None:
        """Begins to stop: no new connections, workers finish, or leave at once; ends when all are gone.

        `restart`: the service is started again at once, so idle connections may wait for that.
        """
        self.shutdown.begin(graceful, restart)

    def halt(self, reason: str, error: SdserveError) -> None:
        """Stops because of an error: its reason goes to the log and to systemd, its exit code is the process's."""
        self.shutdown.because(reason, error)


QUIET = (signal.SIGCHLD, signal.SIGCONT)  # what the log has nothing to say about
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
    signal.SIGCONT: Arbiter.handle_cont,
}


def _raise(error: BaseException) -> NoReturn:
    raise error
