"""Access records: gunicorn's `access_log_format` atoms, compiled once into a function.

Everything that a client chooses (request line, headers, user name) is escaped before it is written and cut at a length:
no request can forge a line, a field or a terminal sequence, and none makes a record longer than journald takes in one
piece. What is left of it is printable ASCII without quotes, backslashes, and the `<N>` that is a priority to journald.
"""

import base64
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

DEFAULT_FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'

# An atom, with the flags, width and precision that Python's % takes; numbers also as d or i.
ATOM = re.compile(r"%(?:\(([^)]*)\)([-+ #0]*\d*(?:\.\d+)?)([sdi])|%)")
UNSAFE = re.compile(r"[^ !#-\[\]-~]|<(?=[0-9]{1,3}>)")
LONGEST_FIELD = 2048  # characters, when all is escaped
LONGEST_RECORD = 40 << 10  # journald cuts lines at 48 KiB (LineMax=)
CUT = "..."
_ESCAPES = {chr(number): f"\\x{number:02x}" for number in range(256)}
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Record:
    """One answer. `seconds` is its duration, `sent` the body bytes that left, `headers` the application's; of a request
    that was refused, `environ` has what is known. `ended` is X where the response was cut short, whoever did that, -
    where its connection ends, else +, as in Apache."""

    __slots__ = ("ended", "environ", "headers", "seconds", "sent", "status")

    def __init__(
        self,
        environ: dict[str, Any],
        status: str,
        sent: int,
        seconds: float,
        headers: Sequence[tuple[str, str]] = (),
        ended: str = "+",
    ) -> None:
        self.environ = environ
        self.status = status
        self.sent = sent
        self.seconds = seconds
        self.headers = headers
        self.ended = ended


def escape(text: str) -> str:
    """At most LONGEST_FIELD printable ASCII characters: others, quotes and backslashes become \\xHH, or \\uHHHH."""
    text = UNSAFE.sub(_escaped, text[: LONGEST_FIELD + 1])
    if len(text) <= LONGEST_FIELD:
        return text
    end = LONGEST_FIELD - len(CUT)
    last = text.rfind("\\", end - 9, end)  # it may begin an escape that would be cut in two
    return text[: last if last >= 0 else end] + CUT


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    return _ESCAPES.get(character) or (
        f"\\u{ord(character):04x}" if character < "\U00010000" else f"\\U{ord(character):08x}"
    )


def _time(record: Record) -> str:
    now = time.localtime()  # the month by its English name, whatever the locale
    return time.strftime(f"[%d/{MONTHS[now.tm_mon - 1]}/%Y:%H:%M:%S %z]", now)


def _user(record: Record) -> str:
    """The user of HTTP basic authentication, as sent and unverified."""
    scheme, _, credentials = str(record.environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    if scheme.lower() != "basic":
        return "-"
    try:
        return base64.b64decode(credentials.strip()).decode("latin-1").partition(":")[0] or "-"
    except ValueError:  # not of base64, or not even ASCII
        return "-"


def _request_line(record: Record) -> str:
    environ = record.environ
    words = [environ.get(key, "") for key in ("REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL")]
    return " ".join(str(word) for word in words if word) or "-"


def _variable(name: str) -> Callable[[Record], str]:
    return lambda record: str(record.environ.get(name, record.environ.get(name.upper(), "-")) or "-")


def _microseconds(record: Record) -> str:
    return str(int(record.seconds * 1_000_000))


ATOMS: dict[str, Callable[[Record], str]] = {
    "h": lambda record: str(record.environ.get("REMOTE_ADDR") or "-"),
    "l": lambda record: "-",
    "u": _user,
    "t": _time,
    "r": _request_line,
    "s": lambda record: record.status.partition(" ")[0],
    "st": lambda record: record.status,
    "m": _variable("REQUEST_METHOD"),
    "U": lambda record: str(record.environ.get("PATH_INFO", "")),
    "q": lambda record: str(record.environ.get("QUERY_STRING", "")),
    "H": _variable("SERVER_PROTOCOL"),
    "b": lambda record: str(record.sent),
    "B": lambda record: str(record.sent),
    "f": lambda record: str(record.environ.get("HTTP_REFERER", "-")),
    "a": lambda record: str(record.environ.get("HTTP_USER_AGENT", "-")),
    "T": lambda record: str(int(record.seconds)),
    "M": lambda record: str(int(record.seconds * 1000)),
    "D": _microseconds,
    "L": lambda record: f"{record.seconds:.6f}",
    "X": lambda record: record.ended,
    "p": lambda record: f"<{os.getpid()}>",
}
NUMBERS = frozenset("bBTMD")
OURS = frozenset("ltsbBTMDLpX")  # what no client and no application can choose


def _key(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


def _request_header(name: str) -> Callable[[Record], str]:
    key = _key(name)
    return lambda record: str(record.environ.get(key, "-"))


def _response_header(name: str) -> Callable[[Record], str]:
    def look_up(record: Record) -> str:
        return next((value for key, value in record.headers if key.lower() == name), "-")

    return look_up


KINDS = {"i": _request_header, "o": _response_header, "e": _variable}


def compile_format(text: str) -> Callable[[Record], str]:
    """The function that writes records in the format `text`: gunicorn's atoms, `{name}i`, `{name}o`, `{name}e`.

    What is no atom is written as `-`, see `unknown_atoms`. Raises ValueError for a number that is asked for (`%(h)d`)
    of an atom that is none.
    """
    parts: list[str] = []
    getters: list[Callable[[Record], str]] = []
    at = 0
    for found in ATOM.finditer(text):
        parts.append(text[at : found.start()])
        at = found.end()
        if found[0] == "%%":
            parts[-1] += "%"
            getters.append(lambda record: "")
        else:
            getters.append(_shaped(*found.groups()))
    tail = text[at:]

    def write(record: Record) -> str:
        pieces = []
        for literal, getter in zip(parts, getters, strict=True):
            pieces.append(literal)
            pieces.append(getter(record))
        pieces.append(tail)
        whole = "".join(pieces)
        return whole if len(whole) <= LONGEST_RECORD else whole[: LONGEST_RECORD - len(CUT)] + CUT

    return write


def unknown_atoms(text: str) -> list[str]:
    """What looks like an atom in the format `text` and is not one."""
    return [found[0] for found in ATOM.finditer(text) if found[1] is not None and _getter(found[1]) is None]


def _shaped(atom: str, shape: str, kind: str) -> Callable[[Record], str]:
    """What stands for an atom in a record: `shape` is its flags, width and precision, `kind` s, d or i."""
    getter = _getter(atom) or (lambda record: "-")
    if kind != "s":
        if atom not in NUMBERS:
            raise ValueError(f"access_log_format: %({atom}){shape}{kind} is not a number: use %({atom}){shape}s")
        return lambda record: f"%{shape}d" % int(getter(record))
    safe = getter if atom in OURS else lambda record: escape(getter(record))
    if not shape:
        return safe
    return lambda record: f"%{shape}s" % safe(record)


def _getter(atom: str) -> Callable[[Record], str] | None:
    if atom in ATOMS:
        return ATOMS[atom]
    if atom.startswith("{") and len(atom) > 3 and atom[-2] == "}" and atom[-1] in KINDS:
        name = atom[1:-2]
        return KINDS[atom[-1]](name if atom[-1] == "e" else name.lower())
    return None


def refused(line: bytes, fields: Iterable[tuple[bytes, bytes]], peer: str) -> dict[str, Any]:
    """The environ of a request that was refused, as far as a record needs one: its first line, and fields if any."""
    text = line.decode("latin-1")
    words = text.split(" ")
    known: dict[str, Any] = {"REMOTE_ADDR": peer, "RAW_URI": text}
    if len(words) == 3 and all(words):
        known |= zip(("REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL"), words, strict=True)
    for name, value in fields:
        if b"_" not in name:
            known.setdefault(_key(name.decode("ascii")), value.decode("latin-1"))
    return known
