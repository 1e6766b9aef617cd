"""Output never raises and never blocks for long; what is lost is counted, and the next write tries again."""

import errno
import fcntl
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sdserve.process import output
from sdserve.process.log_file import open_file
from sdserve.process.output import Output, flush
from tests.support.server import CHECKOUT

FULL = Path("/dev/full")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "WRITE_TIMEOUT", 0.01)


@pytest.fixture
def pipe() -> Iterator[tuple[io.FileIO, int]]:
    """The reader of a small pipe, and the number of its other end."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    with open(read, "rb", buffering=0) as reader, open(write, "wb", buffering=0) as writer:
        yield reader, writer.fileno()


def test_a_reader_that_has_gone(pipe: tuple[io.FileIO, int]) -> None:
    reader, fd = pipe
    with Output(fd) as out:
        reader.close()
        assert not out.put(b"one\n")
        assert not out.put(b"two\n")
        assert (out.lost, out.reason) == (2, os.strerror(errno.EPIPE))


def test_a_reader_that_does_not_read(pipe: tuple[io.FileIO, int]) -> None:
    reader, fd = pipe
    with Output(fd) as out:
        while out.put(b"x" * 1000 + b"\n"):
            assert not out.lost
        assert os.get_blocking(fd), "the descriptor is everybody's"
        reader.read(4096)
        assert out.put(b"z\n")
        assert out.found_again() == (1, "nobody reads")
        assert out.found_again() is None


def test_what_was_torn_off_is_a_line_of_its_own(pipe: tuple[io.FileIO, int]) -> None:
    reader, fd = pipe
    with Output(fd) as out:
        assert not out.put(b"x" * 9000 + b"\n")
        read = reader.read(9000)
        assert out.put(b"whole\n")
        assert out.put(b"and another\n")
    assert (read + reader.read(9000)).splitlines()[-2:] == [b"whole", b"and another"]


def test_a_socket_that_nobody_reads_keeps_its_flags() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Output(ours.fileno()) as out:
        while out.put(b"x" * 1000):
            assert not out.lost
        assert out.reason == "nobody reads"
        assert ours.getblocking() and os.get_blocking(ours.fileno())
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            while theirs.recv(65536):
                continue
        assert out.put(b"again")


def test_a_pipe_that_cannot_be_opened_anew(pipe: tuple[io.FileIO, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **kwargs: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    reader, fd = pipe
    monkeypatch.setattr(os, "open", refused)
    with Output(fd) as out:
        assert out.put(b"short\n")
        assert reader.read(100) == b"short\n"
        assert not out.put(b"x" * 9000)  # would block for ever


def test_a_full_disk() -> None:
    stream = open_file(str(FULL))
    stream.write("lost\n")
    written = output.output_of(stream)
    assert written is not None
    assert (written.lost, written.reason) == (1, os.strerror(errno.ENOSPC))
    stream.close()


def numbers(found: os.stat_result) -> set[int]:
    """The descriptors of this process that are this file."""
    same = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own
            if os.path.samestat(os.fstat(int(name)), found):
                same.add(int(name))
    return same


def test_a_dead_stream_is_brought_back_to_life(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    calls = []

    def reopen(fd: int, dead: tuple[int, int]) -> bool:
        calls.append(dead)
        with open(tmp_path / "new", "wb") as new:
            os.dup2(new.fileno(), fd)
        return True

    with ours, Output(ours.fileno(), "<stderr>", reopen) as out:
        found = os.fstat(ours.fileno())
        known = numbers(found)
        theirs.close()
        assert out.put(b"not lost\n")
        assert calls == [(found.st_dev, found.st_ino)]
        assert len(known) == 2
        assert numbers((tmp_path / "new").stat()) == known  # another thread may be writing to the old one
    assert (tmp_path / "new").read_text() == "not lost\n"


def test_no_attempt_follows_another_at_once() -> None:
    ours, theirs = socket.socketpair()
    calls: list[object] = []

    def reopens_nothing(*args: object) -> bool:
        calls.append(args)
        return False

    with ours, Output(ours.fileno(), "", reopens_nothing) as out:
        theirs.close()
        for _ in range(5):
            assert not out.put(b"lost")
    assert len(calls) == 1


def test_a_stream_that_raises_anything() -> None:
    raised: list[object] = []

    class Odd(io.StringIO):
        def flush(self) -> None:
            raised.append(self)
            raise RuntimeError("odd")

    flush(odd := Odd())
    assert raised == [odd]
    flush(None)


def run(code: str, redirection: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code with the standard streams as a shell leaves them."""
    command = ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, code]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)


INSTALL = "from sdserve.process import output, standard; standard.fill(); output.install(); "


class TestStandardStreams:
    @pytest.mark.parametrize(
        "redirection", [">/dev/full 2>&1", ">&- 2>&-", "<&- >&- 2>&-", ">&-", "2>&-", "2>/dev/full"]
    )
    def test_printing_is_no_error_and_the_exit_status_is_the_programs(self, redirection: str) -> None:
        code = INSTALL + "import sys; print('x' * 9000); print('y', file=sys.stderr); output.abandon(); sys.exit(7)"
        assert run(code, redirection).returncode == 7

    def test_no_other_descriptor_gets_their_numbers(self) -> None:
        code = INSTALL + "import os, sys; fd = os.open('/dev/zero', 0); sys.exit(fd)"
        assert run(code, "<&- >&- 2>&-").returncode > 2

    def test_a_program_that_is_started_inherits_them(self) -> None:
        code = INSTALL + "import subprocess, sys; sys.exit(subprocess.call(['sh', '-c', 'echo x >&2; exit 5']))"
        assert run(code, "<&- >&- 2>&-").returncode == 5

    def test_they_are_text_streams_as_before(self) -> None:
        code = INSTALL + (
            "import sys; o = sys.stdout; print(o.fileno(), o.name, o.mode, o.isatty(), flush=True);"
            "o.buffer.write(b'bytes\\n'); sys.stderr.write('\\udcff')"
        )
        done = run(code, "")
        assert done.stdout.splitlines() == ["1 <stdout> w False", "bytes"]
        assert done.stderr == "\\udcff"

    def test_a_reader_that_ends_while_an_application_prints(self) -> None:
        code = INSTALL + "import sys\nfor _ in range(10000): print('x' * 100)\noutput.abandon()\nsys.exit(3)"
        done = run(f"{code}", "| head -1; exit 0")
        assert "Error" not in done.stderr and signal.Signals.SIGPIPE.name not in done.stderr
