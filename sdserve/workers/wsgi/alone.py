"""The lead of a worker's one thread, which has it for ever: that worker loads nothing of leader_followers.py."""

from __future__ import annotations

from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sdserve.workers.wsgi.client import WSGIClient
    from sdserve.workers.wsgi.watcher import Run


class Alone:
    """What the loop asks of a LeaderFollowers, where there is nobody to follow."""

    stopped = False
    shown = 0

    def __init__(self) -> None:
        self.running: dict[WSGIClient, Run] = {}  # calls without the lead
        self.stuck: set[WSGIClient] = set()

    def share(self, turns: Callable[[], None]) -> None:
        turns()

    def stop(self) -> None:
        """The turns end by themselves."""

    def leads(self) -> bool:
        return True

    def take_orphan(self) -> bool:
        return True

    def shows(self, calls: int) -> None:
        """What runs is in the lead."""
