"""The pidfile: who may take it, who may remove it."""

import os
import stat
from pathlib import Path

import pytest

from sdserve.errors import PidfileError
from sdserve.process.pidfile import Pidfile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sdserve.pid"


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_written_whole_and_readable_by_all(path: Path) -> None:
    pidfile = Pidfile(str(path))
    pidfile.create(os.getpid())
    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [each.name for each in path.parent.iterdir()] == ["sdserve.pid"]
    assert pidfile.validate() == os.getpid()


def test_a_stale_file_is_replaced(path: Path, dead: int) -> None:
    path.write_text(f"{dead}\n")
    assert Pidfile(str(path)).validate() is None
    Pidfile(str(path)).create(os.getpid())
    assert path.read_text() == f"{os.getpid()}\n"


def test_one_who_has_ended_but_was_not_reaped_is_stale(path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        path.write_text(f"{child}\n")
        assert Pidfile(str(path)).validate() is None
    finally:
        os.waitpid(child, 0)


def test_a_live_one_is_refused_by_its_number(path: Path) -> None:
    path.write_text(f"{os.getppid()}\n")
    with pytest.raises(PidfileError, match=f"already running on pid {os.getppid()}: the pidfile {path}"):
        Pidfile(str(path)).create(os.getpid())
    assert path.read_text() == f"{os.getppid()}\n"


def test_ones_own_is_written_anew(path: Path) -> None:
    path.write_text(f"{os.getpid()}")  # by another hand, without the end of its line
    Pidfile(str(path)).create(os.getpid())
    assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("text", ["", "\n", "none", "-1", "0", "²", "12 13", "9" * 30, "\xff"])
def test_what_is_no_number_names_nobody(path: Path, text: str) -> None:
    path.write_text(text, encoding="latin-1", errors="replace")
    assert Pidfile(str(path)).validate() is None


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_somebody_elses_process_counts(short_path: Path) -> None:
    """Signal 0 to it is not permitted, which proves that it runs."""
    short_path.chmod(0o755)
    (short_path / "pid").write_text("1\n")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            code = 0 if Pidfile(str(short_path / "pid")).validate() == 1 else 1
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_removed_only_while_it_is_ours(path: Path) -> None:
    pidfile = Pidfile(str(path))
    pidfile.create(os.getpid())
    path.write_text("1\n")
    pidfile.unlink()
    assert path.read_text() == "1\n"
    other = Pidfile(str(path))
    other.unlink()  # it never wrote
    assert path.exists()


def test_removed_twice(path: Path) -> None:
    pidfile = Pidfile(str(path))
    pidfile.create(os.getpid())
    pidfile.unlink()
    pidfile.unlink()
    assert not path.exists()


def test_a_promoted_master_drops_the_suffix(path: Path, dead: int) -> None:
    path.write_text(f"{dead}\n")
    pidfile = Pidfile(f"{path}.2")
    pidfile.create(os.getpid())
    pidfile.rename(str(path))
    assert (pidfile.fname, path.read_text()) == (str(path), f"{os.getpid()}\n")
    assert not Path(f"{path}.2").exists()


def test_a_unit_has_a_place_for_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/shop")
    with pytest.raises(PidfileError, match=r"No such file or directory; this unit's place for it is /run/shop$"):
        Pidfile(f"{path}/none/pid").create(os.getpid())


def test_a_directory_that_is_none(path: Path) -> None:
    with pytest.raises(PidfileError, match=r"cannot write the pidfile .*: No such file or directory"):
        Pidfile(str(path / "x" / "y")).create(os.getpid())


def test_a_directory_in_its_place(path: Path) -> None:
    path.mkdir()
    with pytest.raises(PidfileError, match=r"cannot read the pidfile .*: Is a directory"):
        Pidfile(str(path)).create(os.getpid())


def test_who_has_the_name_already_keeps_the_file(path: Path) -> None:
    """A new master whose old one was gone before it started never had the suffix."""
    pidfile = Pidfile(str(path))
    pidfile.create(os.getpid())
    pidfile.rename(str(path))
    assert pidfile.holds()
