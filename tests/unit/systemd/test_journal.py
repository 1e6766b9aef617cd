"""Is a stream the journal, and what is written there."""

import io
import os
from pathlib import Path

import pytest

from sdserve.systemd.journal import connected


def test_the_stream_that_the_variable_names(tmp_path: Path) -> None:
    with open(tmp_path / "journal", "w") as stream, open(tmp_path / "other", "w") as other:
        found = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert connected(stream, environ)
        assert not connected(other, environ)  # redirected by hand, the variable inherited
        assert not connected(stream, {})


@pytest.mark.parametrize("text", ["", "1", "1:", ":1", "a:b", "1:2:3", "-1:2"])
def test_a_variable_that_is_none(tmp_path: Path, text: str) -> None:
    with open(tmp_path / "x", "w") as stream:
        assert not connected(stream, {"JOURNAL_STREAM": text})


def test_a_stream_without_a_descriptor() -> None:
    assert not connected(io.StringIO(), {"JOURNAL_STREAM": "1:2"})


def test_a_closed_stream(tmp_path: Path) -> None:
    stream = open(tmp_path / "x", "w")  # noqa: SIM115 - it is closed on purpose
    stream.close()
    assert not connected(stream, {"JOURNAL_STREAM": "1:2"})
