"""`sdserve unit` as a command: what it prints where, what it leaves alone, and what remains a server's command line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sdserve.cli import is_command
from sdserve.ops import unit_command
from tests.support.server import CHECKOUT

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"
FOR_ROOT = "sdserve unit: the two commands are for root:"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def unit(tmp_path: Path) -> Run:
    (tmp_path / "unit.py").write_text(APP)

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sdserve", "unit", *argv]
        environ = {"PATH": os.environ["PATH"], "PWD": str(tmp_path), "PYTHONPATH": str(CHECKOUT)}
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)

    return run


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("unit", False),
        ("unit -w 2", False),
        ("unit --name x", False),
        ("unit:app", False),
        ("-w 2 unit", False),
        ("unit app:app", True),
        ("unit --name x app:app", True),
        ("unit --transient app:app", True),
        ("unit --help", True),
    ],
)
def test_an_application_called_unit_is_served_as_ever(line: str, command: bool) -> None:
    argv = line.split()
    assert (argv[0] == "unit" and is_command(argv)) is command


def test_it_prints_two_commands_and_overwrites_what_it_wrote(unit: Run, tmp_path: Path) -> None:
    (tmp_path / "sdserve.conf.py").write_text("workers = 2\n")
    for _ in range(2):
        done = unit("unit:app", "--name", "shop", "--with", "strict", "--listen", "unix:/run/shop.sock")
        install = f"{tmp_path}/shop-units/install.sh"
        assert done.stdout == f"sh {install}\nsystemctl enable --now shop.socket\n", done.stderr
        assert "unit:app is WSGI" in done.stderr
        assert (FOR_ROOT in done.stderr) is (os.geteuid() != 0)
    service = (tmp_path / "shop-units" / "shop.service").read_text()
    assert f'Environment="SDSERVE_CONFIG={tmp_path}/sdserve.conf.py"' in service
    assert "ListenStream=/run/shop.sock\n" in (tmp_path / "shop-units" / "shop.socket").read_text()

    (tmp_path / "shop-units" / "shop.service").write_text(service + "# mine\n")
    refused = unit("unit:app", "--name", "shop")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"{tmp_path}/shop-units/shop.service: not written by this command" in refused.stderr
    assert unit("unit:app", "--name", "shop", "--force").returncode == 0
    assert "# mine" not in (tmp_path / "shop-units" / "shop.service").read_text()


def test_another_user_is_told_that_the_commands_are_for_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "unit.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    unit_command.run(["unit:app", "--name", "shop"])
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == FOR_ROOT
    assert len(said.out.splitlines()) == 2


def test_it_takes_no_name_of_another_programs_unit(unit: Run) -> None:
    done = unit("unit:app", "--name", "systemd-journald")
    assert done.returncode == 1
    assert "systemd-journald.service: not written by this command" in done.stderr


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--name", "a b"], "--name: 'a b'"),
        (["--listen", "fd://3"], "systemd listens itself"),
        (["--listen", "example.org:80"], "the name of a host"),
        (["--user", "nobody-here"], "there is no user"),
        (["--venv", "/nowhere"], "/nowhere/bin/sdserve is missing"),
        (["--chdir", "/nowhere"], "is not a directory"),
        (["--output", "/proc/units"], "/proc/units"),
    ],
)
def test_mistakes_are_one_line(unit: Run, argv: list[str], reason: str) -> None:
    done = unit("unit:app", *argv)
    lines = [line for line in done.stderr.splitlines() if "error" in line]
    assert done.returncode == 1 and len(lines) == 1 and reason in lines[0], done.stderr


def test_a_user_is_named_by_its_own_option(unit: Run) -> None:
    """The drop-in would have another one than all the rest, and one that nobody has made."""
    done = unit("unit:app", "--with", "user")
    assert done.returncode == 2 and "invalid choice: 'user'" in done.stderr


def test_what_it_writes_to_a_release_is_lost_with_the_next(unit: Run, tmp_path: Path) -> None:
    release, current = tmp_path / "releases" / "1", tmp_path / "current"
    release.mkdir(parents=True)
    current.symlink_to(release)
    (release / "unit.py").write_text(APP)
    told = f"{release} is {current} until the next release"
    assert told in unit("unit:app", "--chdir", str(current), "--writable", f"{release}/media").stderr
    assert told not in unit("unit:app", "--chdir", str(current), "--writable", f"{tmp_path}/media").stderr
    assert told not in unit("unit:app", "--chdir", str(release), "--writable", f"{release}/media").stderr


def test_what_somebody_has_put_in_the_way_is_neither_followed_nor_waited_for(unit: Run, tmp_path: Path) -> None:
    """Links to a file that is there and to one that is not, and a FIFO: the project need not be root's."""
    (tmp_path / "precious").write_text("precious")
    units = tmp_path / "shop-units"
    units.mkdir()
    (units / "shop.service").symlink_to(tmp_path / "planted")
    (units / "shop.socket").symlink_to(tmp_path / "precious")
    os.mkfifo(units / "install.sh")
    refused = unit("unit:app", "--name", "shop")
    assert refused.returncode == 1
    assert all(f"{units}/{name}" in refused.stderr for name in ("shop.service", "shop.socket", "install.sh"))
    forced = unit("unit:app", "--name", "shop", "--force")
    assert forced.returncode == 0, forced.stderr
    assert "[Service]" in (units / "shop.service").read_text()
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "planted").exists()


def test_no_place_of_the_system_is_given_away_because_an_application_names_it(unit: Run, tmp_path: Path) -> None:
    app = "from flask import Flask\napp = Flask(__name__)\napp.config['SQLALCHEMY_DATABASE_URI'] = 'sqlite:////etc/x.db'\n"
    (tmp_path / "shop.py").write_text(app)
    done = unit("shop:app")
    assert done.returncode == 0, done.stderr
    written = "".join(path.read_text() for path in (tmp_path / "shop-units").glob("*"))
    assert "chown" not in written and "/etc/x.db" not in written and "=/etc\n" not in written
    assert "it writes to /etc/x.db, which is not the project's" in done.stderr
    refused = unit("shop:app", "--writable", "/tmp")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--writable: /tmp is everybody's" in refused.stderr


def test_what_an_import_says_writes_nothing_to_the_terminal_but_text(unit: Run, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("raise RuntimeError('no \\x1b]0;owned\\x07 \\x1b[31mred')\n")
    done = unit("shop:app")
    assert "RuntimeError: no " in done.stderr and "red" in done.stderr
    assert "\x1b" not in done.stderr and "\x07" not in done.stderr


def saying(directory: Path, report: str) -> None:
    """An application that writes the report of the look itself."""
    source = f"import os, sys\nos.write(int(sys.argv[3]), {report.encode()!r})\nos._exit(0)\n"
    (directory / "shop.py").write_text(source)


@pytest.mark.parametrize(
    "report",
    ['{"zzz": 1}', '{"protocol": 1}', '{"nothing": true}', '{"protocol": "wsgi", "files": ["a/b"]}', "[" * 9999],
)
def test_an_application_that_reports_nonsense_of_itself_is_read_instead(unit: Run, tmp_path: Path, report: str) -> None:
    saying(tmp_path, report)
    done = unit("shop:app")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "is no report" in done.stderr


def test_nothing_that_an_application_says_looks_like_a_command_or_commands_the_terminal(
    unit: Run, tmp_path: Path
) -> None:
    saying(tmp_path, json.dumps({"error": "x\nsh /evil/install.sh\n" + " " * 200 + "\x1b]0;owned\x07"}))
    told = unit("shop:app").stderr
    assert all(line.startswith("sdserve unit: ") for line in told.splitlines())
    assert "x sh /evil/install.sh \\x1b]0;owned" in told and "\x1b" not in told
    saying(tmp_path, json.dumps({"error": "\x1b[31mred", "nothing": True}))
    assert unit("shop:app").stderr == "sdserve unit: error: \\x1b[31mred\n"
    saying(tmp_path, json.dumps({"protocol": "wsgi", "settings": "a\x1b]0;owned\x07"}))
    done = unit("shop:app", "--transient")
    assert (done.returncode, done.stdout) == (1, "") and "\x1b" not in done.stderr, done.stderr
    assert "characters that a terminal does not show" in done.stderr


def test_the_directory_for_state_itself_is_the_services_own(unit: Run, tmp_path: Path) -> None:
    saying(tmp_path, json.dumps({"protocol": "wsgi", "directories": ["/state"]}).replace("/state", "%s"))
    source = (tmp_path / "shop.py").read_text().replace("%s", "' + os.environ['STATE_DIRECTORY'].encode() + b'")
    (tmp_path / "shop.py").write_text(source)
    done = unit("shop:app")
    assert done.returncode == 0, done.stderr
    assert "/state" not in (tmp_path / "shop-units" / "install.sh").read_text()
