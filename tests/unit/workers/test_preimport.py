"""What cannot be imported ends nobody, and is not looked for again: by then the disk may have another version of it."""

import errno
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sdserve.workers import preimport

Write = Callable[[str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module `brittle`, which notes each time that it is executed."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(preimport, "_missing", {})

    def write(source: str) -> None:
        (tmp_path / "brittle.py").write_text(f"open('tried', 'a').write('.')\n{source}\n")

    yield write
    sys.modules.pop("brittle", None)


def tries() -> int:
    return len(Path("tried").read_text())


@pytest.mark.parametrize("error", ["ImportError('no')", "RuntimeError('no')", "OSError('no')", "SyntaxError('no')"])
def test_what_fails_is_told_once_and_remembered(write: Write, error: str) -> None:
    write(f"raise {error}")
    [(name, found)] = preimport.preimport(["brittle"])
    assert name == "brittle" and str(found) == "no"
    write("")
    assert preimport.preimport(["brittle"]) == []
    assert preimport.missing("brittle") == f"{error.partition('(')[0]}: no"
    assert tries() == 1 and "brittle" not in sys.modules


def test_what_stands_behind_it_is_imported_all_the_same(write: Write) -> None:
    write("")
    assert [name for name, _ in preimport.preimport(["no_such_module", "brittle"])] == ["no_such_module"]
    assert "brittle" in sys.modules and preimport.missing("brittle") == ""


def test_want_of_room_says_nothing_of_a_module(write: Write) -> None:
    """A worker that has no descriptor free may have one later."""
    write(f"raise OSError({errno.EMFILE}, 'Too many open files')")
    assert [name for name, _ in preimport.preimport(["brittle"])] == ["brittle"]
    with pytest.raises(OSError, match="Too many open files"):
        preimport.missing("brittle")
    write("")
    sys.modules.pop("brittle", None)
    assert preimport.missing("brittle") == ""
