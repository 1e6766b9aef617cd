"""What is written into unit files stays on its line. tests/systemd/test_unit_command.py has systemd read it back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdserve.ops import quoting


@given(st.text())
def test_whatever_a_value_is_it_cannot_become_another_line(text: str) -> None:
    for quote in (quoting.word, quoting.path, quoting.plain, quoting.command):
        try:
            value = quote(text)
        except ValueError:
            continue
        assert len(f"x{value}x".splitlines()) == 1 or not any(char in value for char in "\n\r")
        assert not value.endswith("\\"), "the next line would belong to it"
        assert "\0" not in value


@pytest.mark.parametrize(
    ("executable", "arguments", "written"),
    [
        ("/opt/sdserve/bin/sdservectl", ["reload"], "/opt/sdserve/bin/sdservectl reload"),
        ("/srv/my venv/sdserve", [], ':"/srv/my venv/sdserve"'),
        ("/srv/100%/sdserve", ["$HOME"], ':"/srv/100%%/sdserve" "$HOME"'),
        ("/srv/a\"b'c/sdserve", [], ':"/usr/bin/env" "/srv/a\\"b\'c/sdserve"'),
    ],
)
def test_commands(executable: str, arguments: list[str], written: str) -> None:
    assert quoting.command(executable, *arguments) == written


@pytest.mark.parametrize("text", ["a\nb", " a", "a ", "a\\", "a\0", "\udcff"])
def test_what_cannot_be_written_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="'"):
        quoting.plain(text)
