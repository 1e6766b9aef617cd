"""Keeps all that its requests got, beyond their ends, and tries it when `/try` is asked for."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

KEPT: list[dict[str, Callable[[], object]]] = []


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    way = environ["PATH_INFO"].strip("/")
    if way == "try":
        start_response("200 OK", [])
        return [json.dumps([tried(each) for each in KEPT]).encode()]
    if way == "over":  # how many have ended; to take one that has not would make it the application's
        start_response("200 OK", [])
        return [str(sum(ended(each) for each in KEPT)).encode()]
    environ["wsgi.input"].read()
    write = start_response("200 OK", [])
    KEPT.append(kept(environ, write))
    if way == "writes":
        write(b"written")
        return []
    if way == "closes":
        return Closes(environ)
    if way == "yields":
        return iter([b"yie", b"lded"])
    if way == "fails":
        raise RuntimeError("keeps what it got all the same")
    return [b"listed"]


def kept(environ: dict[str, Any], write: Any) -> dict[str, Callable[[], object]]:
    sock, hints, body = environ["gunicorn.socket"], environ["wsgi.early_hints"], environ["wsgi.input"]
    return {
        "look": sock.getpeername,
        "peek": lambda: sock.recv(1, 2),
        "werkzeug's": environ["werkzeug.socket"].getsockname,
        "take": lambda: sock.sendall(b"STRAY"),
        "write": lambda: write(b"STRAY"),
        "hints": lambda: hints([("Link", "STRAY")]),
        "read": lambda: None if body.read(1) == b"" else "STRAY",
    }


def ended(parts: dict[str, Callable[[], object]]) -> bool:
    try:
        parts["look"]()
    except OSError:
        return True
    return False


def tried(parts: dict[str, Callable[[], object]]) -> dict[str, str]:
    found = {}
    for name, act in parts.items():
        try:
            found[name] = f"gave {act()!r}"
        except Exception as error:  # noqa: BLE001 - that is what is asked
            found[name] = type(error).__name__
    return found


class Closes:
    """Says more when all has been said."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._write = KEPT[-1]["write"]

    def __iter__(self) -> Iterator[bytes]:
        yield b"clo"
        yield b"sed"

    def close(self) -> None:
        self._write()
