"""What sdservectl can ask of a master: `status` at once, `reload` and `upgrade` when their outcome is known."""

from collections.abc import Callable

from sdserve.arbiter.control import Answer, Command
from sdserve.arbiter.service import Service
from sdserve.systemd.environment import digests


class Commands:
    """The commands, and who waits for the outcome of which. `refusal` says why no upgrade can begin, or ""."""

    def __init__(
        self, service: Service, reload: Callable[[], None], upgrade: Callable[[], None], refusal: Callable[[], str]
    ) -> None:
        self._service = service
        self._begin_reload = reload
        self._begin_upgrade = upgrade
        self._refusal = refusal
        self._reloads: list[Answer] = []
        self._upgrades: list[Answer] = []

    def table(self) -> dict[str, Command]:
        return {
            "status": self._status,
            "reload": self._reload,
            "upgrade": self._upgrade,
            "environment": self._environment,
        }

    def _environment(self, answer: Answer) -> None:
        """What this service was started with, for an ExecReload= that was started with something newer."""
        answer({"ok": True, "text": "digests", "environment": digests(self._service.launched_with)})

    def _status(self, answer: Answer) -> None:
        status = self._service.status()
        answer({"ok": True, "text": status.line(), "status": status.as_dict()})

    def _reload(self, answer: Answer) -> None:
        self._reloads.append(answer)
        self._begin_reload()

    def _upgrade(self, answer: Answer) -> None:
        if self._service.reexec_pid or self._service.master_pid:
            answer({"ok": False, "text": "an upgrade is under way already"})
        elif refusal := self._refusal():
            answer({"ok": False, "text": f"no upgrade now: {refusal}"})
        else:
            self._upgrades.append(answer)
            self._begin_upgrade()

    def reloaded(self, trouble: str) -> None:
        """A reload ended; `trouble` is "" or why it failed."""
        self._tell(self._reloads, trouble, f"reloaded: {self._service.status_line()}")

    def overtaken(self) -> bool:
        """A new master takes over before the reload is done: clients must ask that one. False if none waits."""
        waiting, self._reloads = self._reloads, []
        for each in waiting:
            each({"ok": False, "text": "a new master takes over, which has to be asked again", "again": True})
        return bool(waiting)

    def upgraded(self, trouble: str, done: str = "") -> None:
        """An upgrade ended; `trouble` is "" or why it failed, `done` what has come of it."""
        self._tell(self._upgrades, trouble, done)

    def _tell(self, waiting: list[Answer], trouble: str, done: str) -> None:
        told, waiting[:] = waiting[:], []
        for answer in told:
            answer({"ok": not trouble, "text": trouble or done})
