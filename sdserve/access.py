"""Access records: gunicorn's `access_log_format` atoms, compiled once into a function.

Everything that a client chooses (request line, headers, user name) is escaped before it is written, so that no request
can forge a line, a field or a terminal sequence.
"""

import base64
import binascii
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

DEFAULT_FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'

ATOM = re.compile(r"%\(([^)]*)\)s|%%")
UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f"\\]')
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(slots=True)
class Record:
    """One answered request. `seconds` is its duration, `sent` the body bytes, `headers` the application's."""

    environ: dict[str, Any]
    status: str
    sent: int
    seconds: float
    headers: Sequence[tuple[str, str]] = ()


def escape(text: str) -> str:
    """Control characters, quotes and backslashes as \\xHH."""
    return UNSAFE.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _time(record: Record) -> str:
    now = time.localtime()  # the month by its English name, whatever the locale
    return time.strftime(f"[%d/{MONTHS[now.tm_mon - 1]}/%Y:%H:%M:%S %z]", now)


def _user(record: Record) -> str:
    """The user of HTTP basic authentication, as sent and unverified."""
    scheme, _, credentials = str(record.environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    if scheme.lower() != "basic":
        return "-"
    try:
        return base64.b64decode(credentials.strip()).decode("utf-8").partition(":")[0] or "-"
    except (binascii.Error, UnicodeDecodeError):
        return "-"


def _request_line(record: Record) -> str:
    environ = record.environ
    return f"{environ['REQUEST_METHOD']} {environ['RAW_URI']} {environ['SERVER_PROTOCOL']}"


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
    "m": lambda record: str(record.environ["REQUEST_METHOD"]),
    "U": lambda record: str(record.environ.get("PATH_INFO", "")),
    "q": lambda record: str(record.environ.get("QUERY_STRING", "")),
    "H": lambda record: str(record.environ["SERVER_PROTOCOL"]),
    "b": lambda record: str(record.sent) if record.sent else "-",
    "B": lambda record: str(record.sent),
    "f": lambda record: str(record.environ.get("HTTP_REFERER", "-")),
    "a": lambda record: str(record.environ.get("HTTP_USER_AGENT", "-")),
    "T": lambda record: str(int(record.seconds)),
    "M": lambda record: str(int(record.seconds * 1000)),
    "D": _microseconds,
    "L": lambda record: f"{record.seconds:.6f}",
    "p": lambda record: f"<{os.getpid()}>",
}


def _request_header(name: str) -> Callable[[Record], str]:
    key = name.upper().replace("-", "_")
    if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = "HTTP_" + key
    return lambda record: str(record.environ.get(key, "-"))


def _response_header(name: str) -> Callable[[Record], str]:
    def look_up(record: Record) -> str:
        return next((value for key, value in record.headers if key.lower() == name), "-")

    return look_up


def _variable(name: str) -> Callable[[Record], str]:
    return lambda record: str(record.environ.get(name, "-"))


KINDS = {"i": _request_header, "o": _response_header, "e": _variable}


def compile_format(text: str) -> Callable[[Record], str]:
    """The function that writes records in the format `text`: gunicorn's atoms, `{name}i`, `{name}o`, `{name}e`.

    Raises ValueError for an atom that does not exist, with its name.
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
            getters.append(_getter(found[1]))
    tail = text[at:]

    def write(record: Record) -> str:
        pieces = []
        for literal, getter in zip(parts, getters, strict=True):
            pieces.append(literal)
            pieces.append(escape(getter(record)))
        pieces.append(tail)
        return "".join(pieces)

    return write


def _getter(atom: str) -> Callable[[Record], str]:
    if atom in ATOMS:
        return ATOMS[atom]
    if atom.startswith("{") and len(atom) > 3 and atom[-2] == "}" and atom[-1] in KINDS:
        name = atom[1:-2]
        return KINDS[atom[-1]](name if atom[-1] == "e" else name.lower())
    raise ValueError(
        f"access_log_format: %({atom})s is not an atom; there are {', '.join(sorted(ATOMS))}, {{name}}i, o, e"
    )
