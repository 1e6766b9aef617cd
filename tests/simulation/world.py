"""A service in a simulated world: real masters, one after the other or two at a time, and whatever may happen to them.

What is real: everything from `Arbiter` down to the tables, over a simulated machine (machine.py). What the processes
do, what operators, systemd and bad luck do to them, and how much time passes comes from outside, as one `Step` after
the other: some events at once, then a turn of the masters that have something to do; `lag` lets some of them be late.

After each turn the promises of the design are checked (promises.py). A broken one raises `Broken` with the story of
what led to it.
"""

import random
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence

from sdserve.arbiter.call import Call
from sdserve.arbiter.lifecycle import Master
from sdserve.config import Config
from sdserve.errors import ConfigError
from sdserve.process.timelimit import TimeIsUp
from tests.simulation.descriptors import HandoverEnd, SimulatedListener
from tests.simulation.events import CALMING, ON_MASTERS, ON_WORKERS, SIGNALS, TO_ALL, Step, What
from tests.simulation.machine import SimulatedHost
from tests.simulation.plan import EXCLUSIVE, Plan, configuration
from tests.simulation.processes import Died, MasterProcess, Process
from tests.simulation.promises import Before, Broken, Promises

MOST_TURNS = 300  # before a master that has nothing to do must sleep
END_WITHIN = 75.0  # seconds: twice the graceful time-out, one after the other, and some grace
PATIENT = 400.0  # seconds in which a calm service comes to rest
STORY = 80  # lines


HOOKS = ("on_starting", "when_ready", "nworkers_changed", "pre_fork", "child_exit", "on_reload", "on_exit")


class HookBroke(Exception):
    """What a hook raised."""


class World:
    """One service from its start."""

    def __init__(self, plan: Plan) -> None:
        random.seed(1)  # ages of workers
        self.plan = plan
        self.systemd = plan.systemd
        self.now = 1000.0
        self.masters: list[MasterProcess] = []
        self.files: dict[str, int] = {}
        self.sockets: dict[str, tuple[int, int]] = {}
        self.open: dict[int, str] = {}
        self.no_room = 0
        self.deaf = 0  # messages that systemd will not hear
        self.disk_full = 0  # pidfiles that cannot be written
        self.raising: list[str] = []  # hooks whose next call raises
        self.lasting = 0.0  # seconds that the next step takes
        self.calm: bool = False  # from here on only who has handed over may stay stopped
        self.effects = 0
        self.events = 0
        self.deployed = (plan.workers, plan.surge, plan.gpus, "/pid")
        self.broken_config = False
        self.promises = Promises(self)
        self._story: deque[tuple[float, object, tuple[object, ...]]] = deque(maxlen=STORY)
        self._broken: Broken | None = None
        self._number = 99
        self.happens(What.SERVICE_STARTS)
        self.settle()

    # --- what the machine asks ----------------------------------------------------------------------------------------

    def number(self) -> int:
        self._number += 1
        return self._number

    @property
    def latest(self) -> int:
        """The number that was given last: whoever comes later has a greater one."""
        return self._number

    def tell(self, *what: object) -> None:
        """One more line of the story."""
        self._story.append((self.now, what[0], what[1:]))

    def breaks(self, promise: str, text: str) -> None:
        """A promise is broken. Raised when the master's turn is over: its own handlers must not see it."""
        if self._broken is None:
            self._broken = Broken(promise, f"{text}\n{self.story()}")

    def unforeseen(self) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, HookBroke) or "(boot_timeout)" in str(error):
            return
        where = error.__traceback__ if error else None
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        code = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else "?"
        self.breaks("error", f"{type(error).__name__}: {error} at {code}")

    def host(self, master: MasterProcess) -> SimulatedHost:
        variables = {"NOTIFY_SOCKET": "/notify", "SYSTEMD_EXEC_PID": str(master.pid)} if self.systemd else {}
        return SimulatedHost(master, variables)

    def lives(self, pid: int) -> bool:
        return any(each.pid == pid and each.alive for each in self.processes())

    def listening(self, path: str) -> bool:
        return any(
            each.address == path and not each.socket.closed for master in self.masters for each in master.listeners
        )

    def executes(self, old: MasterProcess, handover: HandoverEnd, passed: Sequence[SimulatedListener]) -> MasterProcess:
        self.promises.about_to_execute(old)
        new = MasterProcess(self, handover, passed)
        self.masters.append(new)
        self.tell(f"{old} executes {new}")
        return new

    def master_ended(self, master: MasterProcess) -> None:
        self.tell(f"{master} is gone")
        if not self.systemd or self.promises.main is not master:
            return
        orderly = master.status == 0
        for each in self.masters:
            if orderly and each.alive and each.pid == master.unheard_successor:
                self.breaks("mainpid", f"{master} ends before systemd has heard of {each}, which ends with it")
        for each in self.masters:
            drains = any(worker.alive for worker in each.workers) and orderly and each.alive
            if drains and each.arbiter is not None and each.arbiter.reexec_pid == master.pid:
                self.breaks("end", f"{master} ends while {each} drains: systemd kills its workers")
        if orderly and self.promises.unit_ends:
            for each in self.masters:
                if each is not master and each.alive and any(worker.alive for worker in each.workers):
                    self.breaks("end", f"{master} ends before {each}: systemd kills its workers")
        self.promises.main = None
        for process in self.processes():  # KillMode=: nobody outlives the main process
            if process.alive:
                process.end(signal.SIGKILL)

    def runs(self, master: MasterProcess, hook: str, limit: float) -> None:
        """A hook is called."""
        self.lasts(master, limit)
        if hook in self.raising:
            self.raising.remove(hook)
            self.effects += 1
            self.tell(f"{master}: the hook {hook} raises")
            raise HookBroke(hook)

    def lasts(self, master: MasterProcess, limit: float) -> None:
        """A step of a master takes its time: its loop does not turn meanwhile."""
        seconds, self.lasting = self.lasting, 0.0
        if seconds:
            self.effects += 1
            self.now += min(seconds, limit or seconds)
            self.tell(f"{master}: a step took {min(seconds, limit or seconds):g} s")
            if master is self.promises.main:
                self.promises.watchdog.look(master, inside=True)
            else:  # the main one would have turned meanwhile
                self.promises.watchdog.stood_still(min(seconds, limit or seconds))
            if not master.alive:
                raise Died
            if limit and seconds > limit:
                raise TimeIsUp

    def processes(self) -> Iterator[Process]:
        for master in self.masters:
            yield master
            yield from master.workers

    # --- what happens -------------------------------------------------------------------------------------------------

    def step(self, step: Step) -> None:
        """All events, then the masters' turns: all until they sleep (0), one of the oldest, the youngest, none."""
        events, lag = step
        for what, who, much in events:
            self.events += self.happens(what, who, much)
        if lag == 0:
            self.settle()
        elif lag != 3 and (ready := [each for each in self.masters if each.ready]):
            self.turn(ready[0 if lag == 1 else -1])
        self._raise()

    def happens(self, what: What, who: int = 0, much: float = 0.0) -> bool:
        """One event; false if there is nobody whom it can meet."""
        if what in ON_WORKERS:
            meets, befalls = ON_WORKERS[what]
            met = [worker for master in self.masters for worker in master.workers if worker.alive and meets(worker)]
            if met:
                worker = met[who % len(met)]
                self.tell(f"{worker} {what.value}")
                befalls(worker)
            return bool(met)
        if what in ON_MASTERS:
            chosen = [master for master in self.masters if master.alive and ON_MASTERS[what](master)]
            if chosen:
                self._befalls(what, chosen[who % len(chosen)])
            return bool(chosen)
        return self._all_around(what, who, much)

    def _befalls(self, what: What, master: MasterProcess) -> None:
        self.tell(f"{master} is sent {what.value}" if what in SIGNALS else f"{master} {what.value}")
        arbiter = master.arbiter
        if what in SIGNALS:
            if arbiter is not None and what in (What.HUP, What.USR1, What.USR2):
                master.owes.add(what.name)
            master.hear(SIGNALS[what])
        elif what is What.MASTER_STARTS:
            self._starts(master)
        elif what is What.MASTER_FAILS:
            self._fails(master, "it cannot be executed")
        elif what is What.MASTER_KILLED:
            master.end(signal.SIGKILL)
        elif what in (What.MASTER_STOPPED, What.MASTER_CONTINUED):
            master.stopped = what is What.MASTER_STOPPED
            master.hit_since = True
        elif arbiter is not None:
            master.questions += 1
            command = arbiter.commands.table()[what.value.split()[-1]]
            arbiter.loop.call_at(self.now, lambda: command(Call(master.answer)))

    def _all_around(self, what: What, who: int, much: float) -> bool:
        if what is What.TIME:
            self._sleep(much)
            self.tell(f"{much:g} s later")
        elif what is What.LEAP:
            self.tell(f"the machine stands still for {much:g} s")
            self.now += much
            self.promises.watchdog.stood_still(much)
        elif what is What.HOOK_RAISES:
            self.raising = [HOOKS[who % len(HOOKS)]] * (1 + int(much))
            self.tell(f"the next {1 + int(much)} calls of the hook {self.raising[0]} raise")
        elif what is What.STEP_LASTS:
            self.lasting = (1.0, 5.0, 15.0, 60.0)[who % 4]
            self.tell(f"the next step takes {self.lasting:g} s")
        elif what is What.DEAF:
            self.deaf = 1 + who % 4
            self.tell(f"systemd will not hear {self.deaf} messages")
        elif what is What.DISK_FULL:
            self.disk_full = 1 + who % 3
            self.tell(f"the next {self.disk_full} pidfiles cannot be written")
        elif what is What.EVERYBODY:
            signum = TO_ALL[who % len(TO_ALL)]
            return sum(self.happens(What[signum.name[3:]], index) for index in range(len(self._alive()))) > 0
        elif what is What.DEPLOY:
            self.deployed = (
                1 + who % 5,
                (0, 0, 1, 2, EXCLUSIVE)[int(much) % 5],
                1 + who % 3,
                ("/pid", "/pid", "/other")[who % 3],
            )
            self.broken_config = int(much) == 8
            bad = ", and it is broken" if self.broken_config else ""
            self.tell("deployed: %d workers, surge %d, %d GPUs, pidfile %s%s", *self.deployed, bad)
        elif what is What.NO_ROOM:
            self.no_room = 1 + who % 7
            self.tell(f"no room for {self.no_room} processes")
        elif what in (What.UNIT_STOPS, What.UNIT_RESTARTS):
            return self._unit_ends(What.RTMIN if what is What.UNIT_RESTARTS else What.TERM)
        elif self._alive():
            return False
        else:
            master = MasterProcess(self)
            self.masters.append(master)
            self.promises = Promises(self)
            self.promises.main = master if self.systemd else None
            self.tell(f"{master} is started")
            self.broken_config = False
            self._starts(master)
        return True

    def _unit_ends(self, signal: What) -> bool:
        """systemd's one signal goes to whom it takes for the main process. Beside two masters that wait for the
        operator, TERM means that the first hands over."""
        main = self.promises.main
        undecided = self.plan.manual and len(self._alive()) > 1
        if main is None or not main.alive or self.promises.unit_ends or (undecided and signal is What.TERM):
            return False
        self.promises.unit_ends = True
        self._befalls(signal, main)
        return True

    def _alive(self) -> list[MasterProcess]:
        return [each for each in self.masters if each.alive]

    def _load(self) -> Config:
        if self.broken_config:
            raise ConfigError("workers: 'many' is no number")
        return configuration(self.plan, *self.deployed)

    def _starts(self, master: MasterProcess) -> None:
        try:
            cfg = self._load()
        except ConfigError as error:
            self._fails(master, str(error))
            return
        master.start(cfg, self._load)
        self._after_turn(master)
        self._raise()

    def _fails(self, master: MasterProcess, reason: str) -> None:
        if master.handover is not None:
            master.handover.send("failed", reason=reason)
        master.end(127 << 8)

    # --- the masters' turns -------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """All masters turn until they sleep."""
        for _ in range(MOST_TURNS):
            ready = [each for each in self.masters if each.ready]
            if not ready:
                break
            for master in ready:
                if master.ready:
                    self.turn(master)
        else:
            self.breaks("asleep", f"{ready[0]} never sleeps")
        for master in self._alive():
            if master.arbiter is not None and not master.stopped:
                before = Before(self, master)
                master.turn()
                self.promises.quiet(master, before)
        self.promises.settled()
        self._raise()
        for master in self.masters:
            master.workers = [each for each in master.workers if each.alive or not (each.reaped or not master.alive)]
        self.masters = [each for each in self.masters if each.alive or each.workers]

    def turn(self, master: MasterProcess) -> None:
        """One turn of a master's loop, and the promises."""
        before = Before(self, master)
        master.turn()
        if master.alive:
            self.promises.check(master, before)
        self._after_turn(master)
        self._raise()

    def _after_turn(self, master: MasterProcess) -> None:
        assert master.arbiter is not None
        if master.arbiter.service.state is Master.DOWN and master.alive:
            self.promises.leaves(master)
            master.end(master.arbiter.service.exit_status << 8)

    def _sleep(self, seconds: float) -> None:
        """Masters sleep until their deadlines, or longer if they are stopped."""
        self.settle()
        until = self.now + seconds
        for _ in range(3000):
            sleeps = [
                timeout
                for each in self._alive()
                if each.arbiter is not None and not each.stopped
                if (timeout := each.arbiter.loop.timeout()) is not None
            ]
            if (bite := self.promises.watchdog.deadline) is not None:
                sleeps.append(max(0.0, bite - self.now) + 1e-5)
            if not sleeps or self.now + min(sleeps) > until:
                break
            self.now += min(sleeps) + 1e-9
            self.settle()
            self.promises.watchdog.look(self.promises.main)
        else:
            self.breaks("asleep", "the deadlines do not move on")
        self.now = max(self.now, until)
        self.settle()
        self.promises.watchdog.look(self.promises.main)
        self._raise()

    def _raise(self) -> None:
        if self._broken is not None:
            raise self._broken

    # --- how it ends --------------------------------------------------------------------------------------------------

    def calm_down(self) -> None:
        """From here on processes do as they are told, and the service comes to rest at its goal."""
        self.tell("all is calm")
        self.calm = True
        self.deaf, self.disk_full, self.raising, self.lasting = 0, 0, [], 0.0
        for master in self._alive():
            if master.has_handed_over and not master.stopped:
                self._befalls(What.MASTER_STOPPED, master)
        self.no_room = 0
        until = self.now + PATIENT
        while self.now < until:
            while sum(self.happens(what) for what in CALMING):
                self.settle()
            self.settle()
            if self._rests():
                break
            self._sleep(0.5)
        self.promises.at_rest()
        self._raise()

    def _rests(self) -> bool:
        return all(
            self.promises.rests(each) and each.arbiter and (self.plan.manual or not each.arbiter.reexec_pid)
            for each in self._alive()
        )

    def end(self) -> None:
        """The service is stopped; half of its workers hear nothing but KILL."""
        self.tell("the service is stopped")
        began = self.now
        while self.happens(What.MASTER_CONTINUED):
            pass
        for _ in range(2):  # with two masters that wait for the operator, the first TERM hands over
            for master in [self.promises.main] if self.systemd else self._alive():
                if master is not None and master.alive:
                    self._befalls(What.TERM, master)
            self.settle()
        while any(process.alive for process in self.processes()) and self.now < began + END_WITHIN + 10:
            for worker in [each for master in self.masters for each in master.workers if each.alive]:
                if worker.pid % 2 and ON_WORKERS[What.LEAVES][0](worker):
                    worker.end(0)
            self._sleep(1.0)
            while not self._alive() and self.happens(What.LEAVES):  # orphans
                continue
        left = [str(each) for each in self.processes() if each.alive]
        if left or self.now > began + END_WITHIN:
            self.breaks("end", f"after {self.now - began:g} s there is {', '.join(left) or 'nobody'} left")
        self._raise()

    def story(self) -> str:
        lines = []
        for when, what, args in self._story:
            text = f"{what}: {str(args[0]) % args[1:]}" if isinstance(what, Process) else str(what) % args
            lines.append(f"  {when - 1000:8.2f}  {text}")
        return "\n".join(lines)
