"""Signals to a master without systemd mean what they mean to gunicorn's."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.load import Load
from tests.support.server import Server, answer, children, connector
from tests.support.waiting import eventually

Start = Callable[..., Server]


@pytest.fixture
def address(short_path: Path) -> str:
    return str(short_path / "s")


def serve(start: Start, address: str, *args: str) -> Server:
    return start("-b", f"unix:{address}", *args, "plain:application").wait_ready()


def test_ttin_and_ttou(start: Start, address: str) -> None:
    server = serve(start, address, "-w", "2")
    first = server.wait_workers(2)
    for more in (3, 4, 5):  # one by one: the kernel merges signals of one kind that wait
        server.kill(signal.SIGTTIN)
        server.wait_workers(more)
    eventually(lambda: "5 of 5 workers serving" in server.status(), "all serve: who boots yet is less worth than they")
    for less in (4, 3, 2):
        server.kill(signal.SIGTTOU)
        left = server.wait_workers(less)
    assert not {p.pid for p in first} & {p.pid for p in left}, "the oldest retire first"
    for _ in range(3):
        mark = server.mark
        server.kill(signal.SIGTTOU)
        server.wait_log("Handling signal: ttou", since=mark)
    server.wait_workers(1)  # the last one stays
    assert answer(address).status == 200
    server.kill(signal.SIGHUP)
    server.wait_workers(2)


def test_cont_is_caught_and_changes_nothing(start: Start, address: str) -> None:
    """systemd starts no unit of Type=notify-reload whose main process does not catch its ReloadSignal=."""
    server = serve(start, address, "-w", "1")
    status = Path(f"/proc/{server.pid}/status").read_text()
    [caught] = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:")]
    assert caught >> signal.SIGCONT - 1 & 1
    mark = server.mark
    server.kill(signal.SIGCONT)
    server.kill(signal.SIGTTIN)
    server.wait_workers(2)
    assert "signal: cont" not in server.log[mark:]


READS_IN_C = """
import ctypes
import os
from pathlib import Path

waiting = os.open("pipe", os.O_RDWR)
Path("waits").touch()
got = ctypes.CDLL(None, use_errno=True).read(waiting, ctypes.create_string_buffer(9), 9)
assert got == 1, (got, os.strerror(ctypes.get_errno()))

def application(environ, start_response):
    start_response("200 OK", [])
    return [b"it has read"]
"""


def test_usr1_interrupts_no_c_code_of_a_boot(start: Start, address: str, short_path: Path) -> None:
    """Not every library goes on after EINTR, and logs are rotated at any time."""
    os.mkfifo(short_path / "pipe")
    (short_path / "reads.py").write_text(READS_IN_C)
    server = start("-b", f"unix:{address}", "-w", "1", "--chdir", str(short_path), "reads")
    eventually((short_path / "waits").exists, "the application waits")
    [worker] = children(server.pid)
    eventually(lambda: worker.state == "S", "it sleeps in read(2)")
    os.kill(worker.pid, signal.SIGUSR1)
    status = Path(f"/proc/{worker.pid}/status")
    eventually(lambda: "ShdPnd:\t0000000000000000" in status.read_text(), "the signal has arrived")
    (short_path / "pipe").write_text("x")
    server.wait_ready()
    assert answer(address).body == b"it has read"


def test_usr1_reopens_the_logs_of_master_and_workers(start: Start, address: str, tmp_path: Path) -> None:
    access, errors = tmp_path / "access.log", tmp_path / "error.log"
    server = serve(start, address, "--access-logfile", str(access), "--error-logfile", str(errors))
    answer(address, "/first")
    eventually(lambda: "/first" in access.read_text(), "the first request in the log")
    access.rename(tmp_path / "access.1")
    errors.rename(tmp_path / "error.1")

    server.kill(signal.SIGUSR1)

    eventually(lambda: access.exists() and errors.exists(), "new log files")

    def second() -> bool:
        answer(address, "/second")
        return "/second" in access.read_text()

    eventually(second, "the second request in the new log")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("place", ["root's", "the user's"])
def test_usr1_makes_log_files_for_the_user_of_the_workers(start: Start, short_path: Path, place: str) -> None:
    """The master is root, and makes the new file; a worker that is not has to open it as well."""
    logs, address = short_path / "logs", str(short_path / "s")
    logs.mkdir()
    short_path.chmod(0o755)
    if place == "the user's":
        os.chown(logs, 65534, 65534)
    access = logs / "access.log"
    files = "--access-logfile", str(access), "--error-logfile", str(logs / "error.log")
    # Preloaded: the user need not be able to read where the tests are.
    server = serve(start, address, "-u", "65534", "-g", "65534", "--preload", *files)
    access.rename(logs / "access.1")

    server.kill(signal.SIGUSR1)

    def asked() -> bool:
        answer(address, "/anew")
        return "/anew" in access.read_text()

    eventually(lambda: access.exists() and asked(), "a request in the new log")
    assert (access.stat().st_uid, access.stat().st_gid) == (65534, 65534)
    assert "cannot reopen" not in (logs / "error.log").read_text()


def test_winch_retires_the_workers_and_hup_brings_them_back(start: Start, address: str) -> None:
    server = serve(start, address, "-w", "2")
    server.wait_workers(2)
    server.kill(signal.SIGWINCH)
    server.wait_workers(0)
    server.kill(signal.SIGHUP)
    server.wait_workers(2)
    assert answer(address).status == 200


def test_hup_replaces_the_workers(start: Start, address: str) -> None:
    server = serve(start, address, "-w", "2")
    old = [p.pid for p in server.wait_workers(2)]
    mark = server.notify.mark
    with Load(connector(address), clients=4) as load:
        server.kill(signal.SIGHUP)
        server.notify.wait("RELOADING=1", since=mark)
        server.notify.wait("READY=1", since=mark)
        new = server.wait_workers(2, besides=old)
        load.wait(lambda record: {p.pid for p in new} & set(record.pids), "an answer of the new workers")
    assert not load.record.failures, load.record


def test_term_answers_what_was_begun(start: Start, address: str) -> None:
    server = serve(start, address, "-w", "2", "-e", "DELAY=0.6")
    mark = server.notify.mark
    with Load(connector(address), clients=1, requests=1) as load:
        busy(server, 1)
        server.kill(signal.SIGTERM)
        server.notify.wait("STOPPING=1", since=mark)
        assert server.wait() == 0
    assert load.record.statuses == {200: 1}, load.record
    assert not Path(address).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_wait_for_nobody(start: Start, address: str, number: signal.Signals) -> None:
    server = serve(start, address, "-w", "2", "-e", "DELAY=60")
    with Load(connector(address), clients=1, requests=1) as load:
        busy(server, 1)
        server.kill(number)
        assert server.wait(timeout=10) == 0
    assert not load.record.answers


def test_a_graceful_stop_ends_within_the_graceful_timeout(start: Start, address: str) -> None:
    server = serve(start, address, "-w", "1", "-e", "DELAY=60", "--graceful-timeout", "1")
    with Load(connector(address), clients=1, requests=1):
        busy(server, 1)
        server.kill(signal.SIGTERM)
        assert server.wait(timeout=10) == 0


def test_a_second_signal_is_heard_while_the_first_is_at_work(start: Start, address: str) -> None:
    server = serve(start, address, "-w", "1", "-e", "DELAY=60")
    mark = server.notify.mark
    with Load(connector(address), clients=1, requests=1):
        busy(server, 1)
        server.kill(signal.SIGTERM)
        server.notify.wait("STOPPING=1", since=mark)
        server.kill(signal.SIGQUIT)
        assert server.wait(timeout=10) == 0


def test_workers_ignore_what_is_meant_for_the_master(start: Start, address: str) -> None:
    server = serve(start, address, "-w", "2")
    workers = server.wait_workers(2)
    for worker in workers:
        for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH):
            worker.kill(number)
    assert {answer(address).status for _ in range(6)} == {200}
    assert [p.pid for p in server.wait_workers(2)] == [p.pid for p in workers]


def busy(server: Server, workers: int) -> None:
    """Wait until workers sleep inside the application, seen as the system call that they are in."""

    def look() -> bool:
        calls = [Path(f"/proc/{p.pid}/syscall").read_text().split()[0] for p in server.workers]
        assert sum(call in NANOSLEEP for call in calls) >= workers, calls
        return True

    eventually(look, "busy workers")


NANOSLEEP = {"35", "230", "115", "101"}
"""nanosleep and clock_nanosleep, on x86-64 and on arm64."""
