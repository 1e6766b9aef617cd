"""Foreign code in the master: hooks, and what is imported there. Nothing that it raises ends the master.

SystemExit and its like end most programs; here they are errors as any other. A child that was forked inside goes no
further than that code does: it is no second master.
"""

import os
from collections.abc import Callable
from typing import TypeVar

from sdserve.errors import Interruption, Leave, WantsToLeave, in_words
from sdserve.process.forked import Tell, leave

T = TypeVar("T")


def call(tell: Tell, work: Callable[[], T]) -> T:
    """What `work` returns. Raises Exceptions only, except for ours. `tell` is the log's."""
    pid = os.getpid()
    try:
        found = work()
    except BaseException as error:
        if os.getpid() != pid:
            leave(tell, error, "a master")
        if isinstance(error, Exception):
            raise
        raise error_of(error)  # noqa: B904 - it knows its cause
    if os.getpid() != pid:
        leave(tell, what="a master")
    return found


def error_of(raised: BaseException) -> Exception:
    """What foreign code has raised, as an Exception. What ends it from outside is ours, and raised again."""
    if isinstance(raised, Exception):
        return raised
    if isinstance(raised, (Interruption, Leave)):
        raise raised
    error = WantsToLeave(in_words(raised))
    error.__cause__ = raised
    return error
