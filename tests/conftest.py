"""Fixtures of all tests: a machine with a real systemd, servers as plain processes, short paths."""

import compileall
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.support.machine import CannotBoot, Machine
from tests.support.server import Server

MUST_BOOT = os.environ.get("TESTS_REQUIRE_SYSTEMD", "") not in ("", "0")
"""Where set, a machine that cannot be booted is a failure. Elsewhere its tests are skipped, with the reason."""


PACKAGE = Path(__file__).parents[1] / "sdserve"
OTHER_DEBIAN = Path(__file__).parent / "support" / "debian.sh"
SUITES = ("trixie", "forky")
settings.register_profile("shared machine", deadline=None)  # how long an example takes says nothing there
settings.load_profile("shared machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--debian", choices=SUITES, help="boot the systemd of this Debian, made once, instead of the host's own"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Once, before pytest's workers start: makes what --systemd asks for, and compiles the package.

    Servers under test write no bytecode, and half of the time of a start would go into compiling it again.
    """
    if hasattr(config, "workerinput"):
        return
    compileall.compile_dir(PACKAGE, quiet=1)
    if suite := config.getoption("debian"):
        compiles = [str(OTHER_DEBIAN), suite, "run", "/opt/sdserve/bin/python", "-m", "compileall", "-q", str(PACKAGE)]
        try:
            other_debian(suite)
            subprocess.run(compiles, check=True)
        except subprocess.CalledProcessError:
            raise pytest.UsageError(f"--debian {suite}: it cannot be made here") from None


def other_debian(suite: str) -> Path:
    """The root directory of another Debian, made if it is missing; what goes wrong is told on standard error."""
    command = [str(OTHER_DEBIAN), suite, "path"]
    return Path(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())


@pytest.fixture(scope="session")
def booted_machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """The one machine of this pytest worker."""
    suite = request.config.getoption("debian")
    root = other_debian(suite) if suite else Path("/")
    try:
        machine = Machine.boot(root / "opt/sdserve" if suite else Path(sys.prefix), root)
    except CannotBoot as e:
        if MUST_BOOT or suite:
            pytest.fail(f"cannot boot a systemd here: {e}", pytrace=False)
        pytest.skip(f"cannot boot a systemd here: {e}")
    try:
        yield machine
    finally:
        machine.shut_down()


@pytest.fixture
def machine(booted_machine: Machine) -> Iterator[Machine]:
    """A machine with nothing on it; what a test installs and starts there is gone afterwards."""
    try:
        yield booted_machine
    finally:
        booted_machine.reset()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for this end of many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def start(request: pytest.FixtureRequest, short_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers, `start("-w", "2", "app:application", cwd=…)` as `Server`; they end with the test, and before the
    directory is removed that they write to."""
    servers: list[Server] = []
    request.node.stash[SERVERS] = servers
    with ExitStack() as stack:

        def run(*args: str, **options: Any) -> Server:
            server = stack.enter_context(Server(*args, **options))
            servers.append(server)
            return server

        yield run


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for the name of a Unix socket (sun_path has 108 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="sd-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


SERVERS = pytest.StashKey[list[Server]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failed test what the machine's journal and the servers' logs have to say."""
    report = yield
    if report.failed and report.when == "call":
        machine = getattr(item, "funcargs", {}).get("machine")
        if isinstance(machine, Machine):
            report.sections.append(("journal of the machine", machine.story()))
        servers: list[Server] = item.stash.get(SERVERS, [])
        for number, server in enumerate(servers, 1):
            report.sections.append((f"log of server {number}", server.log))
    return report
