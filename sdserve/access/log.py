"""Access records of one worker: taken request by request, written some at a time."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any

from sdserve.access.formats import ATOM, STRUCTURED, Form, Format, Taken, key

BATCH = 64  # records that are written at once, at most
SLOW = 0.01  # seconds of a request whose record is written at once


def form_of(text: str) -> Form:
    """What makes records of the format `text`. Raises ValueError as Format does, or where it says nothing."""
    style = text.strip().lower()
    if style in STRUCTURED:
        from sdserve.access.structured import Structured

        return Structured(style)
    if not any(found[1] for found in ATOM.finditer(text)):
        raise ValueError(f"access_log_format: {text!r} has no atom such as %(h)s: use these, json, or logfmt")
    return Format(text)


class AccessLog:
    """Records of one worker, written some at a time: `flush` is called at the end of each turn of its loop, before it
    waits for anything. A record of a request that took long is not kept waiting, and neither are those before it.

    `write` gets the lines. Requests for the paths of `exclude` have no record while they succeed. Threads may record at
    the same time; nobody's record is lost, or written twice.
    """

    reads = True  # environ and headers are needed

    def __init__(
        self,
        form: Form,
        write: Callable[[Sequence[str]], None],
        failed: Callable[[str], None],
        exclude: Collection[str] = (),
    ) -> None:
        self._take: Callable[..., Taken | None] = form.take
        if exclude:
            self._take = _unless(frozenset(exclude), form.take)
        self._lines = form.lines
        self._write = write
        self._failed = failed
        self.pending: deque[Taken] = deque()

    def record(
        self,
        environ: dict[str, Any],
        status: str,
        sent: int,
        seconds: float,
        headers: Sequence[tuple[str, str]] = (),
        ended: str = "+",
    ) -> None:
        """Keeps a record of one answer, for the time being.

        `seconds` is its duration, `sent` the body bytes that left, `headers` the application's; of a request that was
        refused, `environ` has what is known. `ended` is X where the response was cut short, whoever did that, - where
        its connection ends, else +, as in Apache.
        """
        try:
            taken = self._take(environ, status, sent, seconds, headers, ended)
            if taken is not None:
                self.pending.append(taken)
        except Exception:  # noqa: BLE001 - what an application left in its environ and headers may be anything
            self._failed("Cannot write an access record")
        if seconds > SLOW or len(self.pending) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Writes what was recorded."""
        batch: list[Taken] = []
        with suppress(IndexError):  # when there are no more; what came before is in the list by then
            batch.extend(iter(self.pending.popleft, None))
        if batch:
            self._write(self._lines(batch))


def refused(line: bytes, fields: Iterable[tuple[bytes, bytes]], peer: str) -> dict[str, Any]:
    """The environ of a request that was refused, as far as a record needs one: its first line, and fields if any."""
    text = line.decode("latin-1")
    words = text.split(" ")
    known: dict[str, Any] = {"REMOTE_ADDR": peer, "RAW_URI": text}
    if len(words) == 3 and all(words):
        known |= zip(("REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL"), words, strict=True)
    for name, value in fields:
        if b"_" not in name:
            known.setdefault(key(name.decode("ascii")), value.decode("latin-1"))
    return known


def _unless(paths: frozenset[str], take: Callable[..., Taken]) -> Callable[..., Taken | None]:
    """Takes nothing of a request for one of `paths` that was answered with less than 400."""

    def taken(environ: dict[str, Any], status: str, *more: Any) -> Taken | None:
        if str(environ.get("RAW_URI")).partition("?")[0] in paths and status < "4":
            return None
        return take(environ, status, *more)

    return taken
