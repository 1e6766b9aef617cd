"""Connections change workers: given away by a loop that retires, taken in by one that serves.

What moves is a connection whose next request the application has not been called for: an idle one, or one with a head
or body that is still arriving. What was received of the request travels with it, and so does the time that it took;
what its client sends meanwhile waits in the socket. A request that is too large to travel, or chunked, is finished
here, and so is a connection that the queue does not take. See process/adoption.py for the queue and what comes out.

Only idle connections are left to the next start of the service: whoever has begun to ask is answered by the worker that
heard it, since nobody knows how long the start takes, and whether it succeeds. A worker whose time is over leaves all.
"""

import math
from collections.abc import Iterable

from sdserve.http.request import CHUNKED, Request
from sdserve.process.adoption import CARRIED, AdoptionQueue, HandedConnection
from sdserve.process.listeners import Listener
from sdserve.workers.http.client import C, Client, Phase


def may_move(client: Client) -> bool:
    """Whether the application has been called for nothing that was received, and no response is on its way."""
    if client.close_after or client.unsent is not None:
        return False
    if client.phase is Phase.HEAD:
        return len(client.conn.rest) <= CARRIED
    if client.phase is Phase.BODY:
        request, body = client.request, client.body
        assert request is not None and body is not None
        return request.length != CHUNKED and len(_head(request)) + body.size <= CARRIED
    return False


def give_away(queue: AdoptionQueue, clients: Iterable[C], now: float, most: int) -> tuple[list[C], bool]:
    """Offers clients, up to `most` in a message; returns those that went, and whether others may go later.

    The caller forgets and closes what went: the queue holds the connection now, and no other copy may be left.
    """
    offered = {client.fd: client for client in sorted(clients, key=lambda client: client.last or client.began)}
    went, again = queue.offer([_handed(client, now) for client in offered.values()], most)
    return [offered[each.sock.fileno()] for each in went], again


def _handed(client: Client, now: float) -> HandedConnection:
    peer = (client.peer, client.port) if client.proxied else ("", "")
    if client.phase is Phase.BODY:
        assert client.request is not None and client.body is not None
        data = _head(client.request) + client.body.reader().read()
        return HandedConnection(client.sock, client.listener, *peer, data, body=max(0.0, now - client.began))
    data = client.conn.rest
    if data:
        return HandedConnection(client.sock, client.listener, *peer, data, head=max(0.0, now - client.began))
    # The full second after it: connections of the same second share an entry of the message, and one that moves again
    # and again does not become younger.
    return HandedConnection(client.sock, client.listener, *peer, since=math.ceil(client.last or client.began))


def _head(request: Request) -> bytes:
    """A request's head as it came, except for blanks; whoever expected 100 Continue has had it."""
    lines = [f"{request.method} {request.uri} HTTP/1.{request.minor}".encode("ascii")]
    lines += [b"%b:%b" % field for field in request.fields if field[0].lower() != b"expect"]
    return b"\r\n".join([*lines, b"", b""])


def peer_of(handed: HandedConnection) -> tuple[str, str]:
    """Address and port of the client, as a PROXY header or the socket says; ("", "") for a Unix socket."""
    if handed.peer:
        return handed.peer, handed.port
    address = handed.sock.getpeername()
    return (str(address[0]), str(address[1])) if isinstance(address, tuple) else ("", "")


def listener_of(handed: HandedConnection, listeners: Iterable[Listener]) -> Listener | None:
    """The listener that a connection came in by; any other if that one is gone, None if there is none at all."""
    candidates = list(listeners)
    return next((each for each in candidates if str(each) == handed.listener), next(iter(candidates), None))
