"""Memory pressure: workers give back what they can, and if that does not help, the largest one is replaced.

systemd tells of it (systemd/memory_pressure.py), about every two seconds while it lasts. `decide` is pure. The pool
makes the replacement: one at a time, the new worker first. Replacing a young worker would gain nothing.
"""

from collections.abc import Callable

from sdserve.arbiter.lifecycle import Master, Phase
from sdserve.arbiter.service import Service
from sdserve.arbiter.worker_handle import WorkerHandle
from sdserve.immutable import Immutable
from sdserve.systemd.memory_pressure import MemoryPressure
from sdserve.workers.recycling import resident
from sdserve.workers.words import GIVE_BACK

QUIET = 10.0  # seconds without a notification, after which the next one begins a new period of pressure
PATIENCE = 10.0  # seconds that pressure may last before a worker is replaced
GIVE_EVERY = 30.0  # seconds between two requests to give back
REPLACE_EVERY = 60.0  # seconds between two replacements, and how long a worker serves at least

NEVER = float("-inf")


class Pressure(Immutable):
    """What was heard and done, in monotonic seconds: the beginning of the pressure, the last notification of it, the
    last request to give back, the last replacement."""

    since: float = NEVER
    told: float = NEVER
    asked: float = NEVER
    replaced: float = NEVER


class Relief(Immutable):
    """What to do: ask workers to give back, have one replaced."""

    ask: bool = False
    recycle: bool = False


def decide(before: Pressure, now: float, *, can_replace: bool) -> tuple[Pressure, Relief]:
    """What a notification at `now` leads to. `can_replace`: whether there is a worker that may be replaced."""
    since = now if now - before.told > QUIET else before.since
    ask = now - before.asked >= GIVE_EVERY
    lasts = now - since >= PATIENCE and not ask
    replace = lasts and can_replace and now - before.replaced >= REPLACE_EVERY
    after = Pressure(since, now, now if ask else before.asked, now if replace else before.replaced)
    return after, Relief(ask, replace)


class MemoryRelief:
    """Watches, decides, and does it."""

    def __init__(self, service: Service, source: MemoryPressure, size: Callable[[int], int] = resident) -> None:
        self._service = service
        self._source = source
        self._size = size
        self._pressure = Pressure()
        service.loop.watch(source, self._heard)

    def _heard(self) -> None:
        service = self._service
        if not self._source.heard():
            service.log.debug("nobody tells of memory pressure any more")
            service.loop.drop(self._source)
            return
        old_enough = self._replaceable()
        self._pressure, relief = decide(self._pressure, service.loop.now(), can_replace=bool(old_enough))
        if relief.ask:
            service.log.info("Memory pressure: workers give back what they can")
            for handle in service.children:
                handle.tell(GIVE_BACK)
        if relief.recycle:
            self._replace(old_enough)

    def _replaceable(self) -> list[WorkerHandle]:
        """The workers that have served for a while; none while one is being replaced, or during a reload or a stop."""
        service = self._service
        if service.state is not Master.RUNNING or any(each.worn for each in service.children):
            return []
        serving = [each for each in service.children if each.phase is Phase.SERVING]
        return [each for each in serving if (each.served() or 0.0) >= REPLACE_EVERY]

    def _replace(self, candidates: list[WorkerHandle]) -> None:
        sizes: dict[WorkerHandle, int] = {}
        for handle in candidates:
            try:
                sizes[handle] = self._size(handle.pid)
            except OSError:
                continue  # it ends, or no descriptor is free
        if sizes:
            largest = max(sizes, key=lambda handle: sizes[handle])
            text = "Memory pressure: worker %s, the largest with %d MiB, is replaced"
            self._service.log.warning(text, largest.pid, sizes[largest] >> 20)
            largest.worn = True


def watch_memory(service: Service) -> None:
    """Watches what MEMORY_PRESSURE_WATCH names, if systemd has set it."""
    try:
        source = MemoryPressure.from_environ(service.launched_with)
    except (OSError, ValueError) as error:
        service.log.debug("memory pressure cannot be watched: %s", error)
        return
    if source is not None:
        service.log.debug("Watching memory pressure")
        MemoryRelief(service, source)
