"""What becomes a figure for statsd: answers to requests, and records of the error log.

Only where statsd_host is set: nothing else imports this.
"""

import logging
from collections.abc import Mapping, Sequence
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING, LogRecord
from typing import Any

from sdserve.access.log import BATCH, AccessLog
from sdserve.access.statsd import Statsd

COUNTED = {CRITICAL: "critical", ERROR: "error", WARNING: "warning"}


class MeasuredRequests:
    """Takes what statsd is told of each answer, and has `log`, if there is one, record it: called as that is.

    reads: whether environ and headers are needed for it
    """

    def __init__(self, statsd: Statsd, log: AccessLog | None) -> None:
        self.pending = statsd.pending
        self.reads = log is not None
        self._statsd = statsd
        self._log = log

    def record(
        self,
        environ: dict[str, Any],
        status: str,
        sent: int,
        seconds: float,
        headers: Sequence[tuple[str, str]] = (),
        ended: str = "+",
    ) -> None:
        if self._log is not None:
            self._log.record(environ, status, sent, seconds, headers, ended)
            if ended == "+" and status.startswith("101"):  # a WebSocket begins, and counts when it has ended
                return
        pending = self.pending
        pending.append((status, seconds))
        if len(pending) >= BATCH:
            self._statsd.flush()

    def flush(self) -> None:
        self._statsd.flush()
        if self._log is not None:
            self._log.flush()


Records = AccessLog | MeasuredRequests  # what takes a record of each answer


class MeasuredLogger(logging.Logger):
    """Counts records by their level, and sends the figures that they carry: extra={"metric", "value", "mtype"}.

    As in gunicorn that is so also for records which the level leaves out, and a record is not written that carries a
    figure and says nothing. `gunicorn.log.exception` counts errors with a traceback.
    """

    statsd: Statsd | None = None

    def handle(self, record: LogRecord) -> None:
        if not self._measure(record.levelno, record.exc_info, record.__dict__) or record.msg:
            super().handle(record)

    def debug(self, msg: object, *args: object, **kwargs: Any) -> None:
        self._say(DEBUG, msg, args, kwargs)

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        self._say(INFO, msg, args, kwargs)

    def warning(self, msg: object, *args: object, **kwargs: Any) -> None:
        self._say(WARNING, msg, args, kwargs)

    def error(self, msg: object, *args: object, **kwargs: Any) -> None:
        self._say(ERROR, msg, args, kwargs)

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        self._say(ERROR, msg, args, {"exc_info": True, **kwargs})

    def critical(self, msg: object, *args: object, **kwargs: Any) -> None:
        self._say(CRITICAL, msg, args, kwargs)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        self._say(level, msg, args, kwargs)

    def _say(self, level: int, msg: object, args: Any, kwargs: dict[str, Any]) -> None:
        if self.isEnabledFor(level):
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 2  # past this function, and the one that called it
            self._log(level, msg, args, **kwargs)
        else:
            self._measure(level, kwargs.get("exc_info"), kwargs.get("extra") or {})

    def _measure(self, level: int, exc_info: object, extra: Mapping[str, object]) -> bool:
        """Whether a figure came with the record."""
        statsd = self.statsd
        if statsd is None:
            return False
        if counted := COUNTED.get(level):
            counted = "exception" if exc_info and level == ERROR else counted
            statsd.tell(f"gunicorn.log.{counted}", 1, "counter")
        name, value, kind = extra.get("metric"), extra.get("value"), extra.get("mtype")
        if not (name and value is not None and kind):
            return False
        statsd.tell(str(name), value, str(kind))
        return True
