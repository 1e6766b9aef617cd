"""Figures for statsd: the lines of its protocol, and the socket that they leave by.

A line is `NAME:VALUE|TYPE`, with DogStatsD's tags behind it where there are any. Names and figures are gunicorn's; no
text of a client is among them. A datagram holds whole lines, as many as fit.

Nobody waits for statsd. What cannot be sent at once is lost and counted: the log says so when that begins, and how many
datagrams it were when it is over. A socket that has failed is made anew, at most once a second.
"""

import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from errno import EAGAIN, EMSGSIZE, ENOBUFS
from itertools import islice
from os import fsencode
from os.path import abspath
from threading import RLock
from time import monotonic
from typing import Any

from sdserve.errors import ConfigError

UDP_BYTES = 1432  # of a datagram that a frame of Ethernet has room for, by statsd's docs/metric_types.md
UNIX_BYTES = 8192  # DogStatsD reads so much of a Unix socket at once
CONNECT_EVERY = 1.0  # seconds between two sockets
SETTLED = 5.0  # seconds without a loss, after which losing is over: UDP tells of a loss when it sends the next one
LONGEST_NAME = 200  # characters
LARGEST = 1e18  # of a figure
COMPLAINTS = 100  # names of metrics that the log was told of, at most
OF_DATAGRAM = (EAGAIN, ENOBUFS, EMSGSIZE)  # errors that say nothing against the socket

MILLI = (1000.0).__mul__

TYPES = {"gauge": "g", "counter": "c", "histogram": "h", "timer": "ms"}  # `mtype` of a record, as in gunicorn
REQUESTS, DURATION, STATUS = "gunicorn.requests", "gunicorn.request.duration", "gunicorn.request.status."

Address = tuple[str, int] | str


class Lines:
    """Lines with a prefix in front of each name, and tags (`a:b,c`) behind each line. Both are printable ASCII."""

    def __init__(self, prefix: str = "", tags: str = "") -> None:
        prefix = prefix.rstrip(".")
        self._prefix = prefix = f"{prefix}." if prefix else ""
        self._tags = tags = f"|#{tags}" if tags else ""
        # Formatted by one `%`: many durations, which takes half as long as one by one, or all that one request is.
        named, end = prefix.replace("%", "%%"), tags.replace("%", "%%") + "\n"
        self._duration = f"{named}{DURATION}:%.3f|ms{end}"
        self._one = f"{self._duration}{named}{REQUESTS}:1|c{end}{named}{STATUS}%s:1|c{end}"

    def figure(self, name: str, value: object, kind: str) -> str:
        """One line; `kind` is one of TYPES. Raises ValueError, in a clause, for what statsd could not read."""
        if kind not in TYPES:
            raise ValueError(f"mtype {kind!r} is not one of {', '.join(TYPES)}")
        return f"{self._prefix}{_name(name)}:{_number(value)}|{TYPES[kind]}{self._tags}"

    def requests(self, taken: Sequence[tuple[str, float]], limit: int) -> list[str]:
        """Requests that were answered with these statuses (`200 OK`) after so many seconds: what datagrams hold of it.

        A WebSocket's 101 counts, and has no duration: it lasts as long as its client likes.
        """
        if len(taken) == 1 and _is_code(code := taken[0][0][:3]) and code != "101":
            text = self._one % (MILLI(taken[0][1]), code)
            if len(text) <= limit:
                return [text]
        statuses, seconds = zip(*taken, strict=True)
        counts: dict[str, int] = {}
        for status in set(statuses):
            counts[status[:3]] = counts.get(status[:3], 0) + statuses.count(status)
        if "101" in counts:
            seconds = tuple(each for status, each in taken if status[:3] != "101")
        lines = [f"{self._prefix}{REQUESTS}:{len(taken)}|c{self._tags}"]
        for code, count in counts.items():
            if _is_code(code):  # else the client left before there was one
                lines.append(f"{self._prefix}{STATUS}{code}:{count}|c{self._tags}")
        texts = self._durations(seconds, limit) if seconds else []
        for text in joined(lines, limit):
            if texts and len(texts[-1]) + len(text) <= limit:
                texts[-1] += text
            else:
                texts.append(text)
        return texts

    def _durations(self, seconds: Sequence[float], limit: int) -> list[str]:
        lasted, duration = tuple(map(MILLI, seconds)), self._duration
        together = limit // len(duration % max(lasted)) or 1
        if len(lasted) <= together:
            return [duration * len(lasted) % lasted]
        pieces = [lasted[at : at + together] for at in range(0, len(lasted), together)]
        return [duration * len(piece) % piece for piece in pieces]


def _is_code(text: str) -> bool:
    return len(text) == 3 and text.isascii() and text.isdecimal()


def _name(text: str) -> str:
    """A name that an application chose, with `_` for what would end it, or begin another line."""
    return "".join(c if "!" <= c <= "~" and c not in ":|@#" else "_" for c in str(text)[:LONGEST_NAME])


def _number(value: object) -> str:
    """A figure in decimal digits; a string keeps its sign, which makes a gauge move by so much."""
    number: object = value
    if isinstance(value, str):
        number = float(value)
    if isinstance(number, bool) or not isinstance(number, int):
        number = float(number)  # type: ignore[arg-type]
        if not abs(number) <= LARGEST:
            raise ValueError(f"{value!r} is not a figure")
        digits = f"{number:.6f}".rstrip("0").rstrip(".")
    elif abs(number) > LARGEST:
        raise ValueError(f"{value!r} is not a figure")
    else:
        digits = f"{number:d}"
    relative = isinstance(value, str) and value.lstrip().startswith("+")
    return f"+{digits}" if relative else digits


def joined(lines: Sequence[str], limit: int) -> list[str]:
    """Lines, each with its end, as few texts of at most `limit` characters as is cheap to find out.

    A longer line is a text of its own.
    """
    together = limit // (max(map(len, lines)) + 1) or 1
    pieces = [lines[at : at + together] for at in range(0, len(lines), together)]
    return ["\n".join(piece) + "\n" for piece in pieces]


class Where:
    """Where statsd is: a family of sockets and an address of it; `name` is for the log."""

    def __init__(self, family: int, address: Any, name: str) -> None:
        self.family, self.address, self.name = family, address, name
        self.limit = UNIX_BYTES if family == socket.AF_UNIX else UDP_BYTES


def locate(address: Address) -> Where:
    """Looks the host up, which may take as long as the resolver likes; IPv4 is preferred, as in gunicorn.

    Raises ConfigError when there is no such host.
    """
    if isinstance(address, str):
        abstract = address.startswith("@")
        path = b"\0" + fsencode(address[1:]) if abstract else fsencode(abspath(address))
        return Where(socket.AF_UNIX, path, f"unix:{address}")
    host, port = address
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        way_out = "give an IP address or unix://PATH, or mend the resolver"
        raise ConfigError(f"statsd_host: {host} cannot be resolved ({reason}): {way_out}") from error
    family, _, _, _, where = min(found, key=lambda each: each[0] != socket.AF_INET)
    return Where(family, where, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


class Statsd:
    """What one process tells statsd; a forked one closes this and has a socket of its own from its first figure on.

    Figures of requests are taken one by one into `pending` and sent by `flush`, at the end of a turn of a worker's
    loop; any other is sent at once. Threads may do all of it at the same time. `warn` is the log's.
    """

    def __init__(self, where: Where, lines: Lines, warn: Callable[..., None]) -> None:
        self.pending: deque[tuple[str, float]] = deque()
        self._where = where
        self._lines = lines
        self._warn = warn
        self._complained: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        self._lock = RLock()  # a signal handler may log something, in the middle of this
        self._sock: socket.socket | None = None
        self._connect_at = 0.0  # not before
        self._lost = 0  # datagrams, since the log was told of one
        self._lost_at = 0.0
        self._reason = OSError()

    def tell(self, name: str, value: object, kind: str) -> None:
        """Sends one figure. What statsd could not read is not sent; the log says so, once for each name."""
        try:
            line = self._lines.figure(name, value, kind)
        except (ValueError, TypeError, OverflowError) as error:
            if name not in self._complained and len(self._complained) < COMPLAINTS:
                self._complained.add(name)
                self._warn("statsd: the metric %r is not sent: %s", name, error)
            return
        self._send([line])

    def flush(self) -> None:
        """Sends what is pending."""
        taken: list[tuple[str, float]] = []
        with suppress(IndexError):  # another thread has taken some
            taken.extend(islice(iter(self.pending.popleft, None), len(self.pending)))
        if taken:
            self._send(self._lines.requests(taken, self._where.limit))

    def close(self) -> None:
        """Keeps nothing: neither the socket, nor what is pending, nor what was lost."""
        self.pending.clear()
        self._drop()
        self._begin()

    def _send(self, texts: Sequence[str]) -> None:
        for text in texts:
            with self._lock:
                news = self._sent(text.encode("ascii"))
            if news:  # outside of the lock: who logs may hold one of the log's, and want this one
                self._warn("statsd at %s: " + news, self._where.name)

    def _sent(self, datagram: bytes) -> str:
        """Sends or loses; what the log should say of it, if anything."""
        before = self._lost
        try:
            self._put(datagram)
        except OSError as error:
            self._lose(error)
        if not self._lost:
            return ""
        if not before:
            reason = "it does not read" if isinstance(self._reason, BlockingIOError) else self._reason.strerror
            return f"figures are lost until it can be reached: {reason}"
        if self._lost == before and monotonic() - self._lost_at >= SETTLED:
            self._lost = 0
            return f"figures are sent again, {before} datagrams were lost"
        return ""

    def _put(self, datagram: bytes) -> None:
        """Sends at once, by another socket if this one has failed. Raises OSError when that cannot be."""
        if self._sock is not None:
            try:
                self._sock.send(datagram)
                return
            except OSError as error:
                if error.errno in OF_DATAGRAM:
                    raise
                self._drop()
                self._reason = error.with_traceback(None)
                if self._where.family != socket.AF_UNIX:
                    self._lose(error)  # the one before: UDP hears of it now
        self._connect().send(datagram)

    def _connect(self) -> socket.socket:
        now = monotonic()
        if now < self._connect_at:
            raise self._reason
        self._connect_at = now + CONNECT_EVERY
        sock = socket.socket(self._where.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.connect(self._where.address)
        except OSError:
            sock.close()
            raise
        self._sock = sock
        return sock

    def _drop(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            with suppress(OSError):  # it is closed, whatever close(2) says
                sock.close()

    def _lose(self, error: OSError) -> None:
        self._reason = error.with_traceback(None)
        self._lost_at = monotonic()
        self._lost += 1
