"""Who tells of memory pressure: the kernel's file, a FIFO, a socket."""

import os
import select
import socket
from base64 import b64encode
from pathlib import Path

import pytest

from sdserve.systemd.memory_pressure import MemoryPressure


def opened(path: str | Path, threshold: bytes = b"") -> MemoryPressure:
    environ = {"MEMORY_PRESSURE_WATCH": str(path), "MEMORY_PRESSURE_WRITE": b64encode(threshold).decode()}
    found = MemoryPressure.from_environ(environ)
    assert found is not None
    return found


def is_readable(pressure: MemoryPressure) -> bool:
    return bool(select.select([pressure], [], [], 0)[0])


def test_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    pressure = opened(tmp_path / "fifo")
    assert not is_readable(pressure)
    with open(tmp_path / "fifo", "wb", buffering=0) as fifo:
        fifo.write(b"x" * 100)
        assert is_readable(pressure)
        assert pressure.heard()
        assert not is_readable(pressure)
    assert not pressure.heard(), "nobody is there to tell any more"
    pressure.close()


def test_a_socket_hears_the_threshold(short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_path / "s"))
        listener.listen()
        pressure = opened(short_path / "s", b"some 200000 2000000\0")
        manager, _ = listener.accept()
        with manager:
            assert manager.recv(100) == b"some 200000 2000000\0"
            manager.send(b"!")
            assert is_readable(pressure) and pressure.heard() and not is_readable(pressure)
        assert is_readable(pressure) and not pressure.heard()
        pressure.close()


def test_a_socket_that_goes_without_hearing_the_threshold(short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_path / "s"))
        listener.listen()
        pressure = opened(short_path / "s", b"some 200000 2000000\0")
        listener.accept()[0].close()
        assert is_readable(pressure) and not pressure.heard()
        pressure.close()


def test_the_kernels_file_is_quiet_while_memory_is_not_short() -> None:
    try:
        pressure = opened("/proc/pressure/memory", b"some 1900000 2000000\0")
    except OSError as error:
        pytest.skip(f"the kernel tells no pressure: {error}")
    assert not is_readable(pressure)
    pressure.close()


@pytest.mark.parametrize(("path", "error"), [("/nowhere", FileNotFoundError), ("/proc", IsADirectoryError)])
def test_what_cannot_be_watched(path: str, error: type[OSError]) -> None:
    with pytest.raises(error):
        opened(path, b"x")


def test_what_is_no_base64() -> None:
    with pytest.raises(ValueError, match="padding"):
        MemoryPressure.from_environ({"MEMORY_PRESSURE_WATCH": "/proc/self/stat", "MEMORY_PRESSURE_WRITE": "abc"})
