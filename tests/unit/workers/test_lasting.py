"""What a worker says of requests that last: the longest first, in ASCII, and never so much that it is not sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdserve.workers.lasting import CUT, LONGEST, MOST, Lasting, decode, encode


def test_only_what_lasts_is_said_and_streams_come_last() -> None:
    calls = [
        Lasting(False, 99.5, "GET /quick"),
        Lasting(True, 1.0, "GET /events"),
        Lasting(False, 90.0, "GET /slow"),
        Lasting(False, 80.25, "POST /slower"),
    ]
    assert decode(encode(calls, 100.0)) == (
        100.0,
        (
            Lasting(False, 80.25, "POST /slower"),
            Lasting(False, 90.0, "GET /slow"),
            Lasting(True, 1.0, "GET /events"),
        ),
    )


def test_that_nothing_lasts_is_said_too() -> None:
    assert decode(encode([], 5.0)) == (5.0, ())


@given(st.floats(0.0, 1e9))
def test_the_time_is_said_in_full(now: float) -> None:
    """An answer within a fraction of a millisecond would seem to come before its question otherwise."""
    assert decode(encode([], now)) == (now, ())


def test_a_crowd_of_long_requests_fits_into_one_datagram() -> None:
    calls = [Lasting(False, float(number), "GET /" + "\N{SNOWMAN}" * 9000) for number in range(5000)]
    said = encode(calls, 1e9)
    assert len(said) < 4096
    _, told = decode(said)
    assert [call.began for call in told] == [float(number) for number in range(MOST)]
    assert all(len(call.request) == LONGEST and call.request.endswith(CUT) for call in told)


@pytest.mark.parametrize(
    "hostile", ["\x1b]0;mine\x07", "\x9b2J", "\r", "\n9.0 0 GET /forged", "\x7f", "\u202e", "\ud800"]
)
def test_no_request_writes_more_than_its_own_line(hostile: str) -> None:
    _, [call] = decode(encode([Lasting(False, 1.0, f"GET /{hostile}")], 9.0))
    assert call.request.isascii() and call.request.isprintable()
    assert call.request.startswith("GET /\\")


@pytest.mark.parametrize(
    "said", [b"", b"nan", b"inf", b"-1.0", b"x", b"1.0\n", b"1.0\n2.0 0", b"1.0\nnan 0 GET /", b"1.0\n1.0 0 \xff"]
)
def test_nonsense_is_an_error_of_its_own(said: bytes) -> None:
    with pytest.raises(ValueError):
        decode(said)
