"""Heads of answers, made by several threads with one writer."""

import pytest

from sdserve.http.limits import Limits
from sdserve.http.request import RequestReader
from sdserve.http.response import HeadWriter
from sdserve.http.writer import Writer
from tests.support.between import at_each_line

FIELDS = [("Content-Type", "text/plain"), ("Content-Length", "5")]


def answer(writer: HeadWriter, now: float) -> bytes:
    """An answer as worker classes make one."""
    if now >= writer.until:
        writer.clock(now)
    one = Writer(writer, RequestReader(Limits()).read(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
    one.head = writer.head("200 OK", FIELDS)
    parts = one.whole(b"hello")
    assert isinstance(parts, bytes)
    return parts


@pytest.mark.parametrize("earlier", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("keeps", [True, False])
def test_an_answer_is_whole_whatever_another_thread_does_to_the_clock(keeps: bool, earlier: bool) -> None:
    """Who is sent a head without its last lines waits for them until the connection ends."""
    answers: list[bytes] = []
    for _ in at_each_line(HeadWriter.clock, lambda: answers.append(answer(writer, 1000.0))):  # noqa: B023 - of this turn
        writer = HeadWriter("test")
        writer.keeps = keeps
        if earlier:
            writer.clock(1.0)
        writer.clock(1000.0)
    assert len(answers) > 4
    for each in answers:
        head, _, body = each.partition(b"\r\n\r\n")
        names = {line.partition(b": ")[0] for line in head.split(b"\r\n")[1:]}
        assert names - {b"Connection"} == {b"Content-Type", b"Content-Length", b"Date", b"Server"}, each
        assert (b"Connection" in names) is not keeps
        assert body == b"hello"


def test_a_head_is_whole_before_anybody_has_looked_at_the_clock() -> None:
    writer = HeadWriter("test")
    writer.until = 2.0
    assert answer(writer, 1.0).endswith(b"Server: test\r\n\r\nhello")
