"""What the design promises, watched from outside: the simulated processes and systemd are asked, not the masters.

served      nobody ends the last worker that can answer, unless told to, and not by handing over to a dead one
successor   while workers are replaced, as many serve as before, up to the wanted number
surge       no more workers than wanted but for one that replaces another, of other generations none; with a surge, no
            more than that beside the wanted number
exclusive   with surge = 0 a process ends before another one is forked in its place
hung        a worker whose request takes longer than any may is ended, also one that cannot say that it has become busy
recycling   worn workers are replaced one at a time
masters     never more than two
ready       READY=1 at the start, and the word to the old master, mean that the wanted number serves
storm       rounds of boots that die early are followed ever more slowly, in doubling steps
outage      while nobody serves and none boots, the next boot is never more than a second away
verdict     a reload whose workers cannot boot does not go on
idempotent  a turn in which nothing happened does nothing
answered    a signal that arrived is acted upon, or its refusal is logged
reaped      nobody is signalled after he was reaped
pidfile     each master holds one pidfile, and it names a living one; one master holds the name itself; unless the last
            attempt to write it failed
socket      the file of a Unix socket is there as long as anybody serves it
current     a new master takes over with no code that is older than a reload which succeeded
mainpid     MAINPID= names a living master, and none ends before it was heard; only the main process speaks to systemd
store       at a stop no connection goes where nobody will serve it: into systemd's store at a restart alone
watchdog    systemd ends no master whose loop turns and whose workers answer, and each in which nobody can
idle        a service leaves by itself only when no worker was busy for as long as idle_exit says
told        systemd hears that a reload is over, and never only that one has begun; nobody serves on who said STOPPING=1
error       no error that nobody foresaw, and no move that a table does not have
asleep      a master that has nothing to do sleeps
balance     at rest no GPU has more than its share, and each slot has one worker
rest        when processes boot and leave as told, the wanted number serves, all of whom can be heard, and nothing else
            lives
end         a stop ends with an empty process table, in bounded time, also one of systemd's that meets a hand-over
"""

import math
import signal
from collections import Counter
from typing import TYPE_CHECKING

from sdserve.arbiter.decide import Backoff
from sdserve.arbiter.lifecycle import LEAVING, Master
from sdserve.process.scoreboard import HAND_ON, HAND_ON_RESTART, HAND_ON_SUCCESSORS
from tests.simulation.descriptors import SimulatedListener
from tests.simulation.manager import WatchdogTimer
from tests.simulation.processes import STOPS, MasterProcess, Storm, WorkerProcess

if TYPE_CHECKING:
    from sdserve.workers.base import Worker
    from tests.simulation.world import World

ROUNDING = 1e-6
SOON = 1.0  # seconds between two attempts to end an outage


class Broken(AssertionError):
    """A promise that was not kept; `promise` is its name."""

    def __init__(self, promise: str, story: str) -> None:
        super().__init__(f"{promise}: {story}")
        self.promise = promise


class Before:
    """How things stood before a turn of one master."""

    def __init__(self, world: "World", master: MasterProcess) -> None:
        arbiter = master.arbiter
        assert arbiter is not None
        self.now = world.now
        self.number = world.latest
        self.effects = world.effects
        self.served = sum(each.serving for each in world.masters)
        self.answered = [each for each in master.workers if each.answers]
        self.state = arbiter.service.state
        self.size = arbiter.service.goal.size
        self.generation = arbiter.service.goal.generation
        self.others = others(master)
        self.loads = master.loads
        self.successor = arbiter.reexec_pid
        self.handed_over = arbiter.service.handed_over
        self.signals = master.waiting
        self.failed = {each for each in master.workers if not each.alive and not each.reaped}
        master.waiting = []
        stops = [each for each in dict.fromkeys(self.signals) if each in STOPS]
        master.told_to_restart = stops[-1] == signal.SIGRTMIN if stops else master.told_to_restart


def others(master: MasterProcess) -> int:
    """How many workers of other generations it has, and has not told to leave."""
    assert master.arbiter is not None
    generation = master.arbiter.service.goal.generation
    return sum(each.untold and each.worker.generation != generation for each in master.workers)


def in_the_way(worker: WorkerProcess) -> bool:
    """It serves, boots, or has to end first."""
    arbiter = worker.master.arbiter
    return worker.untold or (worker.alive and arbiter is not None and arbiter.service.goal.exclusive)


class Promises:
    """The watch over one world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.main: MasterProcess | None = None
        self.reloading = False
        self.half_told = False
        self.stopping = False
        self.unit_ends = False
        self.refused: list[int] = []  # who was named as the main process while the unit ended
        self.watchdog = WatchdogTimer(world, world.plan.watchdog)

    def breaks(self, promise: str, text: str) -> None:
        self._world.breaks(promise, text)

    # --- after each turn ----------------------------------------------------------------------------------------------

    def check(self, master: MasterProcess, before: Before) -> None:
        """After a turn of `master`."""
        arbiter = master.arbiter
        assert arbiter is not None
        self.reloading |= master is self.main and arbiter.service.state is Master.RELOADING
        if self.half_told:
            self.breaks("told", "RELOADING=1 without READY=1: a state that only the main process can end")
        self._check_current(master, before)
        goal, live = arbiter.service.goal, [each for each in master.workers if each.untold]
        served = sum(each.serving for each in self._world.masters)
        idle = self._leaves_idle(master, before)
        ordered = (
            idle
            or before.now != self._world.now
            or before.state is Master.STARTING
            or any(each.told_to_leave for each in self._world.masters)
        )
        hit = any(each.hit_since for each in self._world.masters if each is not master)
        alone = goal.exclusive and goal.size == 1
        if before.served and not served and not ordered and not hit and not alone:
            self.breaks("served", f"{master} ends the last worker that can answer")
        if arbiter.service.state in (*LEAVING, Master.DOWN):
            self._check_store(master)
            return
        wanted = min(goal.size, before.size - before.signals.count(signal.SIGTTOU))
        gone = [each for each in before.answered if not each.answers]
        orderly = sum(any(self._follows(each, other) for other in live) for each in gone)
        if (
            not ordered
            and len(before.answered) - len(gone) + orderly < min(len(before.answered), wanted) - goal.exclusive
        ):
            self.breaks("successor", f"{master} retires {_list(gone)} and keeps {_list(live)}")
        current = [each for each in live if each.worker.generation == goal.generation]
        slots = Counter(each.worker.slot for each in current)
        if sum(number > 1 for number in slots.values()) > 1 or max(slots.values(), default=0) > 2:
            self.breaks("recycling", f"{master} replaces several at once: {_list(current)}")
        rolled_back = goal.generation < before.generation and master.ready  # it turns again, and tells who is too many
        if len(current) > goal.size + bool(goal.size) and not rolled_back:
            self.breaks("surge", f"{master} has {_list(current)}, wanted are {goal.size}")
        if goal.generation == before.generation and len(live) - len(current) > before.others:
            self.breaks("surge", f"another generation of {master} grew")
        self._check_size(master, before)
        if arbiter.service.state is Master.RELOADING and goal.generation == before.generation:
            self._check_boots(master, before)

    def _check_current(self, master: MasterProcess, before: Before) -> None:
        """Notes as of when a reload that has succeeded means the code, and sees whom a master hands over to."""
        assert master.arbiter is not None
        service = master.arbiter.service
        master.began.setdefault(service.goal.generation, before.number)
        if service.state in (Master.RUNNING, Master.RELOADING) and service.generation is not None:
            master.promised = master.began.get((service.previous or service.generation).number, 0)
        if self._world.plan.manual or not service.handed_over or before.handed_over:
            return
        for new in (each for each in self._world.masters if each.pid == service.reexec_pid):
            if older := [each for each in new.workers if each.untold and each.pid <= master.promised]:
                self.breaks("current", f"{master} hands over to {new}, where {_list(older)} have read older code")

    def _leaves_idle(self, master: MasterProcess, before: Before) -> bool:
        arbiter, limit = master.arbiter, self._world.plan.idle
        assert arbiter is not None
        asked = master.told_to_leave or arbiter.service.exit_status or arbiter.reexec_pid or arbiter.master_pid
        serves_on = before.state in (Master.RUNNING, Master.RELOADING)  # a reload may end in the turn, rolled back
        if not serves_on or arbiter.service.state not in LEAVING or asked:
            return False
        since = self._world.now - limit + ROUNDING
        if not limit or any(w.worker.cell.busy_since or w.worker.cell.last_busy > since for w in before.answered):
            self.breaks("idle", f"{master} leaves by itself")
        return True

    @staticmethod
    def _follows(gone: WorkerProcess, other: WorkerProcess) -> bool:
        return other.answers and other.worker.slot == gone.worker.slot and other.worker.age > gone.worker.age

    def _check_store(self, master: MasterProcess) -> None:
        """What a master that stops, and that no other follows, allows its workers to do with their connections."""
        arbiter = master.arbiter
        assert arbiter is not None
        if arbiter.service.exit_status or arbiter.service.handed_over:
            return
        if any(each.alive for each in self._world.masters if each is not master):
            return
        restart = self._world.systemd and master.told_to_restart
        for each in (worker for worker in master.workers if worker.alive):
            word = each.worker.cell.word(HAND_ON)
            if bool(word & HAND_ON_RESTART) != restart or word & HAND_ON_SUCCESSORS:
                what = "a restart" if restart else "a stop"
                self.breaks("store", f"{master} lets {each} leave its connections ({word}) at {what}")

    def _check_size(self, master: MasterProcess, before: Before) -> None:
        arbiter = master.arbiter
        assert arbiter is not None
        if master.loads != before.loads or arbiter.service.goal.generation != before.generation:
            return
        if before.successor not in (0, arbiter.reexec_pid):
            return  # workers that had made way for a new master may have come back
        size = before.size
        for signum in before.signals:
            if signum == signal.SIGTTIN:
                size += 1
            elif signum == signal.SIGTTOU:
                size = max(min(size, 1), size - 1)
            elif signum == signal.SIGWINCH:
                size = 0
        seen = [s for s in before.signals if s != signal.SIGWINCH]
        if arbiter.service.goal.size != size and len(seen) == len(before.signals):
            self.breaks("answered", f"{master} wants {arbiter.service.goal.size} workers instead of {size}")

    def _check_boots(self, master: MasterProcess, before: Before) -> None:
        """A reload goes on: no boot of its own failed, but for a few that were killed from outside."""
        assert master.arbiter is not None
        for each in before.failed:
            if each.worker.generation != before.generation or each.ready_heard is not None:
                continue
            ordered = each.told & {signal.SIGTERM, signal.SIGQUIT}
            outside = each.status == signal.SIGKILL and not each.told & {signal.SIGABRT, signal.SIGKILL}
            if not ordered and not outside:
                self.breaks("verdict", f"{each} could not boot, and the reload of {master} goes on")

    def quiet(self, master: MasterProcess, before: Before) -> None:
        """After a turn in which nothing had happened."""
        if self._world.effects != before.effects:
            self.breaks("idempotent", f"{master} did something though nothing had happened")

    # --- at certain moments -------------------------------------------------------------------------------------------

    def about_to_fork(self, master: MasterProcess, worker: "Worker") -> None:
        assert master.arbiter is not None
        goal = master.arbiter.service.goal
        alive = [each for each in master.workers if not each.reaped]
        if goal.surge and others(master) and len(alive) >= goal.size + goal.surge:
            self.breaks("surge", f"{master} forks one more than {goal.size} and a surge of {goal.surge}")
        if goal.exclusive and len(alive) >= goal.size:
            self.breaks("exclusive", f"{master} forks one beside {_list(alive)}")
        self._check_storm(master, worker.generation)

    def _check_storm(self, master: MasterProcess, generation: int) -> None:
        now, storm = self._world.now + ROUNDING, master.early_deaths.get(generation, Storm())
        living = [each for each in master.workers if each.untold]
        proven = any(
            each.ready_heard is not None
            and each.worker.generation == generation
            and storm.counted_at <= each.ready_heard + ROUNDING
            and each.ready_heard + Backoff.SHORT_LIFE <= now
            for each in living
        )
        outage = not any(each.answers for each in living) and all(each.booted for each in living)
        if now < storm.until and not proven and not (outage and storm.counted_at + Backoff.SOON <= now):
            self.breaks("storm", f"{master} forks {storm.until - now:.2f} s too early")

    def worker_reaped(self, process: WorkerProcess) -> None:
        """Counts deaths that nobody ordered, as its master can know of them."""
        master = process.master
        if process.told & {signal.SIGTERM, signal.SIGQUIT}:
            return
        if process.ready_heard is not None and self._world.now - process.ready_heard >= Backoff.SHORT_LIFE:
            master.early_deaths.pop(process.worker.generation, None)
        else:
            outside = process.status == signal.SIGKILL and not process.told & {signal.SIGABRT, signal.SIGKILL}
            self.died_early(master, process.worker.generation, process.born, outside)

    def died_early(self, master: MasterProcess, generation: int, born: float, outside: bool) -> None:
        now, storm = self._world.now, master.early_deaths.get(generation, Storm())
        if born < storm.counted_at:
            return
        wait = 0.1 * 2.0 ** (storm.rounds - 1) if storm.rounds else 0.0
        master.early_deaths[generation] = Storm(storm.rounds + 1, now, now + min(wait, 1.0 if outside else 30.0))

    def about_to_execute(self, master: MasterProcess) -> None:
        alive = [each for each in self._world.masters if each.alive]
        if len(alive) > 1:
            self.breaks("masters", f"{master} launches a third beside {_list(alive)}")

    def says_ready(self, master: MasterProcess) -> None:
        """At its start, to systemd or to the old master."""
        assert master.arbiter is not None
        # One that hangs by now is found when the loop looks, and was not told yet.
        serving = sum(each.booted and each.untold and not each.stopped for each in master.workers)
        if serving < master.arbiter.service.goal.size:
            self.breaks("ready", f"{master} says that it serves, with {_list(master.workers)}")
        master.said_ready = True

    def leaves(self, master: MasterProcess) -> None:
        """It ends by itself."""
        if left := [each for each in master.workers if each.alive]:
            self.breaks("end", f"{master} leaves {_list(left)} behind")
        if master.pid in self._world.files.values():
            self.breaks("pidfile", f"{master} leaves its pidfile behind")
        if master.questions:
            self.breaks("answered", f"{master} ends without an answer for sdservectl")

    def socket_removed(self, listener: SimulatedListener) -> None:
        for each in self._world.masters:
            if not each.alive or each.told_to_leave or each.arbiter is None:
                continue
            if any(other.inode == listener.inode for other in each.arbiter.LISTENERS if other is not listener):
                self.breaks("socket", f"{listener.owner} removes {listener.address}, which {each} serves")

    def systemd_hears(self, master: MasterProcess, message: str) -> None:
        world = self._world
        fields = dict(line.partition("=")[::2] for line in message.split("\n"))
        if list(fields) not in (["STATUS"], ["EXTEND_TIMEOUT_USEC"], ["WATCHDOG_USEC"]):
            world.effects += 1
            world.tell(f"{master} tells systemd " + message.split("\n")[0])
        if "MAINPID" in fields and self.unit_ends:  # service.c hears nothing of it in these states
            self.refused.append(int(fields["MAINPID"]))
            return
        if master.pid in self.refused:
            return
        if master is not self.main and master.told_to_leave:  # by hand, as it handed over: taken for systemd's word
            return
        self.watchdog.hears(fields)
        if master is not self.main:
            self.breaks("mainpid", f"{master} speaks to systemd, and {self.main} is the main process")
        if "MAINPID" in fields:
            self.main = next((each for each in world.masters if each.pid == int(fields["MAINPID"])), None)
            if self.main is None or not self.main.alive:
                self.breaks("mainpid", f"{fields['MAINPID']} is no living master")
            self.reloading = False  # systemd has heard nothing of what the old one may be at
        self.half_told = "RELOADING" in fields
        if "READY" in fields:
            self.reloading = False
        self.stopping |= "STOPPING" in fields

    # --- when nothing is under way ------------------------------------------------------------------------------------

    def settled(self) -> None:
        """All masters sleep, and know all that happened."""
        world = self._world
        masters = [each for each in world.masters if each.alive and each.arbiter is not None]
        if any(each.stopped for each in world.masters):
            return
        for each in masters:
            arbiter = each.arbiter
            assert arbiter is not None
            if hung := [worker for worker in each.workers if worker.hangs and worker.unnoticed]:
                self.breaks("hung", f"{each} does not notice that {_list(hung)} hang")
            if arbiter.service.state is Master.RUNNING and arbiter.service.goal.size:
                each.told_to_leave = False
                each.hit_since &= each.serving < arbiter.service.goal.size
                if self.rests(each):
                    self._check_balance(each)
            if (
                arbiter.service.state is Master.RUNNING
                and arbiter.service.goal.size
                and not any(map(in_the_way, each.workers))
            ):
                timeout = arbiter.loop.timeout()
                if timeout is None or timeout > SOON:
                    self.breaks("outage", f"{each} has nobody, and waits for {timeout} s")
            claimed = arbiter.claim.pidfile
            if each.unwritten:
                continue
            if claimed is None or world.files.get(claimed.fname) != each.pid:
                self.breaks("pidfile", f"{each} lost its pidfile: {world.files}")
            elif arbiter.service.state is Master.RUNNING:
                wanted = f"{arbiter.cfg.pidfile}.2" if arbiter.master_pid else arbiter.cfg.pidfile
                if claimed.fname != wanted:
                    self.breaks("pidfile", f"{each} holds {claimed.fname} instead of {wanted}")
        names = [each.arbiter.claim.pidfile.fname for each in masters if each.arbiter and each.arbiter.claim.pidfile]
        written = not any(each.unwritten for each in masters)
        if masters and written and sum(not name.endswith(".2") for name in names) != 1:
            self.breaks("pidfile", f"the masters hold {names}")
        if self.stopping and any(
            each.arbiter and each.arbiter.service.state is Master.RUNNING for each in [self.main] if each
        ):
            self.breaks("told", f"{self.main} serves on and said STOPPING=1")

    def at_rest(self) -> None:
        """All is calm: processes did as they were told."""
        world = self._world
        for master in (each for each in world.masters if each.alive):
            arbiter = master.arbiter
            assert arbiter is not None
            if master.questions:
                self.breaks("answered", f"{master} never answered sdservectl")
            if master.owes:
                self.breaks("answered", f"{master} never answered {', '.join(sorted(master.owes))}")
            if arbiter.service.state is not Master.RUNNING:
                self.breaks("rest", f"{master} is {arbiter.service.state.value}")
            if not self.rests(master):
                live = [each for each in master.workers if each.alive]
                self.breaks("rest", f"{master} has {_list(live)}, wanted are {arbiter.service.goal.size}")
            self._check_balance(master)
        if self.reloading and self.main is not None and self.main.alive:
            self.breaks("told", "a reload is over, and READY=1 never came")

    def rests(self, master: MasterProcess) -> bool:
        """It is where it wants to be, and waits for nothing."""
        arbiter = master.arbiter
        if arbiter is None or arbiter.service.state is not Master.RUNNING or arbiter.service.generation is None:
            return False
        alive = sum(each.alive or not each.reaped for each in master.workers)
        waits = arbiter.service.generation.backoff.not_before > self._world.now
        waits |= any(each.mute for each in master.workers)
        return alive == len(arbiter.service.children) == arbiter.service.goal.size == master.serving and not waits

    def _check_balance(self, master: MasterProcess) -> None:
        assert master.arbiter is not None
        goal, live = master.arbiter.service.goal, [each for each in master.workers if each.alive]
        load = Counter(each.worker.slot % goal.gpus for each in live)
        if load and max(load.values()) > math.ceil(goal.size / goal.gpus):
            self.breaks("balance", f"GPU loads {dict(load)}: {_list(live)}")
        if len({each.worker.slot for each in live}) != len(live):
            self.breaks("balance", f"a slot is taken twice: {_list(live)}")


def _list(processes: list[WorkerProcess] | list[MasterProcess]) -> str:
    return "[" + ", ".join(map(str, processes)) + "]"
