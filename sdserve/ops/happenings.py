"""What `sdservectl events` tells of: a name for each thing that happens to a service, and what it means.

Most of them are moves of the state tables (arbiter/lifecycle.py), told where those have their one door.
"""

from sdserve.immutable import Immutable


class Happening(Immutable):
    """Something that happened. `pid` is the worker's or the other master's, `slot` the worker's, where there is one.

    at: when, in seconds of the monotonic clock of the machine
    """

    event: str
    text: str
    at: float
    pid: int | None = None
    slot: int | None = None

    def about(self) -> dict[str, object]:
        """All but the text, for an answer."""
        return {"event": self.event, "at": self.at, "pid": self.pid, "slot": self.slot}


# By the value of the event in the table that it is a move of.
OF_MASTER = {
    "first generation serves": "ready",
    "reload": "reload",
    "new generation serves": "reloaded",
    "new generation failed": "rolled-back",
    "stop": "stopping",
    "stop while a new master serves": "hand-over",
    "last worker gone": "ended",
    "error of its own": "crashed",
}
OF_UPGRADE = {
    "reexec": "upgrade",
    "ready": "upgrade-serves",
    "drop": "upgrade-dropped",
    "lost": "upgrade-lost",
    "end": "upgrade-ends",
}
OF_WORKER = {
    "ready": "worker-serves",
    "retire": "worker-retires",
    "hang": "worker-timeout",
    "kill": "worker-killed",
    "exit": "worker-ended",
}

MEANINGS = {
    "following": "the first of all: the state from which on things are told",
    "ready": "the first generation serves",
    "reload": "a reload begins",
    "reloaded": "the new generation serves",
    "rolled-back": "a reload failed; the old generation serves on, and the text says why",
    "upgrade": "a new master is executed",
    "upgrade-serves": "the new master serves beside this one",
    "upgrade-dropped": "the new master is ended: it was too slow, or is not wanted any more",
    "upgrade-lost": "the new master has ended; if it had not taken over, this one serves on",
    "upgrade-ends": "the new master was told to stop",
    "hand-over": "the new master is the main process; sdservectl follows that one from here on",
    "stopping": "the service is being stopped",
    "ended": "the last worker has gone",
    "crashed": "an error of the master's own ends it",
    "worker-boots": "a worker was forked",
    "worker-serves": "a worker has loaded the application, and serves",
    "worker-retires": "a worker was told to finish and leave",
    "worker-timeout": "a worker exceeded a time-out and is ended; its log says where it was",
    "worker-killed": "a worker that did not leave in time was killed by its master",
    "worker-ended": "a worker has ended; the text says how",
    "worker-stopped": "somebody stopped a worker (SIGSTOP), or it goes on",
    "back-off": "workers keep dying, or cannot boot: the next attempt waits",
    "scaled": "another number of workers is wanted",
    "drain": "a drain began, went on to its next step, ended, or was taken back",
}
