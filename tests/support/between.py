"""What another thread may do between two lines of a function: done there, at each in turn, and not left to luck."""

import sys
from collections.abc import Callable, Iterator
from types import FrameType, FunctionType
from typing import Any


def at_each_line(function: object, meanwhile: Callable[[], object]) -> Iterator[None]:
    """For a loop whose body calls `function` once: each time, `meanwhile` is called before another line of it.

    The interpreter may change threads at each of these places, and does so where the system takes the processor away
    from a thread.
    """
    assert isinstance(function, FunctionType)
    code, before = function.__code__, sys.gettrace()
    wanted = seen = 0

    def at_line(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal seen
        if event == "line":
            seen += 1
            if seen == wanted:
                meanwhile()  # which is not traced: nothing is while a trace function runs
        return at_line

    while seen >= wanted:  # else it has no more lines
        wanted, seen = wanted + 1, 0
        sys.settrace(lambda frame, event, arg: at_line if frame.f_code is code else None)
        try:
            yield
        finally:
            sys.settrace(before)
