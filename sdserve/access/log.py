"""Access records of one worker: taken request by request, written in batches."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from sdserve.access.formats import ATOM, STRUCTURED, Form, Format, Taken, key

BATCH = 64  # records in a batch, at most
SLOW = 0.01  # seconds: the record of a longer request is written without delay


def form_of(text: str) -> Form:
    """What makes records in the format `text`. Raises ValueError as Format does, or if it has no atom."""
    style = text.strip().lower()
    if style in STRUCTURED:
        from sdserve.access.structured import Structured

        return Structured(style)
    if not any(found[1] for found in ATOM.finditer(text)):
        raise ValueError(f"access_log_format: {text!r} has no atom such as %(h)s: use these, json, or logfmt")
    return Format(text)


class AccessLog:
    """Records of one worker, written in batches: `flush` is called at the end of each turn of its loop, before that
    waits for anything. The record of a long request is written without delay, with those before it.

    `write` gets the lines. Successful requests for the paths of `exclude` have no record. Threads may record at the
    same time; no record is lost, or written twice.
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
        """Takes a record of one answer, to be written later.

        `seconds` is its duration, `sent` the body bytes that left, `headers` the application's; `environ` has what is
        known, for a refused request too. `ended` is X if the response was cut short, by whomever, - if its connection
        ends, else +, as in Apache.
        """
        try:
            taken = self._take(environ, status, sent, seconds, headers, ended)
            if taken is not None:
                self.pending.append(taken)
        except Exception:  # noqa: BLE001 - an application may have left anything in its environ and headers
            self._failed("Cannot write an access record")
        if seconds > SLOW or len(self.pending) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Writes the records that were taken."""
        batch: list[Taken] = []
        try:
            batch.extend(iter(self.pending.popleft, None))
        except IndexError:  # raised at the end; the list has all that came before
            if batch:
                self._write(self._lines(batch))


def refused(line: bytes, fields: Iterable[tuple[bytes, bytes]], peer: str) -> dict[str, Any]:
    """The environ of a refused request, as far as a record needs it: its first line, and its fields if any."""
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
    """As `take`, but None for requests for one of `paths` that were answered with a status below 400."""

    def taken(environ: dict[str, Any], status: str, *more: Any) -> Taken | None:
        if str(environ.get("RAW_URI")).partition("?")[0] in paths and status < "4":
            return None
        return take(environ, status, *more)

    return taken
