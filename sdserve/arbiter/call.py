"""One command that a client of the control socket has asked for, and the answers to it, which may come later."""

from collections.abc import Callable
from typing import Any

from sdserve.arbiter.loop import NO_DEADLINE, Loop
from sdserve.immutable import Immutable


class Message(Immutable):
    """One answer. `failure` is its name in the table of commands, "" for success; `continues`: others follow."""

    text: str
    fields: dict[str, Any]
    failure: str = ""
    continues: bool = False


class Call:
    """Answered once, by `reply` or `fail`. If it asked for `more`, any number of `tell` may come before that.

    `say` delivers a message, and returns whether anybody hears another. `over`: it was answered, or its client is gone.
    """

    def __init__(self, say: Callable[[Message], bool], parameters: dict[str, Any] | None = None, more: bool = False):
        self._say = say
        self._parameters = parameters or {}
        self.more = more
        self.over = False
        self._deadline = NO_DEADLINE

    def get(self, name: str) -> Any:
        """A parameter, of the type that the table says; None if it was left out."""
        return self._parameters.get(name)

    def after(self, loop: Loop, seconds: float, callback: Callable[[], None]) -> None:
        """Calls `callback` in so many seconds, unless the call is over then: nothing of it stays behind that."""
        self._deadline.cancel()
        self._deadline = loop.call_at(loop.now() + seconds, callback)

    def reply(self, text: str, **fields: Any) -> None:
        self._end(Message(text, fields))

    def fail(self, failure: str, text: str, **fields: Any) -> None:
        self._end(Message(text, fields, failure))

    def tell(self, text: str, **fields: Any) -> None:
        """One answer of several. `over` is true once nobody hears another."""
        if not self.over and not self._say(Message(text, fields, continues=True)):
            self.drop()

    def tell_or_reply(self, text: str, **fields: Any) -> None:
        """One answer of several where `more` was asked for, else the answer."""
        if self.more:
            self.tell(text, **fields)
        else:
            self.reply(text, **fields)

    def drop(self) -> None:
        """Nobody waits for an answer any more."""
        self.over = True
        self._deadline.cancel()

    def _end(self, message: Message) -> None:
        if self.over:
            return
        self.over = True
        try:
            self._say(message)
        except BaseException:
            self.over = False  # it could not be written: whoever waits has heard nothing yet
            raise
        self._deadline.cancel()
