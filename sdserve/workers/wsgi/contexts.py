"""Contexts for calls of the application, so that what one response sets is not seen by another (contextvars).

A response that waits for its client in the middle of an iterable leaves its thread to other requests. What it has set,
Flask's current application for one, lies in the thread's context, and is taken back there when the iterable ends. So
that context is its alone until then, and the requests that come meanwhile each run in a new one. Nothing of this is
done, nor costs anything, while no response waits.
"""

from contextvars import Context
from threading import get_ident


class Contexts:
    """Which context a call may use. `taken` are the threads whose own context belongs to a response that waits."""

    def __init__(self, template: Context) -> None:
        self._template = template  # what new ones begin with
        self.taken: set[int] = set()

    def for_call(self) -> Context | None:
        """The context for a call in this thread; None: the thread's own."""
        return self._template.copy() if get_ident() in self.taken else None
