"""Lines for the journal: each with its priority, none with anything that begins a record by itself."""

import pytest

from sdserve.systemd.records import harmless, prefixed


def test_a_prefix_on_each_line() -> None:
    assert prefixed("one\ntwo\n\nthree", 3) == "<3>one\n<3>two\n<3>\n<3>three"


def test_a_prefix_on_each_piece_of_a_line_that_journald_would_cut() -> None:
    for character in ("a", "\u20ac", "\U0001f600"):
        text = "x" + character * 60_000
        pieces = prefixed(text, 3).split("\n")
        assert len(pieces) > 1
        assert "".join(piece.removeprefix("<3>") for piece in pieces) == text
        assert all(len(piece.encode()) < 48 << 10 for piece in pieces)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("one\ntwo\tthree", "one\ntwo\tthree"),
        ("bad\0<0>forged", r"bad\x00\x3c0>forged"),
        ("a\n<0>b <191>c <1000>", "a\n\\x3c0>b \\x3c191>c <1000>"),
        ("\r\x1b[31m\x85\u2028\u202e\ud800", r"\r\x1b[31m\x85\u2028\u202e\ud800"),
        ("gr\xfc\xdfe \u2603 <module>", "gr\xfc\xdfe \u2603 <module>"),
    ],
)
def test_text_of_others_begins_no_record(text: str, safe: str) -> None:
    assert harmless(text) == safe
