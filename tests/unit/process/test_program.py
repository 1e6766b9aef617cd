"""The path that a program was executed by, however that was; executed again, it means what is there by then."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdserve.process.program import Program
from tests.support.server import CHECKOUT

TELL = """
import json, sys
sys.path.insert(0, {checkout!r})
from sdserve.process.program import Program
program = Program.started()
print(json.dumps([program.path, program.argv, program.trial("/")]))
"""
TRAMPOLINES = {
    "pip": "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n",
    "pip without blanks": "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\n",
}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A directory behind a link: the path through the link."""
    (tmp_path / "one").mkdir()
    (tmp_path / "current").symlink_to("one")
    return tmp_path / "current"


def script(release: Path, first: str, name: str = "tell") -> str:
    path = release / name
    path.write_text(first + TELL.format(checkout=str(CHECKOUT)))
    path.chmod(0o755)
    return str(path)


def told(*command: str, **options: object) -> tuple[str, list[str], list[str]]:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload]
    path, argv, trial = json.loads(done.stdout)
    return path, argv, trial


def test_a_script_by_its_first_line(release: Path) -> None:
    path = script(release, f"#!{sys.executable}\n")
    found, argv, trial = told(path, "app", "--workers=2")
    assert (found, argv) == (path, [path, "app", "--workers=2"])
    assert trial[0] == sys.executable


def test_a_first_line_with_an_option(release: Path) -> None:
    path = script(release, f"#!{sys.executable} -I\n")
    assert told(path, "app")[:2] == (path, [path, "app"])


@pytest.mark.parametrize("kind", TRAMPOLINES)
def test_a_script_by_way_of_the_shell(release: Path, kind: str) -> None:
    path = script(release, TRAMPOLINES[kind].format(python=sys.executable))
    found, argv, trial = told(path, "app")
    assert (found, argv) == (path, [path, "app"])
    assert trial == [path, "--version"]


def test_a_script_found_in_the_path(release: Path) -> None:
    path = script(release, f"#!{sys.executable}\n")
    environ = {**os.environ, "PATH": f"{release}:{os.environ['PATH']}"}
    assert told("sh", "-c", "tell app", env=environ)[:2] == (path, [path, "app"])


def test_a_relative_script(release: Path) -> None:
    script(release, f"#!{sys.executable}\n")
    assert told("sh", "-c", "./current/tell app", cwd=release.parent)[0] == "./current/tell"


def test_a_script_given_to_an_interpreter_is_its_argument(release: Path) -> None:
    path = script(release, "#!/no/such/python\n")
    found, argv, _ = told(sys.executable, path, "app")
    assert (found, argv) == (sys.executable, [sys.executable, path, "app"])


def test_an_interpreter_behind_a_link(release: Path) -> None:
    (release / "python").symlink_to(sys.executable)
    python = str(release / "python")
    code = TELL.format(checkout=str(CHECKOUT))
    assert told(python, "-c", code, "-m", "sdserve")[:2] == (python, [python, "-c", code, "-m", "sdserve"])


def test_another_name_is_given_again(release: Path) -> None:
    code = TELL.format(checkout=str(CHECKOUT))
    found, argv, _ = told("bash", "-c", 'exec -a other "$0" -c "$1"', sys.executable, code)
    assert (found, argv) == (sys.executable, ["other", "-c", code])


def test_env_finds_what_it_found(release: Path) -> None:
    (release / "python-of-the-release").symlink_to(sys.executable)
    path = script(release, "#!/usr/bin/env python-of-the-release\n")
    environ = {**os.environ, "PATH": f"{release}:{os.environ['PATH']}"}
    found, argv, _ = told(path, "app", env=environ)
    assert (found, argv[1:]) == (str(release / "python-of-the-release"), [path, "app"])


def test_where_the_kernel_does_not_tell() -> None:
    argv = ["python", "-m", "sdserve"]
    assert Program.of(argv, None) == Program("python", tuple(argv))


def test_what_is_on_trial_is_what_the_link_says_now(release: Path, tmp_path: Path) -> None:
    program = Program(script(release, "#!/srv/one/python3.11\n"), ("tell",))
    assert program.trial("/")[0] == "/srv/one/python3.11"
    (tmp_path / "two").mkdir()
    release.unlink()
    release.symlink_to("two")
    script(release, "#!/srv/two/python3.13 -I\n")
    assert program.trial("/")[0] == "/srv/two/python3.13"
