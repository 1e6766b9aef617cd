"""Help and documentation: made from the schema, and the committed files are what it makes."""

import re
from pathlib import Path

import pytest

from sdserve.config import SETTINGS, load, render
from sdserve.config.setting import Setting

DOCS = Path(__file__).parents[3] / "docs"


def test_committed_settings_page_is_what_the_generator_gives() -> None:
    assert (DOCS / "reference" / "settings.md").read_text() == render.docs(), "run python docs/generate.py"


def test_committed_man_page_is_what_the_generator_gives() -> None:
    assert (DOCS / "sdserve.1").read_text() == render.man(), "run: python -m sdserve.config.render man"


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=repr)
def test_every_setting_is_documented(setting: Setting) -> None:
    assert f"### `{setting.name}" in render.docs()
    assert render._man_head(setting) in render.man()
    for flag in setting.flags:
        assert flag in render.help_text()


@pytest.mark.parametrize("setting", [each for each in SETTINGS.values() if each.takes_value], ids=repr)
def test_help_says_which_values_there_are_and_what_0_means(setting: Setting) -> None:
    said = " ".join("\n".join(render._help_entry(setting, 100)).split())
    if "0 means" in setting.doc:
        assert re.search(r"\]\. 0 means .*\.$", said), said
    try:
        setting.convert("no such value")
    except ValueError as error:
        _, choices, names = str(error).partition(" is not one of ")
        if choices:
            assert all(re.search(rf"\b{each}\b", said.lower()) for each in names.partition(";")[0].split(", ")), said


def test_help_fits_the_terminal() -> None:
    assert max(map(len, render.help_text().splitlines())) <= 100


def test_man_lines_are_text_or_known_requests() -> None:
    requests = {'.\\"', ".TH", ".SH", ".SS", ".TP", ".B", ".BR", ".PP", ".br"}
    for line in render.man().splitlines():
        assert not line.startswith((".", "'")) or line.split()[0] in requests, line


def test_print_config_shows_each_setting_with_value_and_source() -> None:
    cfg = load(["-w", "3", "-m", "022"], {"SDSERVE_PIDFILE": "/run/x"}, "/")
    rows = {line.split(" = ")[0].strip(): line for line in render.config_text(cfg).splitlines()}
    assert list(rows) == list(SETTINGS)
    assert rows["workers"].split() == ["workers", "=", "3", "#", "command", "line"]
    assert rows["umask"].split()[2] == "0o022"
    assert rows["pidfile"].endswith("# environment SDSERVE_PIDFILE")
    assert "no_hook" in rows["post_fork"]
