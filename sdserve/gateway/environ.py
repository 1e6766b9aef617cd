"""The environ of a request (PEP 3333): what its connection, its fields and a trusted proxy say, by CGI's names.

WSGI applications are called with it; hooks and access records read it whatever kind of application is served.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

from sdserve import SERVER_SOFTWARE
from sdserve.gateway.files import FileWrapper
from sdserve.gateway.forwarded import TRUSTED, UNNAMED, Client, Forwarding
from sdserve.http.errors import BadRequest
from sdserve.http.names import REMEMBERED, Names
from sdserve.http.request import CHUNKED, Request
from sdserve.http.scan import split_host
from sdserve.immutable import Immutable
from sdserve.log import Logger

Environ = dict[str, Any]

# Every environ has these; a connection's own part keeps a place for them.
PER_REQUEST = ["REQUEST_METHOD", "SERVER_PROTOCOL", "RAW_URI", "REQUEST_URI", "QUERY_STRING", "PATH_INFO"]
PER_REQUEST += ["wsgi.input", "wsgi.early_hints"]
SPARE = 6  # makes the table the next size: room for some twenty headers


class Terms(Immutable):
    """What the configuration says about environs. `header_map`: drop, refuse or dangerous; `forwarder`: the headers
    with underscores in their names that a trusted proxy may send, in capitals. SCRIPT_NAME among them says where the
    application is mounted. PATH_INFO is always the target's: nobody may ask for one path and get another."""

    errors: Any  # wsgi.errors
    multithread: bool = False
    multiprocess: bool = True
    script_name: str = ""
    header_map: str = "drop"
    forwarder: frozenset[str] = frozenset()


def variable(name: str) -> str:
    """The environ key of a header (RFC 3875 section 4.1.18)."""
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


def cgi_name(name: str) -> str:
    """The same, but "" where another header has the same key: what becomes of these depends on the sender."""
    return "" if "_" in name else variable(name)


def unquoted(path: str) -> str:
    """A path with each %XX as the byte that it stands for (PEP 3333's latin-1); any other % stays.

    As urllib.parse does it, whose import would be a twentieth of the start.
    """
    first, *rest = path.split("%")
    return first + "".join([_byte(part[:2]) + part[2:] for part in rest])


def _byte(digits: str) -> str:
    if len(digits) == 2 and digits.isalnum():
        try:
            return chr(int(digits, 16))
        except ValueError:
            pass
    return "%" + digits


class Environs:
    """Makes environs. `names` are the keys of header fields, for the reader of requests."""

    def __init__(self, forwarding: Forwarding, terms: Terms) -> None:
        self._forwarding = forwarding
        self._terms = terms
        self.names = Names(cgi_name)
        self._templates: dict[tuple[str, str], Environ] = {}  # by the address that was connected to

    def of_connection(self, server: tuple[str, str], peer: tuple[str, str]) -> Environ:
        """What all environs of one connection have in common; `server` and `peer` are (address, port)."""
        template = self._templates.get(server)
        if template is None:
            if len(self._templates) >= REMEMBERED:  # a wildcard listener on a machine with very many addresses
                self._templates.clear()
            template = self._templates[server] = self._server_environ(server)
        environ = template.copy()
        environ["REMOTE_ADDR"] = peer[0]
        if peer[1]:
            environ["REMOTE_PORT"] = peer[1]
        return environ

    def _server_environ(self, server: tuple[str, str]) -> Environ:
        terms = self._terms
        environ: Environ = {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": terms.errors,
            "wsgi.multithread": terms.multithread,
            "wsgi.multiprocess": terms.multiprocess,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
            "SERVER_SOFTWARE": SERVER_SOFTWARE,
            "SERVER_NAME": server[0],
            "SERVER_PORT": server[1],
            "SCRIPT_NAME": terms.script_name,
            "REMOTE_ADDR": "",
        }
        # Copies are made for every request. What each of them gets has its place already, and the table is made to grow
        # here, with keys that go again, so that a copy does not grow when headers are added.
        environ |= dict.fromkeys(PER_REQUEST, "")
        spare = dict.fromkeys(map(str, range(SPARE)))
        environ |= spare
        for key in spare:
            del environ[key]
        return environ

    def of_request(self, base: Environ, request: Request, standing: int, *, mounted: bool = True) -> Environ:
        """The environ of one request, without wsgi.input. `standing` is TRUSTED | UNNAMED; `mounted`: its path must be
        below SCRIPT_NAME. Raises BadRequest.

        The first time it is the mapping that the request's fields were read into, which was a copy of `base`.
        """
        environ = request.named
        if environ is None or request.odd:
            environ = self._gathered(base, request, bool(standing & TRUSTED))
        request.named = None
        environ["REQUEST_METHOD"] = request.method
        environ["SERVER_PROTOCOL"] = "HTTP/1.1" if request.minor else "HTTP/1.0"
        environ["RAW_URI"] = environ["REQUEST_URI"] = request.uri
        environ["QUERY_STRING"] = request.query
        path = request.path
        environ["PATH_INFO"] = unquoted(path) if "%" in path else path
        if standing:
            if standing & TRUSTED:
                self._heed_proxy(environ)
            if standing & UNNAMED and request.host:
                environ["SERVER_NAME"], port = split_host(request.host)
                environ["SERVER_PORT"] = port or ("443" if environ["wsgi.url_scheme"] == "https" else "80")
        if environ["SCRIPT_NAME"]:
            self._mount(environ, mounted)
        if request.uri[0] != "/" and request.host:
            environ["HTTP_HOST"] = request.host
        return environ

    def _gathered(self, base: Environ, request: Request, trusted: bool) -> Environ:
        """What all environs of the connection share, and the fields. Raises BadRequest."""
        environ = base.copy()
        repeated = self.names.gather(request.fields, environ, partial(self.odd_key, trusted))
        if "SCRIPT_NAME" in repeated:
            raise BadRequest("more than one SCRIPT_NAME")
        return environ

    def odd_key(self, trusted: bool, name: str) -> str:
        """The environ key of a header with underscores in its name, "" for one to be left out. Raises BadRequest.

        `X_Forwarded_For` would share its key with `X-Forwarded-For` and could stand in for it.
        """
        name = name.upper()
        if trusted and name in self._terms.forwarder:
            return name if name == "SCRIPT_NAME" else "HTTP_" + name
        if self._terms.header_map == "refuse":
            raise BadRequest(f"header {name} has an underscore in its name")
        return "" if self._terms.header_map == "drop" else variable(name)

    @property
    def script_name(self) -> str:
        """Where the application is mounted if no proxy says that."""
        return self._terms.script_name

    def claims(self, request: Request) -> tuple[Client | None, str, str]:
        """What a trusted peer says of a request: (client or None, scheme or "", SCRIPT_NAME or ""). Raises
        BadRequest."""
        forwarding, by_name = self._forwarding, request.by_name
        if by_name is None:
            fields = self._gathered({}, request, True)
            return (*forwarding.read(fields), fields.get("SCRIPT_NAME", ""))
        if forwarding.looks_at.keys().isdisjoint(by_name):
            return None, "", ""
        said = {key: by_name[name].decode("latin-1") for name, key in forwarding.looks_at.items() if name in by_name}
        return (*forwarding.read(said), "")

    def _heed_proxy(self, environ: Environ) -> None:
        """Believes a trusted peer about the client. Raises BadRequest."""
        client, scheme = self._forwarding.read(environ)
        if scheme:
            environ["wsgi.url_scheme"] = scheme
        if client is not None:
            environ["REMOTE_ADDR"], port = client
            if port:
                environ["REMOTE_PORT"] = port
            else:
                environ.pop("REMOTE_PORT", None)

    def _mount(self, environ: Environ, mounted: bool) -> None:
        prefix = environ["SCRIPT_NAME"]
        path = environ["PATH_INFO"]
        if path != prefix and not path.startswith(prefix.rstrip("/") + "/"):
            if not mounted:
                return
            raise BadRequest(f"the path is outside of SCRIPT_NAME {prefix!r}")
        environ["PATH_INFO"] = path[len(prefix) :]


def set_body(environ: Environ, request: Request, body: Any, size: int) -> None:
    """Gives the application a body that was read to its end. A chunked one becomes one of known length.

    Frameworks that read CONTENT_LENGTH bytes and know nothing of wsgi.input_terminated then see chunked bodies too.
    """
    environ["wsgi.input"] = body
    if request.length == CHUNKED:
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        environ["CONTENT_LENGTH"] = str(size)


class ErrorStream:
    """wsgi.errors: text goes where the error log goes."""

    def __init__(self, log: Logger) -> None:
        self._log = log

    def write(self, text: str) -> int:
        self._log.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing is held back."""
