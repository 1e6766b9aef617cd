"""The control socket: requests, answers, streams, and no client that could hurt the master."""

import errno
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sdserve.arbiter.call import Call
from sdserve.arbiter.control import MOST_SILENT, MOST_WAITING, Control
from sdserve.arbiter.control_client import WITHIN
from sdserve.arbiter.conversation import Stage
from sdserve.arbiter.loop import Loop
from sdserve.errors import ListenError
from sdserve.log import Logger
from sdserve.ops.dialects import LONGEST
from tests.unit.arbiter.turning import Turning


class Service(Turning):
    """A control socket with two commands, `status` that answers and `reload` that lets wait, and its clients."""

    def __init__(self, path: Path) -> None:
        self.path = str(path / "control")
        self.loop = Loop()
        self.waiting: list[Call] = []
        commands = {"status": self.status, "reload": self.waiting.append}
        self.control = Control(self.loop, Logger(), commands)
        self.control.open(self.path)
        self.stack = ExitStack()

    def status(self, call: Call) -> None:
        """Followed, it is for the test to tell more."""
        if call.more:
            self.waiting.append(call)
        else:
            call.reply("fine")

    def client(self) -> socket.socket:
        sock = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.connect(self.path)
        sock.setblocking(False)
        return sock

    def read_all(self, client: socket.socket) -> bytes:
        """All that a client hears until the end of file."""
        return self.read_until(client, lambda heard: False)

    def read_until(self, client: socket.socket, enough: Callable[[bytes], bool]) -> bytes:
        """What a client hears until that is enough, or the end of file."""
        heard = b""

        def complete() -> bool:
            nonlocal heard
            while not enough(heard):
                try:
                    data = client.recv(65536)
                except BlockingIOError:
                    return False
                heard += data
                if not data:
                    return True
            return True

        self.turn_until(complete)
        return heard

    def answer(self, client: socket.socket) -> dict[str, Any] | None:
        """What the client hears, None for the end of file."""
        heard = self.read_all(client)
        return json.loads(heard) if heard else None

    def close(self) -> None:
        self.stack.close()
        self.control.close()
        self.loop.close()


@pytest.fixture
def service(short_path: Path) -> Iterator[Service]:
    service = Service(short_path)
    yield service
    service.close()


def test_only_the_owner_may_ask(service: Service) -> None:
    assert stat.S_IMODE(os.stat(service.path).st_mode) == 0o600


def test_a_question(service: Service) -> None:
    client = service.client()
    client.send(b'{"command": "status"}\n')
    assert service.answer(client) == {"ok": True, "text": "fine"}


def test_a_question_in_pieces(service: Service) -> None:
    client, other = service.client(), service.client()
    for piece in (b'{"comm', b'and": "sta', b'tus"}'):
        client.send(piece)
        other_asks(service, other)
        other = service.client()
    client.send(b"\n")
    assert service.answer(client) == {"ok": True, "text": "fine"}


def other_asks(service: Service, client: socket.socket) -> None:
    client.send(b'{"command": "status"}\n')
    assert service.answer(client) == {"ok": True, "text": "fine"}


@pytest.mark.parametrize(
    "request_",
    [b"\n", b"status\n", b"{}\n", b"[]\n", b'"status"\n', b'{"command": "halt"}\n', b'{"command": null}\n', b"\xff\n",
     b'{"command": {"a": 1}}\n', b"12\n", b"[" * 2000 + b"\n"],
)  # fmt: skip
def test_what_is_not_understood(service: Service, request_: bytes) -> None:
    client = service.client()
    client.send(request_)
    told = service.answer(client)
    assert told is not None
    assert (told["ok"], told["error"]) == (False, "NotUnderstood")
    assert told["text"].startswith("not understood; the commands are drain, ")
    other_asks(service, service.client())


def test_too_long(service: Service) -> None:
    client = service.client()
    client.send(b"x" * LONGEST)
    client.send(b"x" * 10)
    assert service.answer(client) is None
    other_asks(service, service.client())


def test_too_long_behind_another(service: Service) -> None:
    client = service.client()
    client.send(b'{"method": "org.varlink.service.GetInfo"}\0' + b"x" * (LONGEST + 1) + b"\0")
    assert service.read_all(client).count(b"\0") == 1
    other_asks(service, service.client())


def test_one_that_goes_away(service: Service) -> None:
    client = service.client()
    client.send(b'{"command"')
    client.close()
    other_asks(service, service.client())


def test_one_that_does_not_ask_is_not_waited_for(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WITHIN, Stage.ASKING, 0.2)
    silent, waits = service.client(), service.client()
    silent.send(b'{"command"')
    waits.send(b'{"command": "reload"}\n')
    assert service.answer(silent) is None
    service.waiting[0].reply("done")  # who has asked may wait for as long as it takes
    assert service.answer(waits) == {"ok": True, "text": "done"}


def test_an_answer_later(service: Service) -> None:
    client = service.client()
    client.send(b'{"command": "reload"}\n')
    service.turn_until(lambda: service.waiting)
    other_asks(service, service.client())  # nobody waits for the one that waits
    service.waiting[0].fail("ReloadFailed", "bad")
    assert service.answer(client) == {"ok": False, "text": "bad", "error": "ReloadFailed"}


def test_an_answer_to_one_that_did_not_wait(service: Service) -> None:
    client = service.client()
    client.send(b'{"command": "reload"}\n')
    service.turn_until(lambda: service.waiting)
    client.close()
    service.waiting[0].reply("done")
    other_asks(service, service.client())
    service.waiting[0].reply("done")


def test_asking_twice_is_asking_once(service: Service) -> None:
    client = service.client()
    client.send(b'{"command": "reload"}\n')
    service.turn_until(lambda: service.waiting)
    client.send(b'{"command": "reload"}\n')
    other_asks(service, service.client())
    assert len(service.waiting) == 1


def test_the_path_of_another_service(service: Service) -> None:
    with pytest.raises(ListenError, match="another process listens there"):
        Control(service.loop, Logger(), {}).open(service.path)


def test_a_successor_goes_on_with_the_same_socket(service: Service) -> None:
    client = service.client()  # not accepted yet
    listener = service.control.release()
    assert listener is not None
    service.control.close()
    assert os.path.exists(service.path)
    heir = Control(service.loop, Logger(), {"status": lambda call: call.reply("heir")})
    heir.adopt(listener)
    client.send(b'{"command": "status"}\n')
    assert service.answer(client) == {"ok": True, "text": "heir"}
    heir.close()
    assert not os.path.exists(service.path)


def test_varlink_calls_one_after_the_other(service: Service) -> None:
    client = service.client()
    one = b'{"method": "org.sdserve.Control1.Status"}\0'
    client.send(one + b'{"method": "org.varlink.service.GetInfo"}\0' + one)
    heard = service.read_until(client, lambda heard: heard.count(b"\0") == 3)
    told = [json.loads(each)["parameters"] for each in heard.split(b"\0")[:3]]
    assert [told[0], told[2]] == [{"text": "fine"}] * 2
    assert told[1]["product"] == "sdserve"


def test_what_is_no_varlink_call_ends_the_connection(service: Service) -> None:
    for message in (b"\0", b"[]\0", b'{"method": 5}\0', b"\xff\0"):
        client = service.client()
        client.send(message)
        assert service.read_all(client) == b""


def test_a_stream_ends_with_its_last_answer(service: Service) -> None:
    client = service.client()
    client.send(b'{"command": "status", "more": true}\n')
    service.turn_until(lambda: service.waiting)
    [call] = service.waiting
    call.tell("one")
    call.tell("two")
    call.reply("three")
    call.reply("nobody hears this")
    told = [json.loads(line) for line in service.read_all(client).splitlines()]
    assert [each["text"] for each in told] == ["one", "two", "three"]
    assert [each.get("continues", False) for each in told] == [True, True, False]


def test_a_slow_follower_is_told_so_and_dropped(service: Service) -> None:
    client = service.client()
    client.send(b'{"command": "status", "more": true}\n')
    service.turn_until(lambda: service.waiting)
    [call] = service.waiting
    sent = 0
    while not call.over:
        call.tell("x" * 10_000, number=sent)
        sent += 1
        assert sent < 1000, "it is buffered without end"
    other_asks(service, service.client())
    told = [json.loads(line) for line in service.read_all(client).splitlines()]
    assert [each["number"] for each in told[:-1]] == list(range(len(told) - 1)), "whole messages, none in between lost"
    assert told[-1]["error"] == "TooSlow"
    assert told[-1]["lost"] == sent - (len(told) - 1)


def fails_without_memory(call: Call) -> None:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def cannot_be_written(call: Call) -> None:
    call.reply("this is no JSON", field=object())


@pytest.mark.parametrize("handler", [fails_without_memory, cannot_be_written])
@pytest.mark.parametrize(
    ("request_", "more"),
    [
        (b'{"command": "status"}\n', b""),
        (b'{"method": "org.sdserve.Control1.Status"}\0', b'{"method": "org.sdserve.Control1.Reload"}\0'),
    ],
)
def test_a_command_that_fails_is_answered_and_logged(
    service: Service,
    handler: Callable[[Call], None],
    request_: bytes,
    more: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A handler that raises: its client is told so, and goes on or ends like any other."""
    service.control._handlers.update(status=handler, reload=lambda call: call.reply("done"))
    client = service.client()
    client.sendall(request_ + more)
    end = request_[-1:]
    heard = service.read_until(client, lambda heard: heard.count(end) == (2 if more else 1))
    failed, *others = [json.loads(each) for each in heard.split(end)[:-1]]
    told = failed["parameters"] if more else failed
    assert failed["error"] == ("org.sdserve.Control1.Failed" if more else "Failed")
    assert told["text"].startswith("status has failed: ")
    assert "the log has the traceback" in told["text"]
    assert "Error in the command status" in caplog.text and f"in {handler.__name__}" in caplog.text
    assert [each["parameters"]["text"] for each in others] == (["done"] if more else [])
    client.close()
    service.turn_until(lambda: not service.control._clients)


def test_who_does_not_read_an_answer_is_not_waited_for(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WITHIN, Stage.LEAVING, 0.05)
    client = service.client()
    client.send(b'{"command": "reload"}\n')
    service.turn_until(lambda: service.waiting)
    service.waiting[0].reply("x" * 5_000_000)
    service.turn_until(lambda: not service.control._clients)


def test_a_long_answer_arrives(service: Service) -> None:
    client = service.client()
    client.send(b'{"command": "reload"}\n')
    service.turn_until(lambda: service.waiting)
    service.waiting[0].reply("x" * 5_000_000)
    assert service.answer(client) == {"ok": True, "text": "x" * 5_000_000}


def test_silent_clients_make_room(service: Service) -> None:
    silent = [service.client() for _ in range(MOST_SILENT * 3)]
    other_asks(service, service.client())
    assert len(service.control._clients) <= MOST_SILENT
    assert service.read_all(silent[0]) == b""


def test_so_many_may_wait(service: Service) -> None:
    for number in range(MOST_WAITING):
        service.client().send(b'{"command": "reload"}\n')
        service.turn_until(lambda number=number: len(service.waiting) > number)  # type: ignore[misc]
    one_more = service.client()
    one_more.send(b'{"command": "reload"}\n')
    told = service.answer(one_more)
    assert told is not None
    assert told["error"] == "TooMany"
    service.waiting[0].reply("done")
    other_asks(service, service.client())


def test_followers_shut_nobody_out(service: Service) -> None:
    """The oldest is told that it has to make room, and why."""
    followers = []
    for number in range(MOST_WAITING + 1):
        followers.append(service.client())
        followers[-1].send(b'{"command": "status", "more": true}\n')
        service.turn_until(lambda number=number: len(service.waiting) > number)  # type: ignore[misc]
    told = service.answer(followers[0])
    assert told is not None
    assert told["error"] == "TooMany"
    assert service.waiting[0].over
    other_asks(service, service.client())
    assert sum(not call.over for call in service.waiting) == MOST_WAITING - 1


def test_who_asks_a_thousand_times_keeps_nobody_waiting(service: Service) -> None:
    """In a turn the next of its questions is answered: one when it is read, one when that is due."""
    answered = 0

    def status(call: Call) -> None:
        nonlocal answered
        answered += 1
        call.reply("fine")

    service.control._handlers["status"] = status
    many = service.client()
    many.send(b'{"method": "org.sdserve.Control1.Status"}\0' * 90)
    before = 0
    while before < 90:
        service.loop.turn()
        assert answered - before <= 2
        before = answered
    service.loop.turn()
    heard = many.recv(65536)
    assert heard.count(b"fine") == 90


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_is_not_heard_whatever_the_mode(service: Service) -> None:
    os.chmod(service.path, 0o666)
    os.chmod(os.path.dirname(service.path), 0o755)
    os.seteuid(65534)
    try:
        client = service.client()
    finally:
        os.seteuid(0)
    assert service.read_all(client) == b""
    other_asks(service, service.client())


@pytest.mark.parametrize("half_first", [False, True])
def test_who_does_not_wait_for_the_answer_is_forgotten(
    service: Service, monkeypatch: pytest.MonkeyPatch, half_first: bool
) -> None:
    """An interrupted `sdservectl wait`, again and again: it shuts no other operator out. Who has closed only its
    own half waits on."""
    monkeypatch.setitem(WITHIN, Stage.MUTE, 0.01)
    with service.client() as asks:
        asks.sendall(b'{"command": "reload"}\n')
        if half_first:
            asks.shutdown(socket.SHUT_WR)
            looks: list[None] = []
            service.turn_until(lambda: service.waiting)
            service.loop.call_at(service.loop.now() + 0.1, lambda: looks.append(None))
            service.turn_until(lambda: looks)
            assert not service.waiting[0].over
    service.turn_until(lambda: service.waiting and service.waiting[0].over)


@pytest.mark.parametrize("how", ["answered", "gone"])
def test_no_timer_outlives_who_waits(service: Service, how: str) -> None:
    """Of one that may wait for a week, and does not."""
    client = service.client()
    client.sendall(b'{"command": "reload"}\n')
    service.turn_until(lambda: service.waiting)
    [call] = service.waiting
    call.after(service.loop, 604800.0, lambda: call.fail("TooLate", "too late"))
    if how == "answered":
        call.reply("done")
    else:
        client.close()
        service.turn_until(lambda: call.over)
    assert service.loop.timeout() is None
