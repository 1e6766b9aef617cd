"""Fuzzes the engine: `python -m tests.fuzz [LIBFUZZER OPTION…]`, for instance `-runs=1000000`.

An input is four bytes and a stream of requests: which limits, and where the stream is cut. Every input is read whole,
cut, and byte by byte (the short ones), each time also by a reader that remembers it, and must give the same events. The
fields of each head must be those that the exact reader finds. No exception but an HTTPError may come out, what is held
must stay within the limits, a closed connection must stay silent, and no call may return without progress for ever. The
corpus grows in a directory of the temporary files; a finding is written to the current one.
"""

import itertools
import sys
import tempfile
from pathlib import Path

try:
    import atheris  # type: ignore[import-untyped]
except ImportError:
    sys.exit("atheris is not installed: .venv/bin/python -m pip install atheris")

with atheris.instrument_imports(include=["sdserve.http"]):
    from sdserve.http import scan
    from sdserve.http.connection import Connection, State
    from sdserve.http.errors import HTTPError
    from sdserve.http.limits import Limits
    from sdserve.http.names import Names
    from sdserve.http.request import Request, RequestReader

from tests.fuzz import corpus

SMALL = Limits(request_line=40, fields=4, field_size=60, head=150, body=100, chunk_line=20, requests=5)
CHOICES = (SMALL, Limits(request_line=200, fields=8, field_size=300, head=1000, body=1000, chunk_line=64))
BYTE_BY_BYTE = 64  # streams up to this length are read in single bytes as well

Events = tuple[list[object], int]


class Feeder:
    """Reads a stream in pieces and writes down what comes out."""

    def __init__(self, reader: RequestReader, limits: Limits) -> None:
        self._limits = limits
        self._conn = Connection(reader, limits, dict)
        self._out: list[object] = []

    def feed(self, pieces: list[bytes]) -> Events:
        """(what came out, the status of the error that ended it or 0). Raises AssertionError for a broken promise."""
        conn = self._conn
        try:
            for piece in pieces:
                conn.receive(piece)
                self._take()
                self._check_memory(len(piece))
        except HTTPError as error:
            assert conn.state is State.CLOSED, "open after an error"
            self._check_closed()
            return self._out, error.status
        if conn.state is State.CLOSED:
            self._check_closed()
        return self._out, 0

    def _take(self) -> None:
        conn, out = self._conn, self._out
        for _ in range(100_000):
            if conn.state is not State.BODY:
                request = conn.next_request()
                if request is None:
                    if conn.state is State.LAST:  # nobody wants what another protocol would be asked for
                        conn.close()
                    return
                check_fields(request, self._limits)
                out.append((request.method, request.uri, request.fields, request.length, request.keep_alive))
                if request.length and (whole := conn.whole_body()) is not None:
                    out += [whole, ("end", list(conn.trailers))]
                continue
            data = conn.read_body()
            if data is None:
                out.append(("end", list(conn.trailers)))
            elif not data:
                return
            elif isinstance(out[-1], bytes):
                out[-1] += data
            else:
                out.append(data)
        raise AssertionError("there is no end of it")

    def _check_memory(self, piece: int) -> None:
        """What is kept for later is at most one incomplete element of the protocol, and less than a head may be."""
        limits = self._limits
        bound = max(limits.head, limits.request_line, limits.field_size, limits.chunk_line) + 4
        assert len(self._conn.rest) <= bound, f"{len(self._conn.rest)} bytes are held after a piece of {piece}"

    def _check_closed(self) -> None:
        conn = self._conn
        conn.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not conn.buffered, "a closed connection holds bytes"
        assert conn.next_request() is None, "a closed connection is read"


def check_fields(request: Request, limits: Limits) -> None:
    """Raises AssertionError unless the exact reader finds the same fields in a head as the fast one has."""
    _, fields = scan.verdict(request.head, limits)
    named: dict[str, str] = {}
    Names().gather(fields, named)
    assert (request.fields, request.named) == (fields, named), f"the exact reader: {fields}"


def read(stream: bytes, cuts: list[int], limits: Limits) -> Events:
    """What comes out of a stream that is cut at these places."""
    edges = sorted({0, len(stream), *cuts})
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    reader = RequestReader(limits)
    fresh = Feeder(reader, limits).feed(pieces)
    again = Feeder(reader, limits).feed(pieces)
    assert again == fresh, f"from memory: {again}, read for the first time: {fresh}"
    return fresh


def check(data: bytes) -> None:
    """One execution. Raises AssertionError, or what the engine should not have raised, for a finding."""
    if len(data) <= corpus.CUTS:
        return
    limits = CHOICES[data[0] % len(CHOICES)]
    stream = data[corpus.CUTS :]
    size = len(stream) + 1
    whole = read(stream, [], limits)
    cut = read(stream, [byte * size // 256 for byte in data[1 : corpus.CUTS]], limits)
    assert cut == whole, f"cut: {cut}, whole: {whole}"
    if size <= BYTE_BY_BYTE:
        single = read(stream, list(range(size)), limits)
        assert single == whole, f"byte by byte: {single}, whole: {whole}"


def main() -> None:
    """Runs libFuzzer with the seeds, and with the options of the command line."""
    directory = Path(tempfile.gettempdir()) / "sdserve-fuzz"
    count = corpus.write(directory / "seeds")
    found = directory / "corpus"
    found.mkdir(exist_ok=True)
    sys.stderr.write(f"{count} seeds; what covers something new is kept in {found}\n")
    one_input = any(Path(argument).is_file() for argument in sys.argv[1:])
    places = [] if one_input else [str(found), str(directory / "seeds")]
    atheris.Setup([sys.argv[0], "-max_len=2004", *sys.argv[1:], *places], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
