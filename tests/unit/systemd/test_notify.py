"""Each notification is one datagram with all that belongs to it."""

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sdserve.systemd.notify import Notifier
from tests.support.notify import NotifySocket


@pytest.fixture
def manager(short_path: Path) -> Iterator[NotifySocket]:
    with NotifySocket(str(short_path / "notify")) as sock:
        yield sock


def said(manager: NotifySocket, notifier: Notifier) -> list[dict[str, str]]:
    """All messages so far: an end mark goes behind them."""
    mark = manager.mark
    heard = Notifier(manager.address)
    heard.main_pid(42)
    manager.wait("MAINPID=42", since=mark)
    return [message.fields for message in manager.messages if message.fields != {"MAINPID": "42"}]


def test_every_message(manager: NotifySocket) -> None:
    notifier = Notifier(manager.address)
    notifier.ready("Running")
    notifier.reloaded("Reloaded", 17.25)
    notifier.stopping("Stopping")
    notifier.failed("no such module", 8)
    notifier.extend_timeout(1.5)
    notifier.watchdog()
    notifier.main_pid(17)
    messages = said(manager, notifier)
    assert messages == [
        {"READY": "1", "STATUS": "Running"},
        {"RELOADING": "1", "MONOTONIC_USEC": "17250000"},
        {"READY": "1", "STATUS": "Reloaded"},
        {"STOPPING": "1", "STATUS": "Stopping"},
        {"STATUS": "no such module", "ERRNO": "8"},
        {"EXTEND_TIMEOUT_USEC": "1500000"},
        {"WATCHDOG": "1"},
        {"MAINPID": "17"},
    ]
    assert notifier.trouble is None


def test_the_status_only_when_it_changed(manager: NotifySocket) -> None:
    notifier = Notifier(manager.address)
    notifier.ready("one")
    notifier.status("one")
    notifier.status("two")
    notifier.status("two")
    assert said(manager, notifier) == [{"READY": "1", "STATUS": "one"}, {"STATUS": "two"}]


def test_a_line_break_in_a_text_is_no_new_assignment(manager: NotifySocket) -> None:
    notifier = Notifier(manager.address)
    notifier.failed("one\nREADY=1", 5)
    assert said(manager, notifier) == [{"STATUS": "one READY=1", "ERRNO": "5"}]


def test_a_text_commands_no_terminal(manager: NotifySocket) -> None:
    """`systemctl status` shows it."""
    notifier = Notifier(manager.address)
    notifier.status("app: \x1b]0;title\x07\x9b31m\r\u202e")
    assert said(manager, notifier) == [{"STATUS": r"app: \x1b]0;title\x07\x9b31m\r\u202e"}]


def test_a_text_that_is_too_long_takes_nothing_else_with_it(manager: NotifySocket) -> None:
    """systemd takes no notice of a message of more than 4,096 bytes, and READY=1 may be in it."""
    notifier = Notifier(manager.address)
    notifier.ready("reload failed: " + "é" * 5000)
    notifier.status("reload failed: \x1b" + "\x1b" * 5000)
    for message, character in zip(said(manager, notifier), ("é", r"\x1b"), strict=True):
        assert message["STATUS"].startswith("reload failed: " + character)
        assert message["STATUS"].endswith("...")
        assert 2000 < len("\n".join(f"{name}={value}" for name, value in message.items()).encode()) < 4096


def test_a_muted_master_says_nothing(manager: NotifySocket) -> None:
    notifier = Notifier(manager.address, muted=True)
    notifier.ready("Running")
    notifier.watchdog()
    assert said(manager, notifier) == []
    notifier.muted = False
    notifier.watchdog()
    assert said(manager, notifier) == [{"WATCHDOG": "1"}]


def test_the_variable_is_taken_out_and_never_left_behind(manager: NotifySocket) -> None:
    environ = {"NOTIFY_SOCKET": manager.address, "OTHER": "stays"}
    notifier = Notifier.from_environ(environ)
    assert environ == {"OTHER": "stays"}
    notifier.ready("Running")
    assert "NOTIFY_SOCKET" not in os.environ
    assert notifier.variables() == {"NOTIFY_SOCKET": manager.address}


def test_without_a_manager() -> None:
    notifier = Notifier.from_environ({})
    notifier.ready("Running")
    assert not notifier.enabled
    assert notifier.variables() == {}
    assert notifier.trouble is None


def test_a_manager_that_is_gone_is_trouble_but_no_harm(tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "none"))
    notifier.ready("Running")
    assert isinstance(notifier.trouble, OSError)
    assert "NOTIFY_SOCKET" not in os.environ


def test_a_descriptor_to_keep(manager: NotifySocket) -> None:
    notifier = Notifier(manager.address)
    with open(os.devnull) as file:
        notifier.store("queue", file.fileno())
    assert said(manager, notifier) == [{"FDSTORE": "1", "FDNAME": "queue"}]


def test_a_sign_of_life_does_not_wait_for_what_systemd_did_not_take(manager: NotifySocket) -> None:
    class Refused(Notifier):
        def _deliver(self, message: str, fds: Sequence[int] = ()) -> bool:
            return not message.startswith("STATUS=") and super()._deliver(message, fds)

    notifier = Refused(manager.address)
    notifier.status("Running")
    assert notifier.watchdog()
    notifier.extend_timeout(5)
    assert said(manager, notifier) == [{"WATCHDOG": "1"}, {"EXTEND_TIMEOUT_USEC": "5000000"}]
    assert notifier.unsent == ["STATUS=Running"]


def test_nobody_waits_for_long_for_a_manager_that_does_not_read(short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(short_path / "notify"))
        notifier = Notifier(str(short_path / "notify"))
        while notifier.watchdog():
            pass
        notifier.ready("Running")
        assert isinstance(notifier.trouble, TimeoutError)
        deaf.recv(100)
        assert notifier.send_again() and not notifier.unsent


def test_a_descriptor_that_could_not_be_stored_keeps_no_state_from_systemd(short_path: Path) -> None:
    """It is closed long before systemd hears again, and its number another file's."""
    notifier = Notifier(str(short_path / "notify"))
    with open(os.devnull) as file:
        notifier.store("queue", file.fileno())
    assert isinstance(notifier.trouble, OSError)
    with NotifySocket(str(short_path / "notify")) as manager:
        notifier.ready("Running")
        assert said(manager, notifier) == [{"READY": "1", "STATUS": "Running"}]


def test_an_abstract_socket() -> None:
    name = f"sdserve-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        Notifier("@" + name).ready("Running")
        assert manager.recv(100) == b"READY=1\nSTATUS=Running"


def test_the_status_of_who_takes_over_is_said_once_somebody_hears(short_path: Path) -> None:
    notifier = Notifier(str(short_path / "notify"), muted=True)
    notifier.status("Running: 2 workers")
    notifier.muted = False
    notifier.takes_over("Running: 2 workers")
    with NotifySocket(str(short_path / "notify")) as manager:
        assert notifier.send_again()
        assert said(manager, notifier) == [{"STATUS": "Running: 2 workers"}]
