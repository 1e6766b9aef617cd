"""Leaders and followers: slow calls at the same time, fast ones beside them, and a way out for those that hang."""

import random
import select
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sdserve.ctl import ask as sdservectl
from tests.support.load import Load, ask, until_closed
from tests.support.server import Server, answer, connector, free_port
from tests.support.waiting import eventually, readable

Address = tuple[str, int]


def serve(start: Callable[..., Server], *args: str) -> tuple[Server, Address]:
    address = ("127.0.0.1", free_port())
    server = start("-b", "{}:{}".format(*address), *args, "web")
    return server.wait_ready(), address


def send(address: Address, path: str) -> socket.socket:
    sock = connector(address)()
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return sock


# A thread that computes gives the interpreter away every 5 ms only, and each request needs it several times.
@pytest.mark.parametrize(("kind", "slow", "fast"), [("held", 3, 10), ("spin", 1, 3)])
def test_a_slow_call_does_not_hold_up_others(
    start: Callable[..., Server], tmp_path: Path, kind: str, slow: int, fast: int
) -> None:
    _, address = serve(start, "--threads", "4")
    door = tmp_path / "door"
    door.touch()
    socks = [send(address, f"/{kind}?{door}") for _ in range(slow)]
    for _ in range(fast):
        assert answer(address, "/hello").status == 200
    assert not readable(*socks, timeout=0)
    door.unlink()
    for sock in socks:
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_as_many_slow_calls_at_a_time_as_threads(start: Callable[..., Server]) -> None:
    _, address = serve(start, "--threads", "8")
    with Load(connector(address, timeout=90), clients=8, path="/meet?8", requests=20) as load:
        load.wait(lambda record: len(record.answers) == 160, "twenty meetings of eight calls", timeout=90)
    assert not load.record.failures
    assert set(load.record.statuses) == {200}


def test_when_all_threads_are_busy_requests_wait(start: Callable[..., Server], tmp_path: Path) -> None:
    _, address = serve(start, "--threads", "2")
    door = tmp_path / "door"
    door.touch()
    held = [send(address, f"/held?{door}") for _ in range(6)]
    door.unlink()
    for sock in held:
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("threads", ["1", "2"])
def test_new_connections_get_their_turn_among_those_that_are_open(start: Callable[..., Server], threads: str) -> None:
    _, address = serve(start, "--threads", threads)
    answers = dict.fromkeys((send(address, "/sleep?0.02") for _ in range(12)), 0)
    while 0 in answers.values():  # each client asks again when it is answered, until all have been answered once
        readable, _, _ = select.select(list(answers), [], [], 10)
        assert readable
        for sock in readable:
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK")
            answers[sock] += 1
            sock.sendall(b"GET /sleep?0.02 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert max(answers.values()) <= 6


def test_a_connection_is_served_again_after_a_slow_call(start: Callable[..., Server]) -> None:
    _, address = serve(start, "--threads", "2")
    with connector(address)() as sock:
        for path in ("/hello", "/sleep?0.02", "/hello", "/sleep?0.02", "/sleep?0.02", "/hello"):
            assert ask(sock, path).body == b"hello"


def test_what_a_client_sends_during_a_slow_call_is_served_after_it(start: Callable[..., Server]) -> None:
    _, address = serve(start, "--threads", "2")
    with connector(address)() as sock:
        sock.sendall(b"GET /sleep?0.3 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer(address, "/hello").status == 200
        sock.sendall(b"GET /pid HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert answer(address, "/hello").status == 200
        assert until_closed(sock).count(b"200 OK") == 2


def test_a_client_that_leaves_during_a_slow_call_costs_nothing(start: Callable[..., Server], tmp_path: Path) -> None:
    server, address = serve(start, "--threads", "2")
    door = tmp_path / "door"
    door.touch()
    send(address, f"/held?{door}").close()
    assert answer(address, "/hello").status == 200
    door.unlink()
    for _ in range(5):
        assert answer(address, "/sleep?0.01").status == 200
    assert "Traceback" not in server.log


def test_a_request_that_exceeds_the_time_out_is_named_and_its_worker_replaced(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server, address = serve(start, "--threads", "3", "--timeout", "1", "--graceful-timeout", "5")
    door = tmp_path / "door"
    door.touch()
    stuck = send(address, f"/held?{door}")
    (old,) = server.workers
    server.wait_log(r"GET /held\?\S+ has run for 1\.\d s")
    server.wait_log(r"web\.py.* in held")
    assert answer(address, "/hello").status == 200
    server.wait_workers(1, besides=[old.pid])
    assert int(answer(address, "/pid").body) != old.pid
    stuck.close()


def test_an_answer_that_goes_on_is_not_cut_at_the_time_out(start: Callable[..., Server], tmp_path: Path) -> None:
    """Events for a browser: the call lasts for as long as it stays, and each event counts anew."""
    server, address = serve(start, "--threads", "3", "--timeout", "1")
    (old,) = server.workers
    with send(address, "/events?0.2:12") as sock:
        got = b""
        while not got.endswith(b"\r\n0\r\n\r\n"):
            data = sock.recv(65536)
            assert data
            got += data
    assert got.count(b"data: ") == 12
    assert int(answer(address, "/pid").body) == old.pid
    assert "has run for" not in server.log


def test_an_answer_that_stops_is_named_with_what_was_sent(start: Callable[..., Server]) -> None:
    server, address = serve(start, "--threads", "3", "--timeout", "1", "--graceful-timeout", "2")
    with send(address, "/events?0.01:3:30"):
        server.wait_log(
            r"GET /events\?\S+ has run for \d\.\d s and sent 30 bytes, longer than timeout without progress"
        )
        server.wait_log(
            r"GET /events\?\S+ has run for \d\.\d s and sent 30 bytes, and is cut: it hangs, and its worker"
        )


@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_request_that_is_cut_at_a_stop_is_named(start: Callable[..., Server], threads: str, tmp_path: Path) -> None:
    server, address = serve(start, "--threads", threads, "--graceful-timeout", "1")
    with send(address, f"/stuck?sleep:{tmp_path / 'begun'}"):
        eventually((tmp_path / "begun").exists, "the call has begun")
        server.kill(signal.SIGTERM)
        server.wait_log(r"GET /stuck\?\S+ has run for \d\.\d s, and is cut: graceful_timeout is over")


def test_calls_of_all_lengths_around_a_change_of_the_lead(start: Callable[..., Server], tmp_path: Path) -> None:
    """None of them is taken for one that hangs, and the one that hangs in the end is named."""
    server, address = serve(start, "--threads", "4", "--timeout", "1")
    (worker,) = server.workers

    def client(seed: int) -> int:
        chance = random.Random(seed)
        with connector(address)() as sock:
            pauses = [chance.uniform(0, 0.012) for _ in range(150)]
            return [ask(sock, f"/sleep?{pause}").body for pause in pauses].count(b"hello")

    with ThreadPoolExecutor(6) as clients:
        assert list(clients.map(client, range(6))) == [150] * 6
    for number in range(3):
        assert answer(address, "/sleep?0.009").status == 200
        door = tmp_path / f"door-{number}"
        door.touch()
        held = send(address, f"/held?{door}")
        if number < 2:
            door.unlink()
            assert held.recv(65536).startswith(b"HTTP/1.1 200 OK")
    server.wait_log(r"GET /held\?\S+door-2 has run for 1\.\d s")
    assert server.log.count("longer than timeout") == 1
    assert [worker.pid] == [each.pid for each in server.workers][:1]


def test_a_retiring_worker_finishes_or_gives_away_what_it_holds(start: Callable[..., Server], tmp_path: Path) -> None:
    server, address = serve(start, "--threads", "4", "--keep-alive", "20")
    (old,) = server.workers
    door = tmp_path / "door"
    door.touch()
    idle, half = connector(address)(), connector(address)()
    assert ask(idle, "/pid").body.decode() == str(old.pid)
    held = [send(address, f"/held?{door}") for _ in range(2)]
    half.sendall(b"GET /pid HTTP/1.1\r\nHo")
    assert answer(address, "/hello").status == 200
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded")
    assert int(answer(address, "/pid").body) != old.pid
    half.sendall(b"st: a\r\n\r\n")
    got = b""
    while not got.endswith(b"\r\n0\r\n\r\n"):
        got += half.recv(65536)
    assert f"X-Pid: {old.pid}".encode() not in got
    door.unlink()
    for sock in held:
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK")
    server.wait_log(rf"Worker exiting \(pid: {old.pid}\)")
    (new,) = server.wait_workers(1, besides=[old.pid])
    for sock in (idle, half, *held):  # they were given to the worker that stays
        assert ask(sock, "/pid").pid == new.pid


@pytest.mark.parametrize("threads", ["1", "4"])
def test_reloads_under_load_fail_no_request(start: Callable[..., Server], threads: str) -> None:
    server, address = serve(start, "--threads", threads, "-w", "2", "--keep-alive", "5")
    with Load(connector(address), clients=8, path="/sleep?0.01") as load:
        for _ in range(4):
            load.wait_answers(20)
            mark = server.mark
            server.kill(signal.SIGHUP)
            server.wait_log("Reloaded", since=mark)
        load.wait_answers(50)
    assert not load.record.failures, load.record
    assert not load.record.stale, load.record


def test_threads_do_not_lose_requests_under_mixed_load(start: Callable[..., Server]) -> None:
    _, address = serve(start, "--threads", "3")
    loads = [Load(connector(address), clients=4, path=path) for path in ("/hello", "/sleep?0.004", "/spin?0.004")]
    for load in loads:
        load.start()
    for load in loads:
        load.wait_answers(60)
    for load in loads:
        record = load.stop()
        assert not record.failures, record
        assert not record.stale, record
    assert threading.active_count() < 50


def test_the_log_names_the_request_of_a_worker_that_hangs(start: Callable[..., Server]) -> None:
    server, address = serve(start, "--timeout", "1")
    with send(address, "/sleep?30"):
        server.wait_log(r"GET /sleep\?30 has run for 1\.\d s")
        server.wait_log(r"web\.py.* in sleep")
        assert answer(address, "/hello").status == 200


def test_two_workers_share_connections(start: Callable[..., Server]) -> None:
    server, address = serve(start, "-w", "2", "--keep-alive", "20")
    socks = [connector(address)() for _ in range(32)]
    answers = [ask(sock, "/pid") for sock in socks]
    for _ in range(3):
        for sock in socks:
            ask(sock, "/pid")
    counts = [sum(1 for answer in answers if int(answer.body) == worker.pid) for worker in server.workers]
    assert sum(counts) == 32


def test_a_worker_whose_threads_are_done_is_idle(start: Callable[..., Server], tmp_path: Path) -> None:
    """The busy mark of calls that lasted goes with the last of them: the master would end an idle worker for it."""
    _, address = serve(start, "--threads", "4", "--control-socket", str(tmp_path / "control"))
    for sock in [send(address, "/sleep?0.3") for _ in range(4)]:
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK")

    all_rest(tmp_path / "control")


def all_rest(control: Path) -> None:
    """Waits until no thread of the only worker is in a call."""

    def busy() -> object:
        return sdservectl(str(control), "status", None)["status"]["workers"][0]["busy"]

    eventually(lambda: busy() is None, "an idle worker")


LOCKED = """
import threading

LOCK = threading.Lock()
PIECES = [0]

def pieces():
    with LOCK:
        for PIECES[0] in range(20_000):
            yield b"x" * 1000
        PIECES[0] = 0

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/pieces":
        return pieces()
    if environ["PATH_INFO"] == "/locked":
        with LOCK:
            return [b"locked"]
    return [b"%d" % PIECES[0]]
"""


def waits_at(address: Address) -> bytes:
    """The piece at which the response has stopped, for want of room."""
    seen = [b"0"]

    def look() -> bool:
        seen.append(answer(address, "/").body)
        return seen[-1] == seen[-2] != b"0"

    eventually(look)
    return seen[-1]


def test_calls_wait_for_a_lock_that_a_response_holds_whose_client_is_slow(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    """The thread that holds such a response is given other calls last: it must go on where the lock was taken."""
    (tmp_path / "app.py").write_text(LOCKED)
    address = ("127.0.0.1", free_port())
    control = tmp_path / "control"
    args = ("--threads", "4", "--timeout", "30", "--control-socket", str(control), "app")
    server = start("-b", "{}:{}".format(*address), *args, cwd=tmp_path).wait_ready()
    for _ in range(3):  # whichever thread leads
        with socket.socket() as slow:
            slow.settimeout(20)
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            slow.connect(address)
            slow.sendall(b"GET /pieces HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            at = waits_at(address)
            all_rest(control)  # with three calls there is a thread for each, and none is busy with the last look
            waiting = [send(address, "/locked") for _ in range(3)]
            assert answer(address, "/").body == at
            assert not readable(*waiting, timeout=0)
            got = 0
            while data := slow.recv(1 << 20):
                got += len(data)
            assert got > 20_000_000
        for sock in waiting:
            assert sock.recv(65536).endswith(b"locked")
            sock.close()
    assert "has run for" not in server.log
