"""Which requests last: who is asked, and what of the answers is still so."""

from sdserve.arbiter.slow import Sight

NOW = 100.0


def one(busy_since: float, asked: float = 0.0, answered: float = 0.0, told: int = 0) -> Sight:
    """A worker with one thread."""
    return Sight(alone=True, calls=0, busy_since=busy_since, asked=asked, answered=answered, told=told)


def many(calls: int, busy_since: float, asked: float = 0.0, answered: float = 0.0, told: int = 0) -> Sight:
    """One with more, whose busy mark is renewed while its loop turns."""
    return Sight(alone=False, calls=calls, busy_since=busy_since, asked=asked, answered=answered, told=told)


class TestOfOneThread:
    def test_rest_and_quick_requests_are_left_alone(self) -> None:
        assert not one(0.0).is_to_be_asked(NOW)
        assert not one(NOW - 0.5).is_to_be_asked(NOW)

    def test_a_request_that_lasts_is_asked_for_once(self) -> None:
        assert one(NOW - 1.5).is_to_be_asked(NOW)
        assert one(NOW - 1.5, asked=NOW - 9, answered=NOW - 9, told=1).is_to_be_asked(NOW), "that was another request"
        assert not one(NOW - 9, asked=NOW - 7, answered=NOW - 7, told=1).is_to_be_asked(NOW)
        assert not one(NOW - 9, asked=NOW - 7).is_to_be_asked(NOW), "the signal may interrupt it: not again"

    def test_one_that_was_too_young_to_be_named_is_asked_for_again(self) -> None:
        """The busy mark may be a little older than the request."""
        assert one(NOW - 2, asked=NOW - 1, answered=NOW - 1, told=0).is_to_be_asked(NOW)

    def test_what_it_said_holds_until_it_moves(self) -> None:
        assert one(NOW - 9, asked=NOW - 7, answered=NOW - 6.9, told=1).is_told
        assert not one(NOW - 5, asked=NOW - 7, answered=NOW - 6.9, told=1).is_told
        assert not one(0.0, asked=NOW - 7, answered=NOW - 6.9, told=1).is_told
        assert not one(NOW - 9, asked=NOW - 7, answered=NOW - 8, told=1).is_told


class TestOfSeveralThreads:
    def test_requests_without_the_lead_are_asked_for_at_each_look(self) -> None:
        assert not many(0, NOW - 0.1).is_to_be_asked(NOW)
        assert many(1, NOW - 0.1).is_to_be_asked(NOW)
        assert many(1, NOW - 0.1, asked=NOW - 1, answered=NOW - 1, told=1).is_to_be_asked(NOW)

    def test_however_many_look_it_is_not_asked_all_the_time(self) -> None:
        assert not many(1, NOW - 0.1, asked=NOW - 0.2, answered=NOW - 0.2).is_to_be_asked(NOW)

    def test_one_in_which_nothing_moves_is_asked_once(self) -> None:
        assert many(0, NOW - 3).is_to_be_asked(NOW)
        assert not many(1, NOW - 3, asked=NOW - 1).is_to_be_asked(NOW)
        assert many(1, NOW - 0.1, asked=NOW - 1).is_to_be_asked(NOW), "it moves again"

    def test_what_it_said_holds_until_it_is_asked_again_or_has_nothing(self) -> None:
        assert many(1, NOW - 0.1, asked=NOW - 1, answered=NOW - 0.9).is_told
        assert not many(1, NOW - 0.1, asked=NOW - 1, answered=NOW - 2).is_told
        assert not many(0, 0.0, asked=NOW - 1, answered=NOW - 0.9).is_told


def test_nobody_is_told_by_one_who_was_never_asked() -> None:
    assert not one(NOW - 3).is_told
    assert not many(1, NOW - 3, answered=NOW).is_told
