"""A request as the hooks pre_request and post_request see it, by the names that it has in gunicorn.

A request becomes one of this class where a hook is set, and only there: nobody else pays for it. Everything is found
out when it is asked for. What pre_request changes counts: the environ is built afterwards.
"""

from collections.abc import Callable
from functools import cached_property
from io import BytesIO
from typing import Any

from sdserve.http.errors import HTTPError
from sdserve.http.request import Request
from sdserve.workers.http.body import Body, WholeBody
from sdserve.workers.http.client import Client

PeerAddress = tuple[str, int] | str  # "" for a Unix socket's peer


class HookedRequest(Request):
    """See `hook`, which makes it of a request."""

    _client: Client
    _environ: Callable[[Any, Request], dict[str, Any]]
    cfg: Any
    proxy_protocol_info = None
    must_close = False

    @cached_property
    def headers(self) -> list[tuple[str, str]]:
        """Pairs of an upper-case name and a value; a hook may add to them, take from them, or set another list."""
        return super().headers

    @cached_property
    def body(self) -> Any:
        """The body from its first byte; what a hook reads of it, the application still reads."""
        body = self._client.body
        return BytesIO() if body is None else body.reader()

    @property
    def trailers(self) -> list[tuple[str, str]]:
        """Always empty: fields behind a chunked body are checked, and go no further."""
        return []

    @property
    def peer_addr(self) -> PeerAddress:
        """Who is connected: the client, or the proxy in front."""
        try:
            peer = self._client.sock.getpeername()
        except OSError:  # it has gone
            return self._address(self._client.base)
        return (peer[0], peer[1]) if isinstance(peer, tuple) else ""

    @property
    def remote_addr(self) -> PeerAddress:
        """The client, as far as proxies that are trusted say who it is."""
        return self._address(self._told())

    @property
    def scheme(self) -> str:
        """http or https, as a trusted proxy says."""
        return str(self._told()["wsgi.url_scheme"])

    def _told(self) -> dict[str, Any]:
        """The environ. Of a request that is refused because its proxy contradicts itself: what the connection tells."""
        try:
            return self._environ(self._client, self)
        except HTTPError:
            return self._client.base

    @property
    def req_number(self) -> int:
        """Which request of its connection this is, from 1 on."""
        return self._client.conn.requests

    def should_close(self) -> bool:
        return not self.keep_alive

    def force_close(self) -> None:
        """Closes the connection after the response."""
        self.must_close = True
        self.keep_alive = False

    @staticmethod
    def _address(environ: dict[str, Any]) -> PeerAddress:
        address = environ["REMOTE_ADDR"]
        return (address, int(environ.get("REMOTE_PORT") or 0)) if address else ""

    def heed(self) -> None:
        """Makes the fields what a hook has made of `headers`."""
        headers = self.__dict__.get("headers")
        if headers is not None and headers != super().headers:
            self.fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            self.named = self.pairs = self.by_name = None  # made anew of them


def reader(request: Request, body: Body | WholeBody) -> Any:
    """The body's one reader, for the application: a hook may have asked for it before."""
    asked = request.__dict__.get("body")
    if asked is None:
        return body.reader()
    asked.seek(0)
    return asked


def was_closed(request: Request) -> bool:
    """Whether a hook, and perhaps not the client, has made this the last request of its connection."""
    return isinstance(request, HookedRequest) and request.must_close


def hook(
    request: Request, client: Client, cfg: Any, environ: Callable[[Any, Request], dict[str, Any]]
) -> HookedRequest:
    """Makes `request` one for hooks. `environ` builds what the application would get."""
    request.__class__ = HookedRequest
    assert isinstance(request, HookedRequest)
    request._client, request._environ, request.cfg = client, environ, cfg
    return request
