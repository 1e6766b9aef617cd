"""Metrics and health are answered while all workers are stuck, then stopped, after an upgrade, and after the death of
who answers."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from tests.support.server import Server
from tests.support.waiting import eventually
from tests.support.wire import Wire, exchange, get

APP = """
import os, select
def application(environ, start_response):
    if environ["PATH_INFO"] == "/stuck":
        with open(os.environ["GATE"]) as gate:
            gate.read()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def series(server: tuple[str, int]) -> dict[str, float]:
    """What a scrape says, by name and labels as they stand."""
    text = exchange(server, get("/metrics")).body.decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_it_answers_whatever_the_workers_do(start: Callable[..., Server], short_path: Path) -> None:
    (short_path / "web.py").write_text(APP)
    gate = f"{short_path}/gate"
    os.mkfifo(gate)
    address = f"{short_path}/s"
    metrics, agent = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    at, agent_at = metrics.getsockname(), agent.getsockname()
    application = socket.socket(socket.AF_UNIX)
    application.bind(address)
    application.listen(16)
    sockets = [(application, "http"), (metrics, "metrics"), (agent, "agent")]
    options = ("-w", "2", "--timeout", "0", "--graceful-timeout", "30", "--upgrade", "auto", "web:application")
    server = start(*options, sockets=sockets, cwd=short_path, env={"GATE": gate})
    for each in (application, metrics, agent):
        each.close()
    server.wait_log("Ready: Running")
    workers = [worker.pid for worker in server.workers]
    assert len(workers) == 2, "nobody has asked for metrics"

    assert exchange(at, get("/readyz")).status == 200
    assert exchange(at, get("/metrics", "Accept: application/openmetrics-text;version=abc")).status == 200
    assert Wire(agent_at).rest() == b"up ready 100%\n"
    assert len({series(at)["sdserve_start_time_seconds"] for _ in range(2)}) == 1
    stuck = [Wire(address, get("/stuck")) for _ in range(3)]  # one waits in the queue

    def all_busy() -> bool:
        told = series(at)
        expected = {"sdserve_threads": 2, "sdserve_threads_busy": 2, 'sdserve_workers{state="serving"}': 2}
        return {name: told[name] for name in expected} == expected

    eventually(all_busy, "metrics say that all threads are busy")
    eventually(lambda: series(at).get(f'sdserve_listen_backlog{{listener="unix:{address}"}}', 1) == 1, "one waits")
    assert exchange(at, get("/readyz")).status == 200

    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    eventually(lambda: series(at)['sdserve_workers{state="stopped"}'] == 2, "metrics say that they are stopped")
    refused = exchange(at, get("/readyz"))
    assert (refused.status, refused.body) == (503, b"no worker serves: 2 stopped\n")
    assert exchange(at, get("/livez")).status == 200
    assert Wire(agent_at).rest() == b"up drain\n"
    for pid in workers:
        os.kill(pid, signal.SIGCONT)

    [observer] = [child for child in server.workers if child.pid not in workers]
    observer.kill()
    server.wait_log("The observer of metrics and health ended with wait status 9; the next one at once")
    assert exchange(at, get("/livez")).status == 200, "another one answers"

    [observer] = [child for child in server.workers if child.pid not in workers]
    os.kill(observer.pid, signal.SIGSTOP)
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded")
    assert exchange(at, get("/livez")).status == 200, "one that somebody has stopped is not waited for"

    opened = os.open(gate, os.O_RDWR)
    os.close(opened)
    server.kill(signal.SIGUSR2)
    server.wait_log("is the main process now")
    eventually(lambda: series(at)['sdserve_requests_total{code="2xx"}'] >= 2, "answers of the old master count")
    assert series(at)['sdserve_upgrades_total{outcome="succeeded"}'] == 1
    for wire in stuck:
        wire.close()


SLOW_LIBRARY = """
import pathlib, time
pathlib.Path("begun").touch()
time.sleep(0.7)
raise ImportError("it is not for use")
"""


def test_a_scrape_that_meets_a_stop_is_answered(start: Callable[..., Server], short_path: Path) -> None:
    """The observer was forked for it, and has to import first what makes the answer."""
    (short_path / "web.py").write_text(APP)
    (short_path / "prometheus_client.py").write_text(SLOW_LIBRARY)
    metrics = socket.create_server(("127.0.0.1", 0))
    at = metrics.getsockname()
    server = start("-b", f"unix:{short_path}/s", "web:application", sockets=[(metrics, "metrics")], cwd=short_path)
    with metrics:
        server.wait_ready()
        with Wire(at, get("/metrics")) as scraper:
            eventually((short_path / "begun").exists, "an observer that imports")
            server.kill(signal.SIGTERM)
            assert scraper.rest().startswith(b"HTTP/1.1 501 ")
        assert server.wait() == 0
