"""What access records look like: gunicorn's `access_log_format` atoms, compiled once.

JSON and logfmt are made by the same means (structured.py). Everything that a client chooses (request line, headers,
user name) is escaped and limited in length: no request can forge a line, a field or a terminal sequence, and none makes
a record longer than journald takes in one piece. Escaped text is printable ASCII without quotes, without other
backslashes, and without the `<N>` that journald takes for a priority.
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
STRUCTURED = ("json", "logfmt")
Taken = tuple[Any, ...]  # what a record shows of a request, atom by atom
_ESCAPES = {chr(number): f"\\x{number:02x}" for number in range(256)}
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def escape(text: str) -> str:
    """At most LONGEST_FIELD printable ASCII characters; others, quotes and backslashes become \\xHH, or \\uHHHH."""
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


def _text_of_time() -> Callable[[], str]:
    """A clock that formats the time once a second, with the month's English name, whatever the locale."""
    known = 0, ""

    def clock() -> str:
        nonlocal known
        second = int(time.time())
        then, text = known
        if then != second:
            now = time.localtime(second)
            text = time.strftime(f"[%d/{MONTHS[now.tm_mon - 1]}/%Y:%H:%M:%S %z]", now)
            known = second, text
        return text

    return clock


def user(environ: dict[str, Any], none: str = "-") -> str:
    """The user of HTTP basic authentication, as sent and unverified; `none` without one, or if it is empty."""
    scheme, _, credentials = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    if scheme.lower() != "basic":
        return none
    try:
        return base64.b64decode(credentials.strip()).decode("latin-1").partition(":")[0] or none
    except ValueError:  # not of base64, or not even ASCII
        return none


def _request_line(environ: dict[str, Any]) -> str:
    words = [environ.get(key, "") for key in ("REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL")]
    return " ".join(str(word) for word in words if word) or "-"


def _header(headers: Iterable[tuple[str, str]], name: str) -> str:
    return next((value for key, value in headers if key.lower() == name), "-")


def _variable(name: str) -> str:
    return f"get({name!r}, get({name.upper()!r}, '-')) or '-'"


# The value of each atom, as an expression of the parameters of `take`. All of a format's become one function.
ATOMS = {
    "h": 'get("REMOTE_ADDR") or "-"',
    "l": '"-"',
    "u": 'user(environ) if "HTTP_AUTHORIZATION" in environ else "-"',
    "t": "clock()",
    "r": """(f"{environ['REQUEST_METHOD']} {environ['RAW_URI']} {environ['SERVER_PROTOCOL']}" """
    """if environ.get("SERVER_PROTOCOL") else request_line(environ))""",
    "s": 'status.partition(" ")[0]',
    "st": "status",
    "m": _variable("REQUEST_METHOD"),
    "U": 'get("PATH_INFO", "")',
    "q": 'get("QUERY_STRING", "")',
    "H": _variable("SERVER_PROTOCOL"),
    "b": "sent",
    "B": "sent",
    "f": 'get("HTTP_REFERER", "-")',
    "a": 'get("HTTP_USER_AGENT", "-")',
    "T": "int(seconds)",
    "M": "int(seconds * 1000)",
    "D": "int(seconds * 1_000_000)",
    "L": 'f"{seconds:.6f}"',
    "X": "ended",
    "p": 'f"<{getpid()}>"',
}
NOW = "\0"  # in a template: the time
STANDING = {"l": "-", "t": NOW}  # what is the same in all records of a batch
NUMBERS = frozenset("bBTMD")
OURS = frozenset("ltsbBTMDLpX")  # atoms whose values no client and no application can choose


def key(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


KINDS: dict[str, Callable[[str], str]] = {
    "i": lambda name: f"get({key(name)!r}, '-')",
    "o": lambda name: f"header(headers, {name.lower()!r})",
    "e": _variable,
}


class Form:
    """Records of one kind, from a template for Python's % and the expressions of its values.

    `take` keeps what a record needs of a request, `lines` makes the records.
    foreign: for each value, whether somebody else can choose it
    literal: the text of the template that is the same in each record
    pids: how many `<PID>` of ours are in each record, whose `<` need no escape
    """

    def __init__(
        self, template: str, expressions: Sequence[str], foreign: Sequence[bool], literal: str, pids: int = 0
    ) -> None:
        self._template = template
        self._foreign = foreign
        # The format itself may have characters that must be escaped in values. Each record has as many of them as the
        # format, unless a value has some, too.
        counts = {char: literal.count(char) for char in {"<", *filter(UNSAFE.match, literal)}}
        counts["<"] += pids
        self._counts = {char.encode(): number for char, number in counts.items() if number}
        self._own = sum(self._counts.values())
        self._plain = bytes(number for number in range(32, 127) if chr(number) not in '"\\<')
        self._clock = _text_of_time()
        self.take = self._compiled(expressions)

    def lines(self, batch: Sequence[Taken]) -> list[str]:
        """The records of `batch`. As a rule nothing in them must be escaped, which one look at all of them shows."""
        try:
            found = self.fast(batch)
        except Exception:  # noqa: BLE001 - an application may have left anything in its environ and headers
            found = None
        if found is None:
            template = self._dated()
            found = [self._escaped(template, taken) for taken in batch]
        return found

    def _dated(self) -> str:
        return self._template.replace(NOW, self._clock())

    def fast(self, batch: Sequence[Taken]) -> list[str] | None:
        """The records if nothing in them must be escaped, else None; raises what the values of a record raise."""
        template = self._dated()
        found = [template % taken for taken in batch]
        fits = max(map(len, found)) <= LONGEST_FIELD and self.is_safe("".join(found), len(batch))
        return found if fits else None

    def is_safe(self, text: str, count: int, unquoted: int = 0) -> bool:
        """Whether nothing must be escaped in `text`, `count` records of which `unquoted` values lack their quotes."""
        if not text.isascii():
            return False
        left = text.encode("ascii").translate(None, self._plain)
        if len(left) != self._own * count - 2 * unquoted:
            return False
        for char, number in self._counts.items():
            if left.count(char) != number * count - (2 * unquoted if char == b'"' else 0):
                return False
        return True

    def escape(self, value: Any) -> str:
        """A value that somebody else has chosen, as it may stand in a record."""
        return escape(str(value))

    def _escaped(self, template: str, taken: Taken) -> str:
        choose = zip(taken, self._foreign, strict=True)
        try:
            whole = template % tuple(self.escape(value) if foreign else value for value, foreign in choose)
        except Exception as error:  # noqa: BLE001 - as above
            whole = self.unwritten(escape(f"a record cannot be written: {error!r}"))
        return whole if len(whole) <= LONGEST_RECORD else whole[: LONGEST_RECORD - len(CUT)] + CUT

    def unwritten(self, why: str) -> str:
        """The record that says why another one cannot be written."""
        return why

    def names(self) -> dict[str, object]:
        """What the expressions use besides the parameters of `take`."""
        known: dict[str, object] = {"user": user, "clock": self._clock, "getpid": os.getpid}
        return known | {"request_line": _request_line, "header": _header}

    def _compiled(self, expressions: Iterable[str]) -> Callable[..., Taken]:
        """One function of all expressions: a call for each atom would take as long as the rest of a record.

        Of the format only names of fields get into the code, as literals.
        """
        values = "".join(f"{expression}, " for expression in expressions)
        code = (
            f"def take(environ, status, sent, seconds, headers, ended):\n    get = environ.get\n    return ({values})\n"
        )
        exec(code, self.names(), found := dict[str, Any]())
        return found["take"]  # type: ignore[no-any-return]


class Format(Form):
    """A compiled `access_log_format`: gunicorn's atoms, `{name}i`, `{name}o`, `{name}e`.

    An unknown atom is written as `-`, see `unknown_atoms`. Raises ValueError if a number is asked for (`%(h)d`) of an
    atom that is not one.
    """

    def __init__(self, text: str) -> None:
        template, expressions, foreign = "", [], list[bool]()
        at = pids = 0
        for found in ATOM.finditer(text):
            template += text[at : found.start()].replace("%", "%%")
            at = found.end()
            if found[0] == "%%":
                template += "%%"
                continue
            atom, shape, kind = found.groups()
            if not shape and kind == "s" and atom in STANDING:
                template += STANDING[atom]
                continue
            expression = _expression(atom) or '"-"'
            if kind != "s" and atom not in NUMBERS:
                raise ValueError(f"access_log_format: %({atom}){shape}{kind} is not a number: use %({atom}){shape}s")
            template += f"%{shape}{'s' if kind == 's' else 'd'}"
            expressions.append(expression)
            foreign.append(atom not in OURS)
            pids += atom == "p"
        super().__init__(template + text[at:].replace("%", "%%"), expressions, foreign, ATOM.sub("", text), pids)


def unknown_atoms(text: str) -> list[str]:
    """What looks like an atom in the format `text`, and is not."""
    return [found[0] for found in ATOM.finditer(text) if found[1] is not None and _expression(found[1]) is None]


def _expression(atom: str) -> str | None:
    if atom in ATOMS:
        return ATOMS[atom]
    if atom.startswith("{") and len(atom) > 3 and atom[-2] == "}" and atom[-1] in KINDS:
        return KINDS[atom[-1]](atom[1:-2])
    return None
