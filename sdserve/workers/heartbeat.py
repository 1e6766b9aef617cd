"""gunicorn's `worker.tmp`, for hooks and worker classes that ask it for the last sign of life.

There it is a file that the worker touches. Here nothing is touched: the scoreboard says since when a worker is busy,
and one that is not busy is well.
"""

from time import monotonic


class Heartbeat:
    """Of one worker, in its own process and in the master."""

    def __init__(self, worker: object) -> None:
        self._worker = worker

    def last_update(self) -> float:
        """Monotonic seconds: since when the worker is busy, or now where it is idle, or is not forked yet."""
        cell = getattr(self._worker, "cell", None)
        return (cell.busy_since if cell is not None else 0.0) or monotonic()

    def notify(self) -> None:
        """Nothing needs to be said."""

    def close(self) -> None:
        """Nothing is open."""
