"""The import of an application: what it may say of the interpreter it gets, and what it leaves behind."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdserve.errors import AppImportError
from sdserve.workers.application import RARELY, Application

THRESHOLD = (700, 11, 12)


@pytest.fixture(autouse=True)
def threshold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = gc.get_threshold()
    gc.set_threshold(*THRESHOLD)
    yield
    gc.set_threshold(*before)


def test_collections_are_rare_while_it_is_imported_and_then_as_before(tmp_path: Path) -> None:
    (tmp_path / "rare_app.py").write_text("import gc\nseen = gc.get_threshold()\ndef application(*_): return seen\n")
    found = Application("rare_app").wsgi()
    assert found() == (RARELY, *THRESHOLD[1:])
    assert gc.get_threshold() == THRESHOLD


def test_what_it_says_of_collections_itself_stays(tmp_path: Path) -> None:
    (tmp_path / "own_app.py").write_text("import gc\ngc.set_threshold(9000)\ndef application(*_): pass\n")
    Application("own_app").wsgi()
    assert gc.get_threshold()[0] == 9000


def test_they_are_as_before_when_it_cannot_be_imported(tmp_path: Path) -> None:
    with pytest.raises(AppImportError):
        Application("no_such_app").wsgi()
    assert gc.get_threshold() == THRESHOLD


def test_no_collections_stay_none(tmp_path: Path) -> None:
    (tmp_path / "none_app.py").write_text("import gc\nseen = gc.get_threshold()\ndef application(*_): return seen\n")
    gc.set_threshold(0)
    assert Application("none_app").wsgi()()[0] == 0


def test_no_collection_looks_at_it_again(tmp_path: Path) -> None:
    """The first one after the import would take as long as all that were left out."""
    (tmp_path / "kept_app.py").write_text("made = [[] for _ in range(10_000)]\ndef application(*_): pass\n")
    before = gc.get_freeze_count()
    try:
        Application("kept_app").wsgi()
        assert gc.get_freeze_count() >= before + 10_000
    finally:
        gc.unfreeze()
