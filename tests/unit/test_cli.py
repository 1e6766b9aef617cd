"""The command, as real processes: what it prints, where, and with which exit code."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sdserve import __version__
from tests.support.notify import NotifySocket
from tests.support.server import CHECKOUT
from tests.support.unprivileged import unprivileged

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]


@pytest.fixture
def sdserve(tmp_path: Path) -> Run:
    """Runs the command to its end in a directory with an application `site_app:app`."""
    (tmp_path / "site_app.py").write_text(APP)

    def run(*argv: str, **environ: str) -> Result:
        return subprocess.run(
            [sys.executable, "-m", "sdserve", *argv],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PWD": str(tmp_path), **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def lines(result: Result) -> list[str]:
    """What an operator sees of a failure: each line with the program's prefix, nothing else, nothing on stdout."""
    assert result.stdout == ""
    prefix = "sdserve: error: "
    found = result.stderr.splitlines()
    assert all(line.startswith(prefix) for line in found), result.stderr
    return [line.removeprefix(prefix) for line in found]


def test_version(sdserve: Run) -> None:
    for flag in ("-v", "--version"):
        assert sdserve(flag).stdout == f"sdserve {__version__}\n"


def test_help_is_grouped_and_needs_nothing(sdserve: Run) -> None:
    result = sdserve("--help", SDSERVE_WORKERS="nonsense")
    assert result.returncode == 0
    for title in ("Configuration:", "Sockets:", "Workers:", "Logging:"):
        assert f"\n{title}\n" in result.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["sdserve --help", "sdserve --print-config site_app:app", "sdserve.ctl --help"])
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path, command: str, unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as nobody:
        result = subprocess.run(
            [sys.executable, "-m", *command.split()],
            cwd=Path(__file__).parents[2],
            env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": unbuffered},
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (result.stderr, result.returncode) == ("", 0)


def test_no_application_is_a_clear_error(sdserve: Run) -> None:
    result = sdserve()
    assert result.returncode == 1
    assert lines(result) == [
        "no application: name it as module:callable on the command line, or set wsgi_app"
        " (SDSERVE_WSGI_APP in the environment)"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="others than root meet it themselves")
def test_check_config_tells_root_of_an_interpreter_that_others_cannot_reach(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "site_app.py").write_text(APP)
    environment = tmp_path / "closed" / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--copies", "--without-pip", environment], check=True)
    result = subprocess.run(
        [environment / "bin" / "python", "-m", "sdserve", "--check-config", "site_app:app"],
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join([str(CHECKOUT), *sys.path[1:]])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    [warning] = result.stderr.splitlines()
    assert warning.startswith("sdserve: warning: a service with a user of its own cannot execute /")
    assert result.returncode == 0


def test_a_supervised_process_does_not_detach(sdserve: Run) -> None:
    with NotifySocket() as notify:
        result = sdserve("-D", "site_app:app", NOTIFY_SOCKET=notify.address)
        told = notify.wait("STATUS")
    problem = "daemon (command line): systemd supervises this process: leave it out"
    assert (result.returncode, lines(result)) == (1, [problem])
    assert told.fields["STATUS"] == problem


def test_all_problems_are_one_line_each(sdserve: Run, tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text("wokers = 1\nkeyfile = 'x'\n")
    result = sdserve("-c", "c.py", "--threads", "x", "site_app:app", SDSERVE_TIMEOUT="soon")
    assert result.returncode == 1
    assert len(lines(result)) == 4


def test_check_config_accepts_what_would_start(sdserve: Run) -> None:
    result = sdserve("--check-config", "-w", "2", "site_app:app")
    assert (result.returncode, result.stderr) == (0, "")
    good = "sdserve: the configuration and site_app:app are good"
    assert result.stdout == f"{good}; worker: wsgi (site_app:app is not an async callable)\n"
    result = sdserve("--check-config", "-k", "gthread", "site_app:app")
    assert result.stdout == f"{good}\n"


def test_check_config_takes_the_application_from_any_source(sdserve: Run, tmp_path: Path) -> None:
    (tmp_path / "sdserve.conf.py").write_text("wsgi_app = 'site_app:app'\n")
    assert sdserve("--check-config").returncode == 0
    assert sdserve("--check-config", "-c", "", SDSERVE_WSGI_APP="site_app:app").returncode == 0
    assert sdserve(SDSERVE_CMD_ARGS="--check-config", SDSERVE_WSGI_APP="site_app:app").returncode == 0


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("site_app:nope",), 4),
        (("no_such_module:app",), 3),
        (("-k", "no_such_class", "site_app:app"), 1),
        (("-w", "-1", "site_app:app"), 1),
        ((), 1),
    ],
)
def test_check_config_refuses_what_would_not_start(sdserve: Run, argv: tuple[str, ...], code: int) -> None:
    result = sdserve("--check-config", *argv)
    assert result.returncode == code
    assert len(lines(result)) == 1


def test_check_config_tells_everything_at_once(sdserve: Run, tmp_path: Path) -> None:
    (tmp_path / "sdserve.conf.py").write_text("wokers = 2\nworker_class = 'no_such_class'\ntimeout = -1\n")
    result = sdserve("--check-config", "site_app:nope")
    assert result.returncode == 1
    found = lines(result)
    starts = ("wokers = 2 is not", "timeout: -1 is not", "worker class 'no_such_class' is not known", "site_app:nope: ")
    assert len(found) == len(starts)
    assert all(start in line for start, line in zip(starts, found, strict=True)), found


def as_nobody(directory: Path) -> Run:
    """Runs the command as somebody who may not become anybody else."""
    program = unprivileged(directory)
    (directory / "site_app.py").write_text(APP)

    def run(*argv: str, **environ: str) -> Result:
        return subprocess.run(
            [*program, *argv],
            cwd=directory,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


HERE = (
    "daemon (command line): systemd supervises this process: leave it out",
    "cannot become user 1 and group 2: only root may (Operation not permitted); leave the setting user and group out",
    "cannot write the pidfile /no/such/place: No such file or directory",
)


def test_a_start_tells_everything_at_once(short_path: Path) -> None:
    (short_path / "c.py").write_text("wokers = 2\n")
    with NotifySocket() as notify:
        result = as_nobody(short_path)(
            *("-c", "c.py", "-D", "-u", "1", "-g", "2", "-p", "/no/such/place"), NOTIFY_SOCKET=notify.address
        )
    starts = f"{short_path}/c.py:1: wokers = 2 is not", "no application: name it", *HERE
    found = lines(result)
    assert result.returncode == 1
    assert len(found) == len(starts)
    assert all(line.startswith(start) for start, line in zip(starts, found, strict=True)), found


def test_check_config_warns_of_what_is_refused_to_who_checks_only(short_path: Path) -> None:
    """The service may be another user, and have the directory of its pidfile from systemd."""
    with NotifySocket() as notify:
        result = as_nobody(short_path)(
            *("--check-config", "-D", "-u", "1", "-g", "2", "-p", "/no/such/place", "site_app:app"),
            NOTIFY_SOCKET=notify.address,
        )
    assert result.returncode == 0
    found = result.stderr.splitlines()
    starts = [f"sdserve: warning: a start by this user, and from here, is refused: {start}" for start in HERE]
    assert all(line.startswith(start) for start, line in zip(starts, found, strict=True)), found


def test_who_may_be_whom(short_path: Path) -> None:
    """Neither oneself nor a place that one may write to is refused; a directory of others is."""
    run = as_nobody(short_path)
    me = ("-u", "65534", "-g", "65534") if os.geteuid() == 0 else ("-u", str(os.geteuid()))
    assert run("--check-config", *me, "-p", "/tmp/sdserve-pid", "site_app:app").stderr == ""
    assert "/etc/x: Permission denied" in run("--check-config", "-p", "/etc/x", "site_app:app").stderr


def test_check_config_shows_warnings(sdserve: Run) -> None:
    result = sdserve("--check-config", "--worker-tmp-dir", "/dev/shm", "-k", "gevent", "site_app:app")
    assert result.returncode == 0
    assert [line.split()[1] for line in result.stderr.splitlines()] == ["warning:", "warning:"]


def test_check_config_enters_the_configured_directory_and_environment(sdserve: Run, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "lib_of_site.py").write_text("HERE = True\n")
    (tmp_path / "deep" / "deep_app.py").write_text(
        f"import os, lib_of_site\nassert os.environ['STAGE'] == 'x'\nassert os.getcwd().endswith('deep')\n{APP}"
    )
    result = sdserve("--check-config", "--chdir", "deep", "--pythonpath", "../lib", "-e", "STAGE=x", "deep_app:app")
    assert (result.returncode, result.stderr) == (0, "")


def test_print_config_shows_sources_and_needs_no_application(sdserve: Run, tmp_path: Path) -> None:
    (tmp_path / "sdserve.conf.py").write_text("threads = 4\n")
    result = sdserve("--print-config", "-w", "3", SDSERVE_BACKLOG="64")
    assert result.returncode == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert rows["workers"].endswith("# command line")
    assert rows["backlog"].endswith("# environment SDSERVE_BACKLOG")
    assert rows["threads"].endswith(f"# file {tmp_path / 'sdserve.conf.py'}")
    assert rows["bind"].endswith("# default")


@pytest.mark.parametrize("flag", ["--help", "--version", "--print-config"])
def test_answers_import_nothing_of_the_server(sdserve: Run, tmp_path: Path, flag: str) -> None:
    script = (
        "import sys\nfrom sdserve.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = ('sdserve.arbiter', 'sdserve.workers', 'sdserve.http', 'sdserve.gateway', 'asyncio', 'ssl',"
        " 'argparse', 'typing', 'dataclasses', 'inspect', 'logging', 'ast')\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)\n"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", script, flag],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stderr == "[]\n"


def test_systemd_hears_why_it_does_not_start(sdserve: Run) -> None:
    with NotifySocket() as notify:
        result = sdserve("-w", "x", "site_app:app", NOTIFY_SOCKET=notify.address)
        message = notify.wait("ERRNO")
    assert result.returncode == 1
    assert message.fields["STATUS"] == "-w: 'x' is not a whole number, 0 to 10000"
    assert int(message.fields["ERRNO"]) > 0
