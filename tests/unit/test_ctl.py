"""sdservectl: the exit code is the outcome."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sdserve import ctl
from sdserve.ctl import client
from sdserve.ctl.show import told
from sdserve.ctl.unit import NoSocketError, found, runtime_directory
from sdserve.systemd.environment import digests

STATUS = {
    "version": "1.0",
    "master": "Master",
    "pid": 10,
    "state": "running",
    "generation": 1,
    "wanted": 2,
    "successor": 0,
    "predecessor": 0,
    "trouble": "",
    "listeners": ["http://127.0.0.1:80"],
    "workers": [
        {"pid": 11, "slot": 0, "generation": 1, "phase": "serving", "requests": 5, "busy": None},
        {"pid": 12, "slot": 1, "generation": 1, "phase": "serving", "requests": 6, "busy": 2.25},
    ],
}


@contextmanager
def master(path: Path, answer: bytes | None) -> Iterator[list[bytes]]:
    """Somebody who hears one request and gives one answer: bytes, or None to wait until the client has gone."""
    heard: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            heard.append(connection.recv(4096))
            if answer is None:
                connection.recv(4096)
            else:
                for index in range(0, len(answer), 50):
                    connection.send(answer[index : index + 50])

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield heard
        thread.join(15)
        assert not thread.is_alive()


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


@pytest.fixture
def path(short_path: Path) -> Path:
    return short_path / "control"


def test_done(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with master(path, line(ok=True, text="reloaded: Running")) as heard:
        assert ctl.main(["-s", str(path), "reload"]) == 0
    assert json.loads(heard[0]) == {"command": "reload"}
    assert capsys.readouterr().out == "reloaded: Running\n"


def test_a_changed_environment_is_named_where_systemd_reloads(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVOCATION_ID", "0123")
    monkeypatch.setenv("SDSERVE_WORKERS", "2")
    started = digests({**os.environ, "SDSERVE_WORKERS": "4", "GONE": "secret", "MAINPID": "7", "MAINPIDFDID": "9"})
    answers = {"environment": {"ok": True, "environment": started}, "reload": {"ok": True, "text": "reloaded"}}
    monkeypatch.setattr(ctl, "ask", lambda path, command, timeout, **more: answers[command])
    assert ctl.main(["-s", str(path), "reload"]) == 0
    said = capsys.readouterr()
    assert said.out == "reloaded\n"
    assert "the environment of the unit has changed (GONE, SDSERVE_WORKERS): a reload does not read it" in said.err
    assert "secret" not in json.dumps(started)


@pytest.mark.parametrize(("count", "said"), [(0, " 0 requests,"), (1, " 1 request,"), (2, " 2 requests,")])
def test_requests_are_counted(path: Path, capsys: pytest.CaptureFixture[str], count: int, said: str) -> None:
    worker = STATUS["workers"][0] | {"requests": count}  # type: ignore[index]
    with master(path, line(ok=True, text="Running", status=STATUS | {"workers": [worker]})):
        assert ctl.main(["-s", str(path), "status"]) == 0
    assert said in capsys.readouterr().out


def test_refused_with_the_reason(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with master(path, line(ok=False, text="reload failed: no module named shop")):
        assert ctl.main(["--socket", str(path), "reload"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "sdservectl: reload failed: no module named shop\n")


def test_status(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with master(path, line(ok=True, text="Running", status=STATUS)):
        assert ctl.main(["-s", str(path), "status"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Running",
        "Master pid 10, sdserve 1.0",
        "listening at http://127.0.0.1:80",
        "worker 11: slot 0, generation 1, serving, 5 requests, idle",
        "worker 12: slot 1, generation 1, serving, 6 requests, busy for 2.2 s",
    ]


@pytest.mark.parametrize("command", ["status", "stacks", "events", "reload", "upgrade"])
def test_no_application_commands_the_terminal(path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    text = "RuntimeError: \x1b]0;title\x07\x9b31m\r\u202e"
    worker = STATUS["workers"][0] | {"trouble": text, "stacks": text}  # type: ignore[index]
    told = {"text": text, "status": STATUS | {"listeners": [text]}, "workers": [worker]}
    about = {"event": "worker-ended", "pid": 1, "slot": 0, "at": 1.0}
    with master(path, line(ok=True, **told, **about)):
        ctl.main(["-s", str(path), command])
    path.unlink()
    with master(path, line(ok=False, **told)):
        ctl.main(["-s", str(path), command])
    for said in capsys.readouterr():
        assert r"\x1b]0;title\x07\x9b31m\r\u202e" in said
        assert all(character.isprintable() or character == "\n" for character in said)


def test_status_as_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with master(path, line(ok=True, text="Running", status=STATUS)):
        assert ctl.main(["-s", str(path), "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_nobody_there(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["-s", str(path), "status"]) == 2
    assert capsys.readouterr().err == (
        f"sdservectl: {path}: No such file or directory. Is sdserve running, with this control socket?\n"
    )


def test_a_unit_without_a_place_for_the_socket_is_told(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gunicorn.service that was given our ExecReload=, and nothing else."""
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    assert ctl.main(["-s", str(path), "status"]) == 2
    assert "This unit has no RuntimeDirectory=" in capsys.readouterr().err


def test_instances_of_the_template_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("sdserve-shop", "sdserve-blog", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "control").touch()
    assert ctl.main(["-s", f"{tmp_path}/sdserve/control", "status"]) == 2
    found = f"{tmp_path}/sdserve-blog/control, {tmp_path}/sdserve-shop/control"
    assert capsys.readouterr().err.endswith(f"with this control socket? With -s it finds {found}.\n")


def test_where_to_look_who_named_no_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    assert ctl.main(["status"]) == 2
    where = f"sdservectl: {tmp_path}/control: No such file or directory. Is sdserve running, with this control socket?"
    assert capsys.readouterr().err == f"{where} -u UNIT finds that of a unit, in its RuntimeDirectory=.\n"


def test_nobody_who_may(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(ctl, "ask", refuse)
    assert ctl.main(["-s", str(path), "status"]) == 2
    assert capsys.readouterr().err == (
        f"sdservectl: {path}: Permission denied. Run it as root, or as the user of the service\n"
    )


def test_a_master_that_ends_before_it_answers(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with master(path, b'{"ok": tr'):
        assert ctl.main(["-s", str(path), "upgrade"]) == 2
    assert "the master ended before it answered" in capsys.readouterr().err


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n", b"[]\n", b"\xff\n"])
@pytest.mark.parametrize("command", ["status", "wait"])
def test_another_server_answers(path: Path, capsys: pytest.CaptureFixture[str], command: str, said: bytes) -> None:
    """The application's own socket is easily taken for the control socket."""
    with master(path, said):
        assert ctl.main(["-s", str(path), command]) == 2
    assert capsys.readouterr().err == (
        f"sdservectl: {path}: another server answers there. Is sdserve running, with this control socket?\n"
    )


NO_MASTER = {
    "an empty object": line(),
    "ok that is no bool": line(ok=1, text="Running", status=STATUS),
    "no text": line(ok=True, status=STATUS, workers=[]),
    "a text that is none": line(ok=False, text=["reload failed"]),
    "nothing but a text": line(ok=True, continues=True, text="Running"),
    "more to come, and no word": line(continues=True),
    "an empty status": line(ok=True, text="Running", status={}),
    "a worker that is none": line(ok=True, text="Running", status={**STATUS, "workers": [1]}),
    "a number that is a text": line(ok=True, text="Running", status={**STATUS, "pid": "1"}),
    "nested too deep": b"[" * 100_000 + b"\n",
    "a number without end": b'{"ok": ' + b"1" * 5000 + b"}\n",
}


@pytest.mark.parametrize("command", ["status", "stacks", "events", "wait", "status --watch", "status --json"])
@pytest.mark.parametrize("said", NO_MASTER.values(), ids=NO_MASTER)
def test_what_no_master_says_is_no_answer(
    path: Path, capsys: pytest.CaptureFixture[str], command: str, said: bytes
) -> None:
    with master(path, said):
        assert ctl.main(["-s", str(path), "--timeout", "15", *command.split()]) == 2
    assert "another server answers there" in capsys.readouterr().err


def test_a_line_without_end_is_no_answer(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LONGEST", 1000)
    with master(path, b"x" * 2000):
        assert ctl.main(["-s", str(path), "status"]) == 2
    assert "another server answers there" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0.05", "0"])
def test_no_answer_in_time(path: Path, seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with master(path, None):
        assert ctl.main(["-s", str(path), "--timeout", seconds, "reload"]) == 3
    assert "no answer in time" in capsys.readouterr().err


def test_the_socket_of_the_unit(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{short_path}:/run/other")
    with master(short_path / "control", line(ok=True, text="fine")):
        assert ctl.main(["reload"]) == 0


@pytest.mark.parametrize(
    "argv",
    [[], ["restart"], ["--timeout", "soon", "status"], ["-s", "x", "-u", "y", "status"], ["scale"], ["scale", "0"],
     ["scale", "many"], ["scale", "1025"], ["wait", "forever"], ["stacks", "-1"], ["--timeout", "-1", "status"],
     ["--timeout", "nan", "status"], ["status", "--timeout", "1e300"], ["-s", "x", "status", "--user"]],
)  # fmt: skip
def test_bad_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        ctl.main(argv)
    assert leaving.value.code == 2


@pytest.mark.parametrize("number", ["many", "0"])
def test_what_a_number_has_to_be(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ctl.main(["scale", number])
    assert capsys.readouterr().err.endswith(
        f"error: argument N: '{number}': it has to be a whole number from 1 to 1024\n"
    )


@pytest.mark.parametrize(
    ("shown", "path"),
    [
        ("LoadState=loaded\nRuntimeDirectory=sdserve-shop\n", "/run/sdserve-shop/control"),
        ("RuntimeDirectory=sdserve other\nLoadState=loaded\n", "/run/sdserve/control"),
        (
            "LoadState=not-found\nRuntimeDirectory=\n",
            "there is no unit sdserve@shop.service (LoadState=not-found); with --user, your own service manager's",
        ),
        ("LoadState=loaded\nRuntimeDirectory=\n", "sdserve@shop.service has no RuntimeDirectory="),
        ("", "there is no unit"),
    ],
)
def test_the_socket_of_a_unit_by_name(shown: str, path: str) -> None:
    try:
        assert found("sdserve@shop.service", shown) == path
    except NoSocketError as error:
        assert path in str(error)


def test_a_unit_that_is_no_service() -> None:
    with pytest.raises(NoSocketError, match=r"sdserve@a\.socket is no service; try -u sdserve@a$"):
        found("sdserve@a.socket", "LoadState=loaded\n")


def test_the_socket_of_a_users_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert found("shop.service", "LoadState=loaded\nRuntimeDirectory=shop\n", user=True) == "/run/user/7/shop/control"
    with pytest.raises(NoSocketError, match=r"no unit shop\.service .*; without --user, the system's are asked"):
        found("shop.service", "LoadState=not-found\n", user=True)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime_directory(user=True) == f"/run/user/{os.getuid()}"


def test_the_socket_without_a_units_name(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    (short_path / "sdserve").mkdir()
    with master(short_path / "sdserve" / "control", line(ok=True, text="fine")):
        assert ctl.main(["reload", "--user"]) == 0


def test_a_reader_sees_the_calls_of_the_application_first() -> None:
    lines = [
        "Current thread 0x1 (most recent call first):",
        '  File "/srv/app/shop.py", line 5 in pay',
        '  File "/opt/sdserve/lib/python3.11/site-packages/sdserve/workers/base.py", line 9 in init_process',
        '  File "/opt/sdserve/lib/python3.11/site-packages/sdserve/workers/boot.py", line 7 in _live',
        '  File "<frozen runpy>", line 8 in _run_module_as_main',
    ]
    assert list(told("\n".join([*lines, "", *lines]))) == [*lines[:3], "", *lines[:3]]


def test_sdservectl_starts_without_what_it_does_not_need() -> None:
    def loaded(program: str) -> set[str]:
        code = f"import sys; {program}; print(*sys.modules)"
        return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())

    modules = loaded("from sdserve import ctl; ctl.parser()")
    heavy = {"curses", "subprocess", "asyncio", "typing_extensions", "dataclasses", "inspect", "httptools"}
    assert not heavy & (modules - loaded("import argparse; argparse.ArgumentParser()"))  # it colours, on Python 3.14
    assert not [name for name in modules if name.startswith(("sdserve.arbiter", "sdserve.workers", "sdserve.config"))]
