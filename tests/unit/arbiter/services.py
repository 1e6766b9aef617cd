"""A service for tests of what shares its state."""

from pathlib import Path

from sdserve.arbiter.loop import Loop
from sdserve.arbiter.service import Service
from sdserve.arbiter.service_manager import ServiceManager
from sdserve.config import load
from sdserve.log import Logger
from sdserve.systemd.notify import Notifier
from sdserve.systemd.watchdog import Watchdog
from tests.support.notify import Message, NotifySocket
from tests.unit.arbiter.turning import Turning


class Unit(Turning):
    """A service whose manager speaks to a notify socket, and what is heard there."""

    def __init__(self, path: Path, watchdog: int, *, muted: bool = False, loop: Loop | None = None) -> None:
        """`watchdog` is WATCHDOG_USEC=."""
        self.manager = NotifySocket(str(path / "notify"))
        self.loop = loop or Loop()
        self.healthy = True
        self.service = service(self.loop)
        notifier = Notifier(self.manager.address, muted=muted)
        self.speaker = ServiceManager(self.service, notifier, Watchdog(watchdog), lambda: self.healthy)

    def messages(self) -> list[Message]:
        """What was heard by now: an end mark goes behind all that was sent."""
        mark = self.manager.mark
        Notifier(self.manager.address).failed("mark", 1)
        self.manager.wait("ERRNO=1", since=mark)
        return self.manager.messages

    def close(self) -> None:
        self.loop.close()
        self.manager.close()


def service(loop: Loop | None = None) -> Service:
    return Service(load(["app"], {}), loop or Loop(), Logger("-", None, "info"), 100, {})
