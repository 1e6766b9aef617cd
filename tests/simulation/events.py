"""What can happen in a simulated world, whom it can meet, and what it does to a process."""

import signal
from collections.abc import Callable, Sequence
from enum import Enum
from signal import Signals

from sdserve.errors import AppImportError, BootError
from sdserve.workers.words import BUSY, FAILED, READY, RECYCLE, RETIRING
from tests.simulation.processes import MasterProcess, WorkerProcess


class What(Enum):
    """What can happen. `who` says to whom, `much` how much."""

    READY = "can serve"
    BOOT_FAILS = "cannot boot"
    BOOT_KILLED = "is killed from outside while it boots"
    DIES = "is killed from outside"
    LEAVES = "leaves as told"
    ACKNOWLEDGES = "says that it takes no more connections"
    WORN = "asks for its replacement"
    MUTE = "closes its channel"
    TERMED = "is sent TERM by somebody else"
    STOPPED = "is stopped"
    CONTINUED = "goes on"
    BUSY = "gets a request that it never answers"
    IDLE = "answers it after all"
    HUP = "HUP"
    TERM = "TERM"
    INT = "INT"
    QUIT = "QUIT"
    RTMIN = "RTMIN"
    TTIN = "TTIN"
    TTOU = "TTOU"
    USR1 = "USR1"
    USR2 = "USR2"
    WINCH = "WINCH"
    EVERYBODY = "systemctl kill sends to every process"
    MASTER_STARTS = "starts: interpreter and configuration are loaded"
    MASTER_FAILS = "cannot start"
    MASTER_KILLED = "is sent KILL"
    MASTER_STOPPED = "is sent STOP"
    MASTER_CONTINUED = "is sent CONT"
    UNIT_STOPS = "systemctl stop"
    UNIT_RESTARTS = "systemctl restart"
    SERVICE_STARTS = "the service is started"
    ASKED_TO_RELOAD = "sdservectl reload"
    ASKED_TO_UPGRADE = "sdservectl upgrade"
    DEPLOY = "another configuration lies there"
    NO_ROOM = "there is no room for more processes for a while"
    HOOK_RAISES = "the next call of a hook raises"
    STEP_LASTS = "the next hook, or the configuration, takes its time"
    DEAF = "systemd cannot be told for a moment"
    DISK_FULL = "no pidfile can be written for a while"
    TIME = "time passes"
    LEAP = "the machine stands still"


Event = tuple[What, int, float]
Step = tuple[Sequence[Event], int]
SIGNALS = {each: Signals[f"SIG{each.name}"] for each in What if f"SIG{each.name}" in Signals.__members__}
TO_ALL = (signal.SIGUSR2, signal.SIGHUP, signal.SIGTTIN, signal.SIGUSR1)


def _boot_fails(worker: WorkerProcess) -> None:
    code = (AppImportError, BootError)[worker.pid % 2].exit_code
    worker.say(FAILED + b"no module named app")
    worker.end(code << 8)


def _ready(worker: WorkerProcess) -> None:
    worker.booted = True
    worker.say(READY)


def _acknowledges(worker: WorkerProcess) -> None:
    worker.acknowledged = True
    worker.say(RETIRING)


def _killed(worker: WorkerProcess) -> None:
    worker.master.hit_since = True
    worker.end(signal.SIGKILL)


def _termed(worker: WorkerProcess) -> None:
    worker.master.hit_since = True
    worker.hear(signal.SIGTERM)
    _acknowledges(worker)


def _stopped(worker: WorkerProcess) -> None:
    worker.master.hit_since = True
    worker.stop(True)


def _worn(worker: WorkerProcess) -> None:
    worker.worn = True
    worker.say(RECYCLE)


def _mute(worker: WorkerProcess) -> None:
    worker.mute = True


def _busy(worker: WorkerProcess) -> None:
    if worker.worker.cell.begin(worker.world.now):
        worker.say(BUSY)


def _told(worker: WorkerProcess) -> bool:
    return not worker.stopped and (not worker.untold or not worker.master.alive)


Meets = Callable[[WorkerProcess], bool]


def _told_just_now(worker: WorkerProcess) -> bool:
    return signal.SIGTERM in worker.told and not worker.acknowledged and not worker.stopped


ON_WORKERS: dict[What, tuple[Meets, Callable[[WorkerProcess], None]]] = {
    What.READY: (lambda each: not each.booted and each.untold and not each.stopped and not each.mute, _ready),
    What.BOOT_FAILS: (lambda each: not each.booted and not each.stopped, _boot_fails),
    What.BOOT_KILLED: (lambda each: not each.booted, _killed),
    What.DIES: (lambda each: True, _killed),
    What.LEAVES: (_told, lambda each: each.end(signal.SIGABRT if signal.SIGABRT in each.told else 0)),
    What.ACKNOWLEDGES: (_told_just_now, _acknowledges),
    What.WORN: (lambda each: each.answers and not each.worn, _worn),
    What.MUTE: (lambda each: not each.mute and not each.stopped, _mute),
    # A master cannot know it of a mute one, before that has ended.
    What.TERMED: (lambda each: each.answers and not each.mute, _termed),
    What.STOPPED: (lambda each: each.answers, _stopped),
    What.CONTINUED: (lambda each: each.stopped, lambda each: each.stop(False)),
    What.BUSY: (lambda each: each.answers and not each.worker.cell.busy_since, _busy),
    What.IDLE: (lambda each: bool(each.worker.cell.busy_since), lambda each: each.worker.cell.end()),
}


def _runs(master: MasterProcess) -> bool:
    return master.arbiter is not None


ON_MASTERS: dict[What, Callable[[MasterProcess], bool]] = {
    **dict.fromkeys(SIGNALS, lambda each: True),
    What.MASTER_STARTS: lambda each: each.arbiter is None and not each.stopped,
    What.MASTER_FAILS: lambda each: each.arbiter is None and not each.stopped,
    What.MASTER_KILLED: lambda each: True,
    What.MASTER_STOPPED: lambda each: not each.stopped,
    What.MASTER_CONTINUED: lambda each: each.stopped and not (each.world.calm and each.has_handed_over),
    What.ASKED_TO_RELOAD: _runs,
    What.ASKED_TO_UPGRADE: _runs,
}
CALMING = (
    What.MASTER_CONTINUED,
    What.MASTER_STARTS,
    What.CONTINUED,
    What.IDLE,
    What.READY,
    What.ACKNOWLEDGES,
    What.LEAVES,
)
