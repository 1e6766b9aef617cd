"""Idle connections change workers: given away by a loop that retires, taken in by one that serves.

What moves is a connection between two requests of which nothing has been read; what its client sends meanwhile waits in
the socket and moves with it. A connection that the queue does not take stays, and ends here politely. See
process/adoption.py for the queue and what comes out of it.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sdserve.process.adoption import AdoptionQueue, Foundling
from sdserve.workers.stream import Phase, Stream

if TYPE_CHECKING:
    from sdserve.process.listeners import Listener


def may_move(stream: Stream) -> bool:
    """Whether nothing of a request or a response is on its way."""
    return stream.phase is Phase.HEAD and not stream.conn.buffered and not stream.close_after


def give_away(queue: AdoptionQueue, streams: Iterable[Stream]) -> tuple[list[Stream], bool]:
    """Offers the streams that may move; returns those that went, and whether the queue took all of them.

    The caller forgets and closes what went: the queue holds the connection now, and no other copy may be left.
    """
    movable = [stream for stream in streams if may_move(stream)]
    sent = queue.offer([_foundling(stream) for stream in movable])
    return movable[:sent], sent == len(movable)


def _foundling(stream: Stream) -> Foundling:
    peer = (str(stream.base["REMOTE_ADDR"]), str(stream.base.get("REMOTE_PORT", ""))) if stream.proxied else ("", "")
    return Foundling(stream.sock, stream.listener, *peer)


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
