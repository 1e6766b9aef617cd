"""The control socket: one request, one answer, and no client that could hurt the master."""

import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sdserve.arbiter.control import LONGEST_REQUEST, Answer, Control
from sdserve.arbiter.loop import Loop
from sdserve.errors import ListenError
from sdserve.log import Logger
from tests.unit.arbiter.turning import Turning


class Service(Turning):
    """A control socket with two commands, `status` that answers and `reload` that lets wait, and its clients."""

    def __init__(self, path: Path) -> None:
        self.path = str(path / "control")
        self.loop = Loop()
        self.waiting: list[Answer] = []
        commands = {"status": lambda answer: answer({"ok": True, "text": "fine"}), "reload": self.waiting.append}
        self.control = Control(self.loop, Logger(), commands)
        self.control.open(self.path)
        self.stack = ExitStack()

    def client(self) -> socket.socket:
        sock = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.connect(self.path)
        sock.setblocking(False)
        return sock

    def answer(self, client: socket.socket) -> dict[str, Any] | None:
        """What the client hears, None for the end of file."""
        heard = b""

        def complete() -> bool:
            nonlocal heard
            while True:
                try:
                    data = client.recv(65536)
                except BlockingIOError:
                    return False
                heard += data
                if not data:
                    return True

        self.turn_until(complete)
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
    assert service.answer(client) == {"ok": False, "text": "not understood; the commands are reload, status"}
    other_asks(service, service.client())


def test_too_long(service: Service) -> None:
    client = service.client()
    client.send(b"x" * (LONGEST_REQUEST // 2) * 2)
    client.send(b"x" * 10)
    assert service.answer(client) is None
    other_asks(service, service.client())


def test_one_that_goes_away(service: Service) -> None:
    client = service.client()
    client.send(b'{"command"')
    client.close()
    other_asks(service, service.client())


def test_one_that_does_not_ask_is_not_waited_for(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdserve.arbiter.control.ASK_WITHIN", 0.2)
    silent, waits = service.client(), service.client()
    silent.send(b'{"command"')
    waits.send(b'{"command": "reload"}\n')
    assert service.answer(silent) is None
    service.waiting[0]({"ok": True})  # who has asked may wait for as long as it takes
    assert service.answer(waits) == {"ok": True}


def test_an_answer_later(service: Service) -> None:
    client = service.client()
    client.send(b'{"command": "reload"}\n')
    service.turn_until(lambda: service.waiting)
    other_asks(service, service.client())  # nobody waits for the one that waits
    service.waiting[0]({"ok": False, "text": "bad"})
    assert service.answer(client) == {"ok": False, "text": "bad"}


def test_an_answer_to_one_that_did_not_wait(service: Service) -> None:
    client = service.client()
    client.send(b'{"command": "reload"}\n')
    service.turn_until(lambda: service.waiting)
    client.close()
    service.waiting[0]({"ok": True})
    other_asks(service, service.client())
    service.waiting[0]({"ok": True})


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
    heir = Control(service.loop, Logger(), {"status": lambda answer: answer({"ok": True, "text": "heir"})})
    heir.adopt(listener)
    client.send(b'{"command": "status"}\n')
    assert service.answer(client) == {"ok": True, "text": "heir"}
    heir.close()
    assert not os.path.exists(service.path)
