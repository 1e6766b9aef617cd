"""An application may take a signal by its event loop, and give it back: then it means again what it meant before.

`loop.remove_signal_handler` does not restore the handler of before. It sets SIG_DFL, which for most signals is the end
of the process, and asyncio's loop then wakes nobody any more when a signal comes (signal.set_wakeup_fd). SIGTERM would
end a worker in the middle of its requests, and SIGHUP, which it ignores, would kill it.
"""

import signal
from asyncio import AbstractEventLoop
from collections.abc import Callable, Collection
from typing import Any


class Borrowed:
    """The signals that an application has taken by `loop`.

    restart: the signals that must not interrupt system calls
    listen: has signals wake the process again as they did before the loop
    """

    def __init__(self, loop: AbstractEventLoop, restart: Collection[int], listen: Callable[[], None]) -> None:
        self._before: dict[int, Any] = {}
        self._restart = restart
        self._listen = listen
        self._add, self._remove = loop.add_signal_handler, loop.remove_signal_handler
        loop.add_signal_handler = self.add  # type: ignore[method-assign, assignment]
        loop.remove_signal_handler = self.remove  # type: ignore[method-assign]

    def add(self, sig: int, callback: Callable[..., Any], *args: Any) -> None:
        """loop.add_signal_handler: raises what that raises."""
        before = signal.getsignal(sig) if sig in signal.valid_signals() else None
        self._add(sig, callback, *args)
        self._before.setdefault(sig, before)

    def remove(self, sig: int) -> bool:
        """loop.remove_signal_handler: raises what that raises."""
        found = self._remove(sig)
        before = self._before.pop(sig, None)
        if before is not None:
            signal.signal(sig, before)
            if sig in self._restart:
                signal.siginterrupt(sig, False)
        self._hear()
        return found

    def _hear(self) -> None:
        """If no loop hears signals any more, the process does."""
        fd = signal.set_wakeup_fd(-1)
        if fd < 0:
            self._listen()
        else:
            signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
