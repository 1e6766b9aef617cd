"""Structured records: journald reads the fields that were given, whatever is in them, and is never waited for."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdserve.systemd import native
from tests.support.hostile import HOSTILE
from tests.support.journald import Journald, parsed
from tests.support.waiting import eventually


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    journald = Journald(tmp_path / "socket")
    yield journald
    journald.close()


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_no_value_begins_another_field(value: bytes) -> None:
    text = value.decode("latin-1")
    assert parsed(native.encode([("A", "before"), ("B", text), ("C_1", "after")])) == {
        "A": "before",
        "B": text,
        "C_1": "after",
    }


@given(st.text())
def test_whatever_the_text(text: str) -> None:
    shown = text.encode("utf-8", "backslashreplace").decode()
    assert parsed(native.encode([("A", text), ("B", text)])) == {"A": shown, "B": shown}


def test_what_is_larger_than_a_datagram_goes_as_a_sealed_file(journald: Journald) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for size in (1000, 1_000_000):
        assert native.send(native.encode([("MESSAGE", "x" * size)]), address=journald.address)
        assert journald.records() == [{"MESSAGE": "x" * size}]
    assert journald.sealed == 1
    assert set(os.listdir("/proc/self/fd")) == before


def test_nobody_waits_for_a_journald_that_does_not_read(journald: Journald) -> None:
    record, sent = native.encode([("MESSAGE", "x" * 1000)]), 0
    while native.send(record, address=journald.address):  # ends, since the queue does
        sent += 1
    assert len(journald.records()) == sent > 0
    assert native.send(record, address=journald.address)


def test_without_a_journald_nothing_is_sent(tmp_path: Path) -> None:
    assert not native.send(b"MESSAGE=a\n", address=str(tmp_path / "none"))
    Journald(tmp_path / "old").sock.close()  # its file is still there
    assert not native.send(b"MESSAGE=a\n", address=str(tmp_path / "old"))


def test_last_words_are_waited_for_but_not_for_long(journald: Journald, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_settling", 1000.0)
    done = threading.Thread(target=lambda: native.send(b"MESSAGE=a\n", last=True, address=journald.address))
    done.start()
    eventually(lambda: native._settling < 1000.0, "it waits")
    assert done.is_alive()
    journald.records()
    done.join()
    monkeypatch.setattr(native, "_settling", 0.01)
    for _ in range(3):  # all of them together
        assert native.send(b"MESSAGE=a\n", last=True, address=journald.address)
    assert native._settling <= 0


def test_a_busy_machine_makes_last_words_wait_no_longer(journald: Journald, monkeypatch: pytest.MonkeyPatch) -> None:
    now, sleeps = 0.0, 0

    def sleep(seconds: float) -> None:
        nonlocal now, sleeps
        now, sleeps = now + 0.06, sleeps + 1  # the process was not run for so long

    monkeypatch.setattr(native, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: now))
    monkeypatch.setattr(native, "_settling", 0.2)
    assert native.send(b"MESSAGE=a\n", last=True, address=journald.address)
    assert sleeps == 4


def test_no_descriptor_is_no_error(journald: Journald, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", full)
    assert not native.send(b"MESSAGE=a\n", address=journald.address)
