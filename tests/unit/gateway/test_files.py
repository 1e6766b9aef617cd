"""wsgi.file_wrapper: what is sent from a descriptor is what reading the file would give."""

# ruff: noqa: SIM115 - who uses them closes them

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdserve.gateway.files import FileWrapper

TEXT = b"0123456789" * 100
PACKED: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


class Upper(io.FileIO):
    """A file that is read otherwise than it is stored."""

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        buffer[:count] = bytes(buffer[:count]).upper()
        return count or 0


def half_read(path: Path) -> Any:
    file = open(path, "rb")
    file.read(10)
    return file


def changed(path: Path) -> Any:
    file = open(path, "r+b")
    file.write(b"new")
    file.seek(1)
    return file


PLAIN: list[Callable[[Path], Any]] = [
    *(lambda path: open(path, "rb"), lambda path: open(path, "rb", buffering=0), half_read, changed),
    lambda path: io.BufferedReader(io.FileIO(path)),
]
OTHERS: list[Callable[[Path], Any]] = [
    lambda path: gzip.open(f"{path}.gz"),
    lambda path: io.BufferedReader(gzip.open(f"{path}.gz")),
    lambda path: io.BufferedReader(bz2.open(f"{path}.bz2")),
    lambda path: io.BufferedReader(lzma.open(f"{path}.xz")),
    lambda path: Upper(path),
    lambda path: io.BufferedReader(Upper(path)),
    lambda path: io.BytesIO(TEXT),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "text"
    path.write_bytes(TEXT)
    for name, pack in PACKED.items():
        path.with_suffix(f".{name}").write_bytes(pack(TEXT))
    return path


@pytest.mark.parametrize("opened", PLAIN)
def test_a_file_of_bytes_as_they_are_stored_is_sent_unread(path: Path, opened: Callable[[Path], Any]) -> None:
    with opened(path) as file:
        region = FileWrapper(file).region()
        assert region is not None
        fd, offset, count = region
        assert (fd, os.pread(fd, count, offset)) == (file.fileno(), file.read())


@pytest.mark.parametrize("opened", OTHERS)
def test_what_only_reading_shows_is_read(path: Path, opened: Callable[[Path], Any]) -> None:
    with opened(path) as file:
        assert FileWrapper(file).region() is None
        assert b"".join(FileWrapper(file)) == TEXT.upper()


def test_what_cannot_be_read_is_left_to_reading_it(path: Path) -> None:
    closed, detached = open(path, "rb"), open(path, "rb")
    closed.close()
    inner = detached.detach()
    with inner, open(os.devnull, "wb") as written:
        assert [FileWrapper(file).region() for file in (closed, detached, written)] == [None] * 3
