"""The seeds of the fuzzer: every row of the table of bad requests, and good ones that reach the rest of the engine."""

import hashlib
from pathlib import Path

from tests.unit.http.test_hostile import CHUNKED, GOOD, HOST, ROWS, head, post

GOOD_ONES = [
    *(GOOD, GOOD * 3, b"\r\n" + GOOD, head(b"Connection: close") + GOOD, b"GET / HTTP/1.0\r\n\r\n"),
    *(b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", b"GET http://a/b?c HTTP/1.1\r\n" + HOST + b"\r\n"),
    *(post(b"Content-Length: 5") + b"hello" + GOOD, post(b"Content-Length: 5", b"Expect: 100-continue") + b"hello"),
    *(CHUNKED + b"5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n" + GOOD, CHUNKED + b"a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n"),
    *(head(b"Upgrade: h2c", b"Connection: Upgrade"), b"BREW /pot HTTP/1.9\r\n" + HOST + b"\r\n"),
]
LONGEST = 2000  # bytes of a seed; what is longer says nothing new to the fuzzer's small limits
CUTS = 4  # the bytes before the stream, see `__main__.py`


def seeds() -> list[bytes]:
    """All seeds. Each begins with the bytes that say where the stream is cut, and under which limits it is read."""
    streams = [*GOOD_ONES, *(data for _, data, _ in ROWS if len(data) <= LONGEST)]
    return [bytes([number % 2, 7, 31, 113]) + data for number, data in enumerate(streams)]


def write(directory: Path) -> int:
    """Writes the seeds as files, named by their contents; returns how many there are."""
    directory.mkdir(parents=True, exist_ok=True)
    found = seeds()
    for seed in found:
        (directory / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    return len(found)
