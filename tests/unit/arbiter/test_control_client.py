"""One client of the control socket, whatever it sends, reads and closes, and whenever it is answered.

Each call is answered once, in the order of the calls; what waits for a slow reader is bounded; nothing is kept of a
client that has gone. The clock is the test's, sockets and the loop are real.
"""

import json
import selectors
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, pairwise
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdserve.arbiter import conversation
from sdserve.arbiter.call import Call, Message
from sdserve.arbiter.control_client import WITHIN, ControlClient
from sdserve.arbiter.conversation import MOVES, Conversation, Event, Stage
from sdserve.arbiter.loop import TRY_AGAIN, Loop
from sdserve.ops.commands import Command
from sdserve.ops.dialects import LONGEST, NEWLINE, NUL

SCALE, STREAM, ONEWAY, UNKNOWN, JUNK, LONG = "scale", "stream", "oneway", "unknown", "junk", "long"
PIECE = 3000  # bytes of a message of a stream
MOST_UNREAD = 4 * PIECE  # here


class Still(selectors.DefaultSelector):
    """Does not wait: what has happened by now has happened, and time passes when the test says so."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(0)


def varlink(number: int, kind: str) -> bytes:
    calls: dict[str, dict[str, Any]] = {
        SCALE: {"method": "org.sdserve.Control1.Scale", "parameters": {"workers": number}},
        ONEWAY: {"method": "org.sdserve.Control1.Scale", "parameters": {"workers": number}, "oneway": True},
        STREAM: {"method": "org.sdserve.Control1.Status", "parameters": {"interval": number}, "more": True},
        UNKNOWN: {"method": "org.varlink.service.GetInterfaceDescription", "parameters": {"interface": f"{number}"}},
        JUNK: {"no": "method"},
        LONG: {"method": "x" * 17 * LONGEST},
    }
    return json.dumps(calls[kind]).encode() + NUL


def line(number: int, kind: str) -> bytes:
    asked: dict[str, dict[str, Any]] = {
        STREAM: {"command": "status", "interval": number, "more": True},
        UNKNOWN: {"command": "nothing"},
        JUNK: {},
        LONG: {"command": "x" * 17 * LONGEST},
    }
    return json.dumps(asked.get(kind, {"command": "scale", "workers": number})).encode() + NEWLINE


def number_of(told: dict[str, Any]) -> int:
    """Which request an answer belongs to."""
    fields = told.get("parameters", told)
    return int(fields["number"] if "number" in fields else fields["interface"])


class Talk:
    """A client at both its ends: what its user does, and what the service says."""

    def __init__(self, dialect: bytes) -> None:
        self.dialect = dialect
        self.now = 1000.0
        self.failures: list[BaseException | None] = []
        self.loop = Loop(Still(), lambda: self.now, lambda: self.failures.append(sys.exception()))
        self.user, served = socket.socketpair()
        self.user.setblocking(False)
        served.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self.calls: list[tuple[int, Call]] = []  # as they were heard
        self.ended = 0
        self.asked: list[tuple[int, str]] = []  # requests that were sent whole
        self.unsent = b""
        self.heard = b""
        self.told = 0
        self.half = self.hung_up = self.waited = False
        self.client = ControlClient(served, self.loop, self._called, lambda client: self._ends())

    def _called(self, client: ControlClient, command: Command, call: Call) -> None:
        assert all(each.over for _, each in self.calls), "one after the other"
        self.calls.append((call.get("workers") or call.get("interval"), call))

    def _ends(self) -> None:
        self.ended += 1

    @property
    def present(self) -> tuple[int, Call] | None:
        """The call that waits for an answer."""
        return next(((number, call) for number, call in self.calls if not call.over), None)

    # --- what can happen ----------------------------------------------------------------------------------------------

    def ask(self, kind: str) -> None:
        if not (self.half or self.hung_up):
            number = len(self.asked) + 1
            self.asked.append((number, kind))
            self.unsent += (varlink if self.dialect == NUL else line)(number, kind)

    def send(self, count: int) -> None:
        """Some bytes of what it asks."""
        if self.half or self.hung_up or not self.unsent:
            return
        try:
            self.unsent = self.unsent[self.user.send(self.unsent[:count]) :]
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return  # no room, or nobody hears it

    def begin(self, kind: str) -> None:
        """Asks, and is heard if nothing else is under way."""
        self.ask(kind)
        self.send(1 << 16)
        self.turn()

    def read(self, count: int) -> bool:
        """Takes some of what it is told; whether that was anything."""
        try:
            data = self.user.recv(count) if not self.hung_up else b""
        except (BlockingIOError, ConnectionResetError):
            return False
        self.heard += data
        return bool(data)

    def close_half(self) -> None:
        if not (self.half or self.hung_up):
            self.half = True
            self.user.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        self.hung_up = True
        self.user.close()

    def tell(self, times: int) -> None:
        for _ in range(times):
            if self.present is not None and self.present[1].more:
                number, call = self.present
                self.told += 1
                call.tell("x" * PIECE, number=number, place=self.told)

    def answer(self) -> None:
        if self.present is not None:
            number, call = self.present
            call.reply("done", number=number)
            call.reply("once more", number=number)  # which nobody hears

    def fail(self) -> None:
        if self.present is not None:
            number, call = self.present
            call.fail("Refused", "no", number=number)

    def refuse(self) -> None:
        if self.present is not None:
            self.present[1].fail("TooMany", "others ask", number=self.present[0])

    def turn(self) -> None:
        self.loop.turn()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.waited = True

    # --- what holds ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        assert not self.failures
        talk = self.client._talk
        assert sum(map(len, talk.unread)) <= MOST_UNREAD + 2 * (PIECE + 200)
        assert len(talk._framer._received) <= 17 * LONGEST
        assert (self.client.waits, self.client.follows) == (
            (True, self.present[1].more) if self.present is not None else (False, False)
        )
        assert self.ended == (talk.stage is Stage.OVER)
        if self.ended:
            self.check_over()

    def check_over(self) -> None:
        """Nothing is kept."""
        talk = self.client._talk
        assert not talk.unread and not talk._framer._received
        assert self.present is None
        assert self.client.fileno() == -1
        assert self.loop.timeout() is None
        assert not self.loop._watched

    def finish(self) -> None:
        """The service answers all, and the user takes it, without time to pass."""
        idle = 0
        while idle < 3:
            before = (len(self.heard), len(self.unsent), len(self.calls), self.client._talk.stage)
            self.send(1 << 16)
            self.turn()
            self.answer()
            while self.read(1 << 16):
                pass
            self.check()
            idle = (
                0
                if before != (len(self.heard), len(self.unsent), len(self.calls), self.client._talk.stage)
                else idle + 1
            )

    def finals(self) -> list[dict[str, Any]]:
        """The last answer to each request that was answered; what comes before it is checked."""
        finals: list[dict[str, Any]] = []
        parts: list[dict[str, Any]] = []
        for each in map(json.loads, self.heard.split(self.dialect)[:-1]):
            if each.get("continues"):
                parts.append(each)
                continue
            streamed = [part.get("parameters", part) for part in parts]
            assert len({part["number"] for part in streamed}) <= 1
            assert all(one["place"] + 1 == other["place"] for one, other in pairwise(streamed)), (
                "none is lost in between"
            )
            finals.append(each)
            parts = []
        return finals


STEPS = st.one_of(
    *(st.tuples(st.just("ask"), st.just(kind)) for kind in (SCALE, STREAM, ONEWAY, UNKNOWN)),
    *(st.tuples(st.just("begin"), st.just(kind)) for kind in (SCALE, STREAM, STREAM, STREAM)),
    *(st.tuples(st.just("send"), st.just(count)) for count in (1, 50, 10_000, 10_000)),
    *(st.tuples(st.just("read"), st.just(count)) for count in (1, 2000, 100_000)),
    *(st.tuples(st.just("tell"), st.just(times)) for times in (1, 3, 10)),
    *(st.tuples(st.just(name)) for name in ("turn", "turn", "turn", "answer", "fail", "refuse")),
)
SELDOM = st.one_of(
    *(st.tuples(st.just(name)) for name in ("close_half", "hang_up")),
    *(st.tuples(st.just("ask"), st.just(kind)) for kind in (JUNK, LONG)),
    *(st.tuples(st.just("wait"), st.just(seconds)) for seconds in (1.0, 11.0)),
)
STORIES = st.tuples(st.lists(STEPS, max_size=40), st.lists(SELDOM, max_size=1), st.lists(STEPS, max_size=20))
Step = tuple[Any, ...]


@contextmanager
def talking(dialect: bytes) -> Iterator[Talk]:
    with mock.patch.object(conversation, "MOST_UNREAD", MOST_UNREAD):
        talk = Talk(dialect)
        yield talk
        talk.hang_up()
        for _ in range(100):
            talk.turn()
            if talk.ended:
                break
            talk.wait(max(WITHIN.values()) + 1)
        assert talk.ended == 1, "a client that has hung up is forgotten"
        talk.check()
        talk.loop.close()


@given(st.sampled_from([NUL, NUL, NEWLINE]), STORIES)
def test_each_call_is_answered_once_in_order_and_nothing_is_kept(dialect: bytes, story: tuple[list[Step], ...]) -> None:
    with talking(dialect) as talk:
        for name, *arguments in chain.from_iterable(story):
            getattr(talk, name)(*arguments)
            talk.check()
        talk.finish()
        finals = talk.finals()
        wanted = [number for number, kind in talk.asked if kind not in (ONEWAY, JUNK, LONG)]
        too_slow = bool(finals) and "TooSlow" in finals[-1].get("error", "")
        answered = [
            number_of(each) for each in (finals[:-1] if too_slow else finals) if "NotUnderstood" not in str(each)
        ]
        assert answered == (wanted[: len(answered)] if dialect == NUL else answered[:1])
        heard = [number for number, _ in talk.calls]
        assert heard == sorted(set(heard)), "each is called once, in order"
        odd = {kind for _, kind in talk.asked} & {JUNK, LONG}
        if dialect == NUL and not (talk.waited or talk.half or talk.hung_up or too_slow or odd):
            assert answered == wanted
            assert not talk.ended


@given(st.integers(1, 12), st.booleans())
def test_who_asks_many_times_and_closes_its_half_is_answered_each_time(number: int, in_one: bool) -> None:
    with talking(NUL) as talk:
        for _ in range(number):
            talk.ask(SCALE)
            if not in_one:
                talk.send(1000)
        talk.send(1 << 16)
        talk.close_half()
        talk.finish()
        assert [number_of(each) for each in talk.finals()] == list(range(1, number + 1))
        assert talk.ended


def test_what_nobody_foresaw_ends_the_client_and_is_told() -> None:
    def fails(command: Command, call: Call) -> None:
        raise MemoryError

    with talking(NUL) as talk, mock.patch.object(talk.client, "_on_call", lambda client, *asked: fails(*asked)):
        talk.begin(SCALE)
        assert [type(each) for each in talk.failures] == [MemoryError]
        talk.failures.clear()
        assert talk.ended == 1
        talk.wait(TRY_AGAIN)
        talk.turn()  # what failed is not tried again
        talk.check()


@pytest.mark.parametrize("stage", Stage)
def test_every_stage_is_reached_and_left(stage: Stage) -> None:
    assert stage in MOVES
    assert stage is Stage.ASKING or any(stage in moves.values() for moves in MOVES.values())
    assert MOVES[stage][Event.ENDS] is Stage.OVER, "a client may go at any time"


def test_an_answer_that_cannot_be_written_was_not_given() -> None:
    talk = Conversation()
    talk.hear(varlink(1, SCALE))
    talk.take()
    with pytest.raises(TypeError):
        talk.say(Message("", {"field": object()}))
    assert not talk.unread
    assert not talk.say(Message("no", {}, "Failed"))
    assert [json.loads(each[:-1])["error"] for each in talk.unread] == ["org.sdserve.Control1.Failed"]
