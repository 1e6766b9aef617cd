"""What sdservectl can ask of a master: `status` at once, `reload` and `upgrade` when their outcome is known."""

from typing import TYPE_CHECKING, Any

from sdserve.arbiter.control import Answer, Command
from sdserve.systemd.environment import digests

if TYPE_CHECKING:
    from sdserve.arbiter.arbiter import Arbiter


class Commands:
    """The commands, and who waits for the outcome of which."""

    def __init__(self, arbiter: "Arbiter") -> None:
        self._arbiter = arbiter
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
        answer({"ok": True, "text": "digests", "environment": digests(self._arbiter.launched_with)})

    def _status(self, answer: Answer) -> None:
        status = self._arbiter.status()
        answer({"ok": True, "text": status.line(), "status": status.as_dict()})

    def _reload(self, answer: Answer) -> None:
        self._reloads.append(answer)
        self._arbiter.handle_hup()

    def _upgrade(self, answer: Answer) -> None:
        if self._arbiter.reexec_pid or self._arbiter.master_pid:
            answer({"ok": False, "text": "an upgrade is under way already"})
            return
        if refusal := self._arbiter.upgrade.refusal:
            answer({"ok": False, "text": f"no upgrade now: {refusal}"})
            return
        self._upgrades.append(answer)
        self._arbiter.handle_usr2()

    def reloaded(self, trouble: str) -> None:
        """A reload ended; `trouble` is "" or why it failed."""
        waiting, self._reloads = self._reloads, []
        self._tell(waiting, trouble, f"reloaded: {self._arbiter.status().line()}")

    def overtaken(self) -> bool:
        """A new master takes over before the reload is done: who waits shall ask that one. False if nobody does."""
        waiting, self._reloads = self._reloads, []
        for each in waiting:
            each({"ok": False, "text": "a new master takes over, which has to be asked again", "again": True})
        return bool(waiting)

    def upgraded(self, trouble: str, done: str = "") -> None:
        """An upgrade ended; `trouble` is "" or why it failed, `done` what has come of it."""
        waiting, self._upgrades = self._upgrades, []
        self._tell(waiting, trouble, done)

    def _tell(self, waiting: list[Answer], trouble: str, done: str) -> None:
        answer: dict[str, Any] = {"ok": not trouble, "text": trouble or done}
        for each in waiting:
            each(answer)
