"""X-Request-Start in the forms that there are, and what is none."""

import pytest

from sdserve.http.queue_time import queue_seconds

NOW = 1_700_000_000.5


FORMS = ["t=1700000000.250", "1700000000.25", "t=1700000000250", "1700000000250", "1700000000250000"]
NONSENSE = ["", "t=", "t=.", "now", "-5", "nan", "inf", "1e9", "1_700_000_000", "1.2.3", "0", "5", "\u0663", "9" * 400]


@pytest.mark.parametrize("text", FORMS)
def test_seconds_milliseconds_microseconds(text: str) -> None:
    assert queue_seconds(text, NOW) == pytest.approx(0.25)


def test_a_clock_that_is_ahead() -> None:
    assert queue_seconds("t=1700000009", NOW) == 0.0


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense(text: str) -> None:
    assert queue_seconds(text, NOW) is None
