"""Server hooks are called in gunicorn's order, with the objects that gunicorn gives them."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.load import Load
from tests.support.server import Server, answer, connector, free_port
from tests.support.waiting import eventually

PARAMETERS = {
    "on_starting": "server",
    "on_reload": "server",
    "when_ready": "server",
    "pre_fork": "server, worker",
    "post_fork": "server, worker",
    "post_worker_init": "worker",
    "post_worker_warmup": "worker",
    "worker_int": "worker",
    "worker_abort": "worker",
    "pre_exec": "server",
    "pre_request": "worker, req",
    "post_request": "worker, req, environ, resp",
    "child_exit": "server, worker",
    "worker_exit": "server, worker",
    "nworkers_changed": "server, new_value, old_value",
    "on_exit": "server",
}

DETAILS = {"nworkers_changed": "f'{old_value}>{new_value}'", "pre_request": "req.path", "post_request": "resp.status"}


def config(story: Path) -> str:
    """A config file whose hooks each append their name and the pid that called them."""
    lines = ["import os", "def note(name, detail=''):", f"    with open({str(story)!r}, 'a') as f:"]
    lines.append("        f.write(f'{name} {os.getpid()} {detail}\\n')")
    for name, parameters in PARAMETERS.items():
        lines += [f"def {name}({parameters}):", f"    note({name!r}, {DETAILS.get(name, repr(''))})"]
    return "\n".join(lines) + "\n"


def test_the_story_of_a_service(start: Callable[..., Server], short_path: Path) -> None:
    story = short_path / "story"
    (short_path / "conf.py").write_text(config(story))

    def told(pid: int | None = None) -> list[str]:
        lines = [line.split(" ", 2) for line in story.read_text().splitlines()]
        return [name for name, teller, _ in lines if pid is None or int(teller) == pid]

    options = ("-c", f"{short_path}/conf.py", "-b", f"unix:{short_path}/s", "--log-level", "debug")
    server = start(*options, "plain:application").wait_ready()
    (worker,) = server.wait_workers(1)
    eventually(lambda: told(worker.pid) == ["post_fork", "post_worker_init", "post_worker_warmup"], "the worker boots")
    assert told(server.pid) == ["nworkers_changed", "on_starting", "when_ready", "pre_fork"]
    for said in (r"Current configuration:\n  config: ", "Arbiter booted$", "1 workers$"):
        server.wait_log(rf"\[DEBUG\] {said}")

    answer(f"{short_path}/s", "/page")
    eventually(lambda: told(worker.pid)[3:] == ["pre_request", "post_request"], "one request")
    assert f"pre_request {worker.pid} /page" in story.read_text()

    server.kill(signal.SIGTTIN)
    eventually(lambda: f"nworkers_changed {server.pid} 1>2" in story.read_text(), "TTIN")
    both = server.wait_workers(2)

    server.kill(signal.SIGHUP)
    server.wait_workers(1, besides=[p.pid for p in both])
    master = told(server.pid)
    assert master[master.index("on_reload") - 1] == "nworkers_changed"
    eventually(lambda: told(worker.pid)[-1] == "worker_exit", "the first worker leaves")
    eventually(lambda: told(server.pid).count("child_exit") == 2, "both are seen off")

    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    assert told()[-1] == "on_exit"
    assert told(server.pid)[-2:] == ["child_exit", "on_exit"]


def test_a_quick_stop_and_a_hang(start: Callable[..., Server], short_path: Path) -> None:
    story = short_path / "story"
    (short_path / "conf.py").write_text(config(story))
    server = start(
        *("-c", f"{short_path}/conf.py", "-b", f"unix:{short_path}/s", "-t", "1", "plain:application")
    ).wait_ready()
    (worker,) = server.wait_workers(1)
    with Load(connector(f"{short_path}/s"), clients=1, path="/sleep/30", requests=1) as load:
        worker.wait_gone()
    assert not load.record.answers
    eventually(lambda: "worker_abort" in story.read_text(), "the hook of the hang")
    server.wait_log("/sleep/30|time.sleep|plain.py")
    (second,) = server.wait_workers(1, besides=[worker.pid])
    server.kill(signal.SIGINT)
    assert server.wait() == 0
    assert f"worker_int {second.pid}" in story.read_text()


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_request_that_is_refused_after_pre_request_has_its_post_request(
    start: Callable[..., Server], short_path: Path, method: str
) -> None:
    """Whoever counts requests in progress would count too many for ever."""
    story = short_path / "story"
    (short_path / "conf.py").write_text(config(story))
    args = ("-c", f"{short_path}/conf.py", "-b", f"unix:{short_path}/s", "--request-buffering", "off")
    server = start(*args, "plain:application").wait_ready()
    with connector(f"{short_path}/s")() as sock:
        head = f"{method} /page HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n"
        sock.sendall(f"{head}Content-Length: {0 if method == 'GET' else 1 << 20}\r\n\r\n".encode())
        assert sock.recv(4096).startswith(b"HTTP/1.1 400 ")
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    told = [line.split(" ", 2) for line in story.read_text().splitlines() if "_request " in line]
    assert [(name, detail) for name, _, detail in told] == [
        ("pre_request", "/page"),
        ("post_request", "400 Bad Request"),
    ]


def test_who_asked_is_known_of_a_request_that_is_refused(start: Callable[..., Server], short_path: Path) -> None:
    """Where its proxy contradicts itself, only who is connected can be told."""
    story, port = short_path / "story", free_port()
    names = "repr((req.peer_addr, req.remote_addr, req.scheme))"
    hooks = [
        f"def {hook}({PARAMETERS[hook]}):\n    open({str(story)!r}, 'a').write({names} + chr(10))\n"
        for hook in ("pre_request", "post_request")
    ]
    (short_path / "conf.py").write_text("".join(hooks))
    server = start("-c", f"{short_path}/conf.py", "-b", f"127.0.0.1:{port}", "plain:application").wait_ready()
    with connector(("127.0.0.1", port))() as sock:
        peer = sock.getsockname()
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 400 ")
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    assert "Exception in the hook" not in server.log
    assert story.read_text().splitlines() == [repr((peer, peer, "http"))] * 2
