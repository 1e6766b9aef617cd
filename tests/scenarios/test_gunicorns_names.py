"""What gunicorn documents of hooks, and of the objects that they get, is here too, seen from inside each hook.

The table holds one line for each attribute: an expression that must be true in the hook. One service lives through
everything that calls hooks, and its config file evaluates each line where it stands.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.load import ask
from tests.support.server import APPS, Server, answer, connector, free_port
from tests.support.waiting import eventually

# gunicorn's hooks with their parameters, and what is read in them. `pid` is os.getpid().
TABLE: dict[str, tuple[str, list[str]]] = {
    "nworkers_changed": ("server, new_value, old_value", ["server.num_workers == new_value", "new_value >= 1"]),
    "on_starting": (
        "server",
        [
            "server.cfg.workers == 1",
            "server.cfg.worker_class is server.worker_class",
            "server.cfg.worker_class_str == 'gthread'",
            "server.cfg.env_orig['SHELL_SAYS'] == 'yes' and 'CONFIG_SAYS' not in server.cfg.env_orig",
            "server.cfg.env == {'CONFIG_SAYS': 'so'}",
            "isinstance(server.log, server.cfg.logger_class)",
            "server.cfg.address == server.address and server.address[0][0] == '127.0.0.1'",
            "server.cfg.is_ssl is False and server.cfg.certfile is None",
            "server.cfg.settings['workers'].get() == 1",
            "server.cfg.uid == os.geteuid() and server.cfg.gid == os.getegid()",
            "server.app.app_uri == 'web:application' and server.app.callable is None",
            "server.app.cfg is server.cfg",
            "hasattr(server.worker_class, 'init_process')",
            "server.START_CTX[0] == sys.orig_argv[0] and server.START_CTX['args'][-1] == 'web:application'",
            "os.path.isdir(server.START_CTX['cwd'])",
            "server.SIGNALS[0] is signal.SIGHUP and signal.SIGWINCH in server.SIGNALS",
            "server.SIG_NAMES[signal.SIGTTIN] == 'ttin'",
            "(server.WORKER_BOOT_ERROR, server.APP_LOAD_ERROR) == (3, 4)",
            "len(server.SIG_QUEUE) == 0",
            "server.pid == pid and server.pidfile.pid == pid",
            "server.cfg.proc_name == 'web:application' and server.proc_name.startswith('web:application')",
            "server.master_name == ('Master.2' if server.master_pid else 'Master') and server.reexec_pid == 0",
            "server.systemd is False and server.worker_age == 0",
            "server.timeout == 1 and server.WORKERS == {}",
            "os.environ['CONFIG_SAYS'] == 'so'",
        ],
    ),
    "when_ready": (
        "server",
        [
            "server.LISTENERS[0].getsockname() == ('127.0.0.1', server.LISTENERS[0].cfg_addr[1])",
            "server.LISTENERS[0].sock.getsockname() == server.LISTENERS[0].getsockname()",
            "server.LISTENERS[0].setblocking(False) is None",
            "server.LISTENERS[0].fileno() > 2 and server.LISTENERS[0].getsockopt(1, 30) == 1",
            "str(server.LISTENERS[0]).startswith('http://127.0.0.1:')",
            "server.SIG_QUEUE.put_nowait(signal.SIGUSR1) is None",
        ],
    ),
    "pre_fork": ("server, worker", ["worker.pid == '[booting]'", "worker.tmp.last_update() <= time.monotonic()"]),
    "post_fork": (
        "server, worker",
        [
            "worker.pid == pid and worker.ppid == server.pid == os.getppid()",
            "worker.age >= 1 and worker.nr == 0 and worker.max_requests == sys.maxsize",
            "(worker.booted, worker.aborted, worker.alive) == (False, False, True)",
            "worker.sockets[0].getsockname() == server.LISTENERS[0].getsockname()",
            "worker.cfg is server.cfg and worker.log is server.log and worker.app is server.app",
            "worker.timeout > 0 and worker.reloader is None and worker.gpu_id is None",
            "worker.tmp.notify() is None and time.monotonic() - worker.tmp.last_update() < 1",
            "signal.SIGABRT in worker.SIGNALS and len(worker.PIPE) == 2",
            "str(worker) == f'<Worker {pid}>'",
        ],
    ),
    "post_worker_init": ("worker", ["worker.wsgi is worker.app.callable and callable(worker.wsgi)"]),
    "pre_request": (
        "worker, req",
        [
            "req.method in ('GET', 'POST') and req.uri.startswith('/') and req.path.startswith('/')",
            "isinstance(req.query, str) and req.fragment == '' and req.version == (1, 1)",
            "dict(req.headers)['HOST'] in ('a', 'test', 'localhost')",
            "req.peer_addr[0] == '127.0.0.1' and req.peer_addr[1] > 0",
            "req.remote_addr == ('9.8.7.6', 0) if req.method == 'POST' else req.remote_addr == req.peer_addr",
            "req.scheme == ('https' if req.method == 'POST' else 'http')",
            "req.trailers == [] and req.req_number >= 1 and req.proxy_protocol_info is None",
            "req.body.read() == (b'hello' if req.method == 'POST' else b'')",
            "req.should_close() is (not req.keep_alive) and req.must_close is False and req.cfg is worker.cfg",
            "worker.tmp.last_update() > 0",
            "req.headers.append(('X-ADDED', 'by the hook')) is None",
        ],
    ),
    "post_request": (
        "worker, req, environ, resp",
        [
            "environ['HTTP_X_ADDED'] == 'by the hook'",
            "resp.req is req and hasattr(resp.sock, 'fileno') and resp.cfg is worker.cfg",
            "resp.status.startswith('200') and resp.status_code == 200 if resp.status else 'stuck' in req.path",
            "isinstance(resp.headers, (list, tuple))",
            "resp.should_close() is resp.must_close",
            "resp.is_chunked() is resp.chunked",
            "resp.headers_sent is bool(resp.status) and resp.sent >= 0",
            "resp.version.startswith('sdserve') and resp.upgrade is False",
            "resp.response_length is None or resp.response_length >= 0",
        ],
    ),
    "worker_int": ("worker", ["worker.alive is False"]),
    "worker_abort": ("worker", ["worker.alive is False and worker.pid == pid"]),
    "worker_exit": ("server, worker", ["worker.pid == pid and server.pid == worker.ppid"]),
    "child_exit": ("server, worker", ["worker.pid != pid and server.pid == pid"]),
    "on_reload": ("server", ["server.cfg.workers == 1", "server.app.callable is None"]),
    "pre_exec": ("server", ["server.START_CTX['args'][-1] == 'web:application'"]),
    "on_exit": ("server", ["server.pidfile.fname.endswith(('/pid', '/pid.2'))"]),
}
LINES = [(hook, line) for hook, (_, lines) in TABLE.items() for line in lines]
FORWARDED = "X-Forwarded-For: 9.8.7.6\r\nX-Forwarded-Proto: https\r\n"


def config(story: Path) -> str:
    text = ["import os, signal, sys, time", "raw_env = ['CONFIG_SAYS=so']", "worker_class = 'gthread'", "timeout = 1"]
    text += ["def judge(hook, lines, **names):"]
    text += ["    for line in lines:"]
    text += ["        try: said = repr(bool(eval(line, dict(globals(), pid=os.getpid(), **names))))"]
    text += ["        except Exception as error: said = repr(error)"]
    text += [f"        with open({str(story)!r}, 'a') as file: file.write(f'{{hook}}\\t{{line}}\\t{{said}}\\n')"]
    for hook, (parameters, lines) in TABLE.items():
        names = ", ".join(f"{name}={name}" for name in parameters.split(", "))
        text += [f"def {hook}({parameters}):", f"    judge({hook!r}, {lines!r}, {names})"]
    return "\n".join(text) + "\n"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], set[str]]]:
    """What each line came to, in a service that reloads, is upgraded, hangs, is interrupted and stops."""
    place = tmp_path_factory.mktemp("names")
    told, port = place / "story", free_port()
    (place / "gunicorn.conf.py").write_text(config(told))
    address = ("127.0.0.1", port)
    arguments = ("-b", f"127.0.0.1:{port}", "-p", f"{place}/pid", "--upgrade", "manual", "--pythonpath", str(APPS))
    with Server(*arguments, "web:application", cwd=place, env={"SHELL_SAYS": "yes"}) as server:
        server.wait_ready()
        server.wait_log(f"Using config file: {place}/gunicorn.conf.py")

        def heard(hook: str) -> bool:
            return f"\n{hook}\t" in told.read_text()

        (first,) = server.workers
        assert answer(address).status == 200
        with connector(address)() as client:
            assert ask(client, "/echo", "POST", FORWARDED, b"hello").body == b"hello"
        server.kill(signal.SIGHUP)
        server.wait_log("Reloaded: ")
        (second,) = server.wait_workers(1, besides=[first.pid])
        sock = connector(address)()
        sock.sendall(f"GET /stuck?sleep:{place}/mark HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        second.wait_gone()
        sock.close()
        (third,) = server.wait_workers(1, besides=[second.pid])
        server.kill(signal.SIGUSR2)
        eventually(lambda: heard("pre_exec"), "the upgrade begins")
        server.wait_log("Ready: ", since=server.log.index("Ready: ") + 1)
        third.kill(signal.SIGINT)
        eventually(lambda: heard("worker_int"), "a worker is interrupted")
        server.kill(signal.SIGTERM)
        assert server.wait() == 0
        judged: dict[tuple[str, str], set[str]] = {}
        for line in told.read_text().splitlines():
            hook, expression, said = line.split("\t")
            judged.setdefault((hook, expression), set()).add(said)
        yield judged


@pytest.mark.parametrize(("hook", "line"), LINES, ids=[f"{hook}: {line}" for hook, line in LINES])
def test_what_hooks_read(story: dict[tuple[str, str], set[str]], hook: str, line: str) -> None:
    assert story[hook, line] == {"True"}
