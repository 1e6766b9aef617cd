"""The state that the policies of one master share: what it does, what is in force, what the pool should be.

The pool and the policies (policy.py) get this, the machine (host.py), what they need of each other, and callbacks; none
of them knows the arbiter. What one of them keeps to itself stays there.
"""

from collections.abc import Callable, Mapping
from functools import partial

from sdserve import __version__
from sdserve.arbiter.adoption import Adoption
from sdserve.arbiter.children import Children
from sdserve.arbiter.decide import Goal
from sdserve.arbiter.generation import Generation
from sdserve.arbiter.lifecycle import MASTER, UPGRADE, Master, MasterEvent, Upgrade, UpgradeEvent, advance
from sdserve.arbiter.loop import NO_DEADLINE, Loop
from sdserve.config import Config
from sdserve.handlers import count_lost
from sdserve.log import Logger
from sdserve.ops.happenings import OF_MASTER, OF_UPGRADE, Happening
from sdserve.process.counter_memory import CounterMemory
from sdserve.process.counters import DROPPED, GENERATION, WANTED, CounterCell
from sdserve.process.listeners import Listener
from sdserve.status import Status

SHOWN = {
    Master.STARTING: "starting",
    Master.RUNNING: "serving",
    Master.RELOADING: "serving",
    Master.HANDING_OVER: "stopping",
    Master.STOPPING: "stopping",
    Master.DOWN: "stopping",
}


class Service:
    """The service as its master sees it.

    cfg, generation: what is in force; generation is None until the start has checked the configuration.
    previous: the generation that a roll-back would restore; None when no reload is under way.
    trouble: the last failed reload or upgrade, or why too few workers serve, in one line.
    outcome: what the last one came to, in words, and when that was (monotonic seconds).
    master_pid: the old master's pid while this one succeeds it, else 0.
    reexec_pid, upgrade: the new master's pid while an upgrade is under way, else 0, and how far it has come.
    systemd: whether the listeners come from socket activation.
    """

    adoption: Adoption  # from the start on
    counters: CounterMemory  # likewise

    def __init__(self, cfg: Config, loop: Loop, log: Logger, pid: int, launched_with: Mapping[str, str]) -> None:
        self.loop = loop
        self.log = log
        self.pid = pid
        self.launched_with = launched_with
        self.children = Children(loop, log, self.happens)
        self.followers: list[Callable[[Happening], None]] = []
        self.cfg = cfg
        self.generation: Generation | None = None
        self.previous: Generation | None = None
        self.state = Master.STARTING
        self.upgrade = Upgrade.NONE
        self.master_pid = 0
        self.reexec_pid = 0
        self.worker_age = 0
        self.systemd = False
        self.gauges = NO_DEADLINE  # when statsd is told the master's figures again (gauges.py)
        self.trouble = ""
        self.outcome = ("", 0.0)
        self.exit_status = 0
        self.observed: list[Listener] = []  # for metrics and health, apart from the application's
        self.cell = CounterCell.private()  # what this master counts, until `count_in` gives it one that others read
        self._draining = False
        self.ends_connections = False  # it has drained for long enough: every answer is its connection's last
        self._goal = Goal(cfg.workers)

    @property
    def goal(self) -> Goal:
        return self._goal

    @goal.setter
    def goal(self, goal: Goal) -> None:
        """The loop turns once more: what another goal needs is decided there, whoever set it."""
        self._goal = goal
        self.cell.set(WANTED, goal.size)
        self.cell.set(GENERATION, goal.generation)
        self.loop.call_at(self.loop.now(), lambda: None)

    def count_in(self, counters: CounterMemory) -> None:
        """Counts in this memory from now on, and shows there what this master is doing."""
        self.counters = counters
        self.loop.own(counters)
        self.cell = cell = counters.take()
        cell.begin(self.pid, self.loop.now())
        count_lost(partial(cell.add, DROPPED))
        self.goal = self.goal
        self._show()

    @property
    def draining(self) -> bool:
        """Whether load balancers are told to send nobody here any more, while everything is served on."""
        return self._draining

    @draining.setter
    def draining(self, wanted: bool) -> None:
        self._draining = wanted
        self._show()

    def _show(self) -> None:
        """Shows the master's state to whoever reads the counters."""
        shown = SHOWN[self.state]
        self.cell.state = "draining" if self._draining and shown == "serving" else shown

    def happens(self, event: str, text: str = "", pid: int | None = None, slot: int | None = None) -> None:
        """Tells who follows what happens, if anybody does; the text is the status, if there is none."""
        if self.followers:
            told = Happening(event, text or self.status_line(), self.loop.now(), pid, slot)
            for follower in self.followers:
                follower(told)

    def advance(self, event: MasterEvent) -> None:
        before, self.state = self.state, advance(MASTER, self.state, event)
        self._show()
        self.happens(OF_MASTER[event.value], self.trouble if event is MasterEvent.ROLLED_BACK else "")
        now = self.state.value
        self.log.trace("%s %s: %s, was %s, now %s", self.master_name, self.pid, event.value, before.value, now)

    def advance_upgrade(self, event: UpgradeEvent) -> None:
        before, self.upgrade = self.upgrade, advance(UPGRADE, self.upgrade, event)
        if event.value in OF_UPGRADE:
            self.happens(OF_UPGRADE[event.value], pid=self.reexec_pid or None)
        now = self.upgrade.value
        self.log.trace("upgrade to %s: %s, was %s, now %s", self.reexec_pid, event.value, before.value, now)

    def came_to(self, outcome: str) -> None:
        """A reload or an upgrade has ended so."""
        self.outcome = outcome, self.loop.now()

    def setup(self, generation: Generation) -> None:
        """Makes `generation` the one in force: what new workers are forked with, and what everything here reads.

        Raises ConfigError when its log files cannot be opened; that may be so the first time only.
        """
        if generation.logs is None:
            generation.logs = self.log.open(*generation.cfg.logging)
        self.loop.own(generation.place)
        if generation.statsd is not None:
            self.loop.own(generation.statsd)
        self.generation = generation
        self.cfg = generation.cfg
        self.log.use(generation.logs)
        self.log.measure(generation.statsd)

    @property
    def listeners(self) -> list[Listener]:
        return self.generation.listeners if self.generation else []

    @property
    def outgoing(self) -> list[Listener]:
        """The listeners that only the old generation serves, while a reload is under way."""
        before = self.previous.listeners if self.previous else []
        return [listener for listener in before if listener not in self.listeners]

    @property
    def shares_listeners(self) -> bool:
        """Whether another master serves on when this one ends; one that was dropped does not."""
        return bool(self.master_pid or (self.reexec_pid and self.upgrade is not Upgrade.DROPPED))

    @property
    def successor_serves(self) -> bool:
        """Whether a new master's workers serve beside ours, or instead of them."""
        return self.upgrade in (Upgrade.SERVING, Upgrade.HANDED_OVER)

    @property
    def handed_over(self) -> bool:
        """Whether a new master has become the main process, and may have ended since."""
        return self.upgrade in (Upgrade.HANDED_OVER, Upgrade.ENDING)

    @property
    def master_name(self) -> str:
        """ "Master", or "Master.2" for a new master whose old one still lives."""
        return "Master.2" if self.master_pid else "Master"

    @property
    def proc_name(self) -> str:
        return f"{self.cfg.proc_name}.2" if self.master_pid else self.cfg.proc_name

    @property
    def title(self) -> str:
        """What ps(1) shows."""
        return f"sdserve: master [{self.proc_name}]"

    def status(self) -> Status:
        """What the service is doing right now."""
        now = self.loop.now()
        return Status(
            version=__version__,
            master=self.master_name,
            pid=self.pid,
            state="draining" if self._draining and self.state is Master.RUNNING else self.state.value,
            generation=self.goal.generation,
            wanted=self.goal.size,
            successor=self.reexec_pid,
            predecessor=self.master_pid,
            trouble=self.trouble,
            listeners=tuple(map(str, self.listeners)),
            workers=tuple(child.status(now) for child in self.children),
        )

    def status_line(self) -> str:
        """The status in one line, for the log and for systemd."""
        return self.status().line()
