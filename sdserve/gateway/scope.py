"""The scope of an ASGI connection (ASGI 3.0, HTTP and WebSocket 2.5): what an application is told of a request.

Who the client is, and by which scheme it came, is said by the same code as for WSGI (environ.py); fields with
underscores in their names are treated likewise, because frameworks make environ keys of both.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote

from sdserve.gateway.environ import Environs
from sdserve.gateway.forwarded import TRUSTED
from sdserve.http.request import Request

Scope = dict[str, Any]
Address = tuple[str, int | None]
SECURE = {"http": "ws", "https": "wss"}


PCHAR = "/:@!$&'()*+,;="  # what a path may have besides letters, digits and -._~ (RFC 3986 section 3.3)


class Scopes:
    """Makes scopes. `root_path` is where the application is mounted, else the SCRIPT_NAME of this process's environment
    says it, but a trusted proxy knows better. `state` is what lifespan's startup left, None where the application has
    no lifespan.

    `sendfile` is whether files may be sent by messages of their own. An application is not asked alone: any middleware
    between it and the server passes the offer on, and many wait for bodies, which then never come."""

    def __init__(self, environs: Environs, root_path: str, state: dict[str, Any] | None, sendfile: bool) -> None:
        self._environs = environs
        self._root_path = (root_path or environs.script_name).rstrip("/")
        self._state = state
        self._sendfile = sendfile

    def of_request(self, server: Address, peer: Address | None, request: Request, standing: int) -> Scope:
        """The scope of one HTTP request. Raises BadRequest.

        `server` is where its connection was accepted, `peer` who has connected, `standing` as in forwarded.py.
        """
        path = request.path
        client, scheme, root_path = peer, "http", self._root_path
        if standing & TRUSTED:
            said, scheme, mount = self._environs.claims(request)
            if said is not None:
                client = (said[0], int(said[1] or 0))
            scheme = scheme or "http"
            if mount:
                root_path = mount.encode("latin-1").decode(errors="replace").rstrip("/")
        decoded = unquote(path) if "%" in path else path
        raw_path = path.encode("ascii")
        if root_path and decoded != root_path and not decoded.startswith(root_path + "/"):
            decoded = root_path + decoded
            raw_path = quote(root_path, PCHAR, errors="surrogateescape").encode("ascii") + raw_path
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1" if request.minor else "1.0",
            "method": request.method,
            "scheme": scheme,
            "path": decoded,
            "raw_path": raw_path,
            "query_string": request.query.encode("ascii"),
            "root_path": root_path,
            "headers": request.pairs if request.pairs is not None else self._headers(request, standing),
            "client": client,
            "server": server,
            "extensions": {"http.response.trailers": {}, "http.response.early_hint": {}},
        }
        if self._sendfile:
            scope["extensions"]["http.response.pathsend"] = {}
            scope["extensions"]["http.response.zerocopysend"] = {}
        if request.uri[0] != "/" and request.host:  # whatever Host said (RFC 9112 section 3.2.2)
            others = (each for each in scope["headers"] if each[0] != b"host")
            scope["headers"] = [(b"host", request.host.encode("ascii")), *others]
        if self._state is not None:
            scope["state"] = self._state.copy()
        return scope

    def _headers(self, request: Request, standing: int) -> list[tuple[bytes, bytes]]:
        """The fields of an unusual head, names in lower case, in their order. Raises BadRequest."""
        found = [(name.lower(), value) for name, value in request.fields]
        if request.odd:
            found = list(self._even(found, standing))
        return found

    def _even(self, fields: Iterable[tuple[bytes, bytes]], standing: int) -> Iterable[tuple[bytes, bytes]]:
        """The fields that may be passed on, of some that have underscores in their names. Raises BadRequest."""
        trusted = bool(standing & TRUSTED)
        for name, value in fields:
            if b"_" not in name or self._environs.odd_key(trusted, name.decode("ascii")) not in ("", "SCRIPT_NAME"):
                yield name, value


def websocket(scope: Scope, subprotocols: list[str]) -> None:
    """Makes the scope of a request for a WebSocket one of that."""
    scope["type"] = "websocket"
    scope["scheme"] = SECURE.get(scope["scheme"], "ws")
    scope["subprotocols"] = subprotocols
    del scope["method"]
