"""Converters: from what an operator wrote to what the server uses.

A converter takes a string (command line, environment) or any object (config file) and returns the value, or raises
ValueError with a clause that begins with the refused value: `'four' is not a whole number`. The caller puts the source
in front. Nothing is remembered and nothing changed; the system is asked only where the question is about it (user
and group names). Modules that few values need are imported inside their converter, to keep start-up short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

ID_MAX = 2**32 - 2  # the highest id is "unchanged" to setresuid(2)

_TRUE = frozenset({"1", "true", "yes", "on", "y"})
_FALSE = frozenset({"0", "false", "no", "off", "n"})
_SUFFIXES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def show(value: object) -> str:
    """The value for a message, cut to a length that leaves the message readable."""
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def boolean(value: object) -> bool:
    """True, False, 1, 0 or one of the words 1/0, true/false, yes/no, on/off, y/n in any case."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
    raise ValueError(f"{show(value)} is neither true nor false")


def whole(minimum: int = 0, maximum: int | None = None) -> Callable[[object], int]:
    """A converter for a whole number between the bounds, inclusive; text may be hexadecimal (0x10)."""
    expected = f"a whole number, {minimum} or more" if maximum is None else f"a whole number, {minimum} to {maximum}"

    def convert(value: object) -> int:
        number = _integer(value)
        if number is None or number < minimum or (maximum is not None and number > maximum):
            raise ValueError(f"{show(value)} is not {expected}")
        return number

    return convert


def _integer(value: object, *bases: int) -> int | None:
    """A whole number, or text that is one in one of the bases (10, and what 0x, 0o or 0b says); None for others."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        for base in bases or (10, 0):
            with suppress(ValueError):
                return int(value, base)
    return None


def seconds(value: object) -> float:
    """A duration in seconds, 0 or more; whole numbers stay int, as gunicorn's hooks expect."""
    number: float | None = _integer(value)
    if number is None and isinstance(value, float | str):
        with suppress(ValueError):
            number = float(value)
    if number is None or not 0 <= number < float("inf"):
        raise ValueError(f"{show(value)} is not a number of seconds, 0 or more")
    return number


def size(value: object) -> int:
    """A number of bytes, 0 or more; text may end in K, M or G (1024, 1024^2, 1024^3)."""
    number = _integer(value)
    if number is None and isinstance(value, str) and value.strip()[-1:].lower() in _SUFFIXES:
        number = _integer(value.strip()[:-1])
        if number is not None:
            number *= _SUFFIXES[value.strip()[-1].lower()]
    if number is None or number < 0:
        raise ValueError(f"{show(value)} is not a number of bytes such as 65536, 64K or 10M")
    return number


def text(value: object) -> str:
    """A string without the white space around it."""
    if not isinstance(value, str):
        raise ValueError(f"{show(value)} is not a string")
    return value.strip()


def optional_text(value: object) -> str | None:
    """A string; the empty one means "none"."""
    return text(value) or None


def choice(*names: str, also: Mapping[object, str] | None = None, hint: str = "") -> Callable[[object], str]:
    """A converter for one of the names in any case; `also` maps further spellings (lower case, or bool) to names."""

    def convert(value: object) -> str:
        word: object = value.strip().lower() if isinstance(value, str) else value
        if isinstance(word, str) and word in names:
            return word
        if also is not None and isinstance(word, str | bool) and word in also:
            return also[word]
        raise ValueError(f"{show(value)} is not one of {', '.join(names)}{hint}")

    return convert


def umask(value: object) -> int:
    """A file mode mask, 0 to 0o777; text with a leading 0 is octal, as in a shell, 0x is hexadecimal."""
    octal = isinstance(value, str) and value.strip().startswith("0")
    number = _integer(value, 8, 0) if octal else _integer(value)
    if number is None or not 0 <= number <= 0o777:
        raise ValueError(f"{show(value)} is not a mask between 0 and 0777 (octal)")
    return number


def file_mode(value: object) -> int:
    """Permission bits, 0 to 0o777; text is octal with or without a leading 0, as in chmod(1)."""
    number = None if isinstance(value, bool) else _integer(value, 8, 0)
    if number is None or not 0 <= number <= 0o777:
        octal = isinstance(value, int) and set(str(value)) <= set("01234567")
        hint = f"; in Python it is written 0o{value}" if octal else ""
        raise ValueError(f"{show(value)} is not a file mode such as 0660 (octal){hint}")
    return number


def user(value: object) -> int:
    """A user id from a name of the user database, or the id itself."""
    import pwd

    return _identity(value, "user", lambda name: pwd.getpwnam(name).pw_uid)


def group(value: object) -> int:
    """A group id from a name of the group database, or the id itself."""
    import grp

    return _identity(value, "group", lambda name: grp.getgrnam(name).gr_gid)


def _identity(value: object, kind: str, lookup: Callable[[str], int]) -> int:
    number = None if isinstance(value, bool) else _integer(value)
    if number is not None:
        if not 0 <= number <= ID_MAX:
            raise ValueError(f"{show(value)} is not a {kind} id")
        return number
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{show(value)} is neither the name nor the id of a {kind}")
    try:
        return lookup(value.strip())
    except KeyError:
        raise ValueError(f"{show(value)}: there is no {kind} of this name") from None


def each(item: Callable[[object], T]) -> Callable[[object], list[T]]:
    """A converter for a list of what `item` converts; one string is a list of one. All bad items are named."""

    def convert(value: object) -> list[T]:
        if isinstance(value, str):
            values: Iterable[object] = [value] if value.strip() else []
        elif isinstance(value, list | tuple):
            values = value
        elif isinstance(value, set | frozenset):
            values = sorted(value, key=str)
        else:
            raise ValueError(f"{show(value)} is not a list")
        done: list[T] = []
        problems: list[str] = []
        for one in values:
            try:
                done.append(item(one))
            except ValueError as exc:
                problems.append(str(exc))
        if problems:
            raise ValueError("; ".join(problems))
        return done

    return convert


def comma_list(item: Callable[[object], T]) -> Callable[[object], list[T]]:
    """A converter for a list that text separates with commas; empty parts do not count."""
    items = each(item)
    return lambda value: items(split_commas(value) if isinstance(value, str) else value)


def split_commas(value: str) -> list[str]:
    """The parts between commas or line ends, without white space around them and without empty ones."""
    return [part.strip() for part in value.replace("\n", ",").split(",") if part.strip()]


def split_assignments(value: str) -> list[str]:
    """KEY=VALUE items: one a line, or on one line separated by commas; a comma starts an item only before a KEY=."""
    if "\n" in value.strip():
        return [line.strip() for line in value.splitlines() if line.strip()]
    items: list[str] = []
    for part in value.split(","):
        key, equals, _ = part.partition("=")
        if items and not (equals and key.strip().isidentifier()):
            items[-1] += "," + part
        else:
            items.append(part)
    return [item.strip() for item in items if item.strip()]


def assignment(value: object) -> str:
    """A string KEY=VALUE, as putenv(3) takes it."""
    if not isinstance(value, str) or "=" not in value or value.lstrip().startswith("=") or "\0" in value:
        raise ValueError(f"{show(value)} is not of the form KEY=VALUE")
    return value.strip()


def network(value: object) -> str:
    """An IP address, a network in CIDR notation without host bits, or * for all; kept as text."""
    word = text(value)
    if word != "*":
        import ipaddress

        try:
            ipaddress.ip_network(word)
        except ValueError as exc:
            raise ValueError(f"{show(value)} is not an IP address or network: {exc}") from None
    return word


def request_target(value: object) -> str:
    """What a request asks for: a path with its query, or an http or https URL."""
    word = text(value)
    if word.startswith(("http://", "https://")):
        from urllib.parse import urlsplit

        try:
            good = bool(urlsplit(word).hostname) and urlsplit(word).port != 0 and "@" not in urlsplit(word).netloc
        except ValueError:
            good = False
    else:
        good = word.startswith("/")
    if not good or not all("!" <= c <= "~" for c in word) or "#" in word:
        raise ValueError(f"{show(value)} is neither a path such as /health nor a URL such as http://example.org/health")
    return word


def header_name(value: object) -> str:
    """A header field's name in capitals (RFC 9110, section 5.1: a token)."""
    word = text(value)
    if not word or not all(c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~") for c in word):
        raise ValueError(f"{show(value)} is not the name of a header field")
    return word.upper()


def header_values(value: object) -> dict[str, str]:
    """A dict of header names, made upper case, to the values they must have; text is NAME=VALUE,NAME=VALUE."""
    if isinstance(value, str):
        value = dict(part.partition("=")[::2] for part in split_commas(value))
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError(f"{show(value)} is not a dict of header names and their values")
    return {header_name(name): text(wanted) for name, wanted in value.items()}


def metric_prefix(value: object) -> str:
    """What stands in front of the names of metrics: nothing in it ends a name of statsd's, or a line."""
    word = text(value)
    if len(word) > 200 or not all("!" <= c <= "~" and c not in ":|@#" for c in word):
        raise ValueError(f"{show(value)} is not a prefix of metrics such as shop.web: no spaces, and no : | @ #")
    return word


def metric_tags(value: object) -> str:
    """DogStatsD's tags, NAME:VALUE or NAME, separated by commas; a list of them is good, too."""
    tags = comma_list(text)(value)
    if len(",".join(tags)) > 800 or not all("!" <= c <= "~" and c not in ",|#" for tag in tags for c in tag):
        raise ValueError(f"{show(value)} is not a list of tags such as env:live,shop: no spaces, and no | #")
    return ",".join(tags)


def gpu_list(value: object) -> list[str]:
    """Devices as CUDA_VISIBLE_DEVICES takes them, indices or GPU-/MIG- identifiers, none twice; `0,1` or a list."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    devices: list[str] = comma_list(_gpu)(value)
    if len(set(devices)) != len(devices):
        raise ValueError(f"{show(value)} names a device twice")
    return devices


def _gpu(value: object) -> str:
    word = str(value) if isinstance(value, int) and not isinstance(value, bool) else text(value)
    known = word.isdigit() or word.startswith(("GPU-", "MIG-"))
    if not known or not all(c.isascii() and (c.isalnum() or c in "-_/:.") for c in word):
        raise ValueError(f"{show(value)} is not the index or the identifier of a device, such as 0 or GPU-8932f937")
    return word


def worker_class(value: object) -> str | type:
    """The name or dotted path of a worker class, the class itself, or a function that returns one of them."""
    if callable(value) and not isinstance(value, type):
        value = value()
    return value if isinstance(value, type) else text(value)
