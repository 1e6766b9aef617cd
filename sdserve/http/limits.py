"""How much of everything one connection may use, as plain values.

The defaults are safe ones, gunicorn's where it has the limit. Every bound exists so that a client costs a known amount
of memory and time, whatever it sends; 0 means "no limit" only where the field says so.
"""

from sdserve.immutable import Immutable


class Limits(Immutable):
    """Bounds of the parser, in bytes unless said otherwise."""

    request_line: int = 4094
    fields: int = 100  # header fields of one request, and trailer fields of one body; a count
    field_size: int = 8190  # one field line without its line end
    head: int = 65536  # request line and all fields together
    body: int = 1 << 30  # 0: no limit
    chunk_line: int = 256  # chunk size and extension
    requests: int = 0  # requests of one connection; a count, 0: no limit


class Times(Immutable):
    """Bounds of patience, in seconds; 0 means for ever."""

    head: float = 15.0  # from the first byte of a request (or from accept) to the end of its head
    keepalive: float = 2.0  # idle between two requests
    body_rate: int = 240  # bytes a second that a body must bring on average, once its grace is over; 0: any rate
    body_grace: float = 15.0
    body_idle: float = 30.0  # without any byte of a body
    send: float = 60.0  # without any byte taken by the reader of a response
    linger: float = 2.0  # reading what a client still sends after its last answer
