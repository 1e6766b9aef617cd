"""Addresses to listen on, as gunicorn's `bind` takes them."""

from __future__ import annotations

import os

from sdserve.config.convert import each, show, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    Address = tuple[str, int] | str | int

DEFAULT_PORT = 8000
STATSD_PORT = 8125
UNIX_PATH_MAX = 107  # unix(7): sun_path has 108 bytes, the last one for the NUL


def address(spec: str, default: int = DEFAULT_PORT) -> Address:
    """Where to listen, from `host:port`, `host`, `:port`, `[v6]:port`, `v6`, `unix:path`, `unix:@abstract` or `fd://N`.

    Returns (host, port), or the path (abstract names keep their @), or the number of an inherited file descriptor. The
    port defaults to `default`, the host to all of IPv4; tcp:// and http:// in front are passed over. Raises ValueError.
    """
    word = spec.strip()
    if word.startswith("unix:"):
        return _unix(spec, word.removeprefix("unix:").removeprefix("//"))
    if word.startswith("fd://"):
        number = word.removeprefix("fd://")
        if not (number.isascii() and number.isdigit()):
            raise ValueError(f"{show(spec)}: {show(number)} is not the number of a file descriptor")
        return int(number)
    if word.lower().startswith("https://"):
        raise ValueError(f"{show(spec)}: TLS ends in a proxy in front; the proxy connects to an address without it")
    word = word.removeprefix("tcp://")
    if word.lower().startswith("http://"):
        word = word[7:].removesuffix("/")
    if _is_ipv6(word):
        return word.lower(), default
    if word.startswith("["):
        host, bracket, rest = word[1:].partition("]")
        if not bracket or not host or (rest and not rest.startswith(":")):
            raise ValueError(f"{show(spec)} is not an IPv6 address and port such as [::1]:8000")
        colon, number = rest[:1], rest[1:]
    else:
        host, colon, number = word.partition(":")
        if ":" in number:
            raise ValueError(f"{show(spec)} has several colons; an IPv6 address is written [::1]:8000")
    if "/" in host or any(c.isspace() for c in host):
        raise ValueError(f"{show(spec)} is not an address; a Unix socket is written unix:/path")
    if host.isdigit() and not colon:
        raise ValueError(f"{show(spec)} is not an address; a port alone is written ':{host}', or '127.0.0.1:{host}'")
    return host.lower() or "0.0.0.0", _port(spec, number) if colon else default


def _is_ipv6(word: str) -> bool:
    """Whether the whole of it is an IPv6 address: such a one has two colons at least, a port behind it is not meant."""
    if word.count(":") < 2 or "[" in word:
        return False
    import ipaddress

    try:
        ipaddress.IPv6Address(word)
    except ValueError:
        return False
    return True


def _unix(spec: str, path: str) -> str:
    if not path or path == "@" or "\0" in path:
        raise ValueError(f"{show(spec)} has no usable path; a Unix socket is written unix:/path")
    if len(os.fsencode(path)) > UNIX_PATH_MAX:
        raise ValueError(f"{show(spec)}: the path of a Unix socket has at most {UNIX_PATH_MAX} bytes")
    return path


def _port(spec: str, number: str) -> int:
    if not (number.isascii() and number.isdigit() and len(number) <= 5 and int(number) <= 65535):
        raise ValueError(f"{show(spec)}: {show(number)} is not a port, 0 to 65535")
    return int(number)


def binds(value: object) -> list[str]:
    """Addresses to listen on, each checked, none twice; kept as text (see `address`)."""
    known: dict[Address, str] = {}
    if isinstance(value, int):
        value = str(value)

    def one(spec: object) -> str:
        word = text(spec)
        where = address(word)
        if where in known and not (isinstance(where, tuple) and where[1] == 0):
            raise ValueError(f"{show(word)} is the same address as {show(known[where])}")
        known[where] = word
        return word

    specs: list[str] = each(one)(value)
    if not specs:
        raise ValueError(f"{show(value)} is no address to listen on")
    return specs


def binds_if_any(value: object) -> list[str]:
    """As `binds`, and none is well."""
    return [] if value in ("", [], ()) else binds(value)


def statsd_address(value: object) -> tuple[str, int] | str | None:
    """Where statsd listens: (host, port) from `host:port`, `[v6]:port` or `host`, or the path of `unix://path`."""
    word = "" if value is None else text(value)
    if not word:
        return None
    host, _, number = word.partition(":")
    if host == "unix" and number.isdigit():  # a host of this name, as in gunicorn
        return host, _port(word, number)
    where = address(word.removeprefix("udp://"), STATSD_PORT)
    if isinstance(where, int) or where[1:] == (0,) or (not host and where[0] == "0.0.0.0"):
        raise ValueError(f"{show(word)} is not an address of statsd, HOST:PORT or unix://PATH")
    return where
