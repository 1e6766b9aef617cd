"""Connections change workers: given away by a loop that retires, taken in by one that serves.

What moves is a connection whose next request the application has not been called for: an idle one, or one with a head
or body that is still arriving. What was received of the request travels with it, and so does the time that it took;
what its client sends meanwhile waits in the socket. A request that is too large to travel, or chunked, is finished
here, and so is a connection that the queue does not take. See process/adoption.py for the queue and what comes out.

Only idle connections are left to the next start of the service: whoever has begun to ask is answered by the worker that
heard it, since nobody knows how long the start takes, and whether it succeeds.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sdserve.http.request import CHUNKED, Request
from sdserve.process.adoption import CARRIED, AdoptionQueue, Foundling
from sdserve.workers.stream import Phase, Stream

if TYPE_CHECKING:
    from sdserve.process.listeners import Listener


def may_move(stream: Stream) -> bool:
    """Whether the application has been called for nothing that was received, and no response is on its way."""
    if stream.close_after or stream.unsent is not None:
        return False
    if stream.phase is Phase.HEAD:
        return len(stream.conn.rest) <= CARRIED
    if stream.phase is Phase.BODY:
        request, body = stream.request, stream.body
        assert request is not None and body is not None
        return request.length != CHUNKED and len(_head(request)) + body.size <= CARRIED
    return False


def give_away(queue: AdoptionQueue, streams: Iterable[Stream], now: float, most: int) -> tuple[list[Stream], bool]:
    """Offers streams, up to `most` in a message; returns those that went, and whether others may go later.

    The caller forgets and closes what went: the queue holds the connection now, and no other copy may be left.
    """
    offered = {stream.fd: stream for stream in sorted(streams, key=lambda stream: stream.last or stream.began)}
    went, again = queue.offer([_foundling(stream, now) for stream in offered.values()], most)
    return [offered[each.sock.fileno()] for each in went], again


def _foundling(stream: Stream, now: float) -> Foundling:
    peer = (str(stream.base["REMOTE_ADDR"]), str(stream.base.get("REMOTE_PORT", ""))) if stream.proxied else ("", "")
    if stream.phase is Phase.BODY:
        assert stream.request is not None and stream.body is not None
        data = _head(stream.request) + stream.body.reader().read()
        return Foundling(stream.sock, stream.listener, *peer, data, body=max(0.0, now - stream.began))
    data = stream.conn.rest
    if data:
        return Foundling(stream.sock, stream.listener, *peer, data, head=max(0.0, now - stream.began))
    # The full second after it: connections of the same second share an entry of the message, and one that moves again
    # and again does not become younger.
    return Foundling(stream.sock, stream.listener, *peer, since=math.ceil(stream.last or stream.began))


def _head(request: Request) -> bytes:
    """A request's head as it came, but for blanks; whoever expected 100 Continue has had it."""
    lines = [f"{request.method} {request.uri} HTTP/1.{request.minor}".encode("ascii")]
    lines += [b"%b:%b" % field for field in request.fields if field[0].lower() != b"expect"]
    return b"\r\n".join([*lines, b"", b""])


def peer_of(foundling: Foundling) -> tuple[str, str]:
    """Address and port of the client, as a PROXY header or the socket says; ("", "") for a Unix socket."""
    if foundling.peer:
        return foundling.peer, foundling.port
    address = foundling.sock.getpeername()
    return (str(address[0]), str(address[1])) if isinstance(address, tuple) else ("", "")


def listener_of(foundling: Foundling, listeners: Iterable["Listener"]) -> "Listener | None":
    """The listener that a connection came in by; any other if that one is gone, None if there is none at all."""
    candidates = list(listeners)
    return next((each for each in candidates if str(each) == foundling.listener), next(iter(candidates), None))
