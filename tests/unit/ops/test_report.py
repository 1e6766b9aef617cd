"""A report is the word of the application: what is none is an error, and nothing in it fails later."""

import json

import pytest

from sdserve.ops import report


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "[" * 50_000,
        '{"zzz": 1}',
        '{"protocol": 1}',
        '{"debug": "yes"}',
        '{"files": "/etc/x"}',
        '{"files": [1]}',
        '{"files": ["a/b"]}',
        '{"directories": ["/srv", ""]}',
        '{"settings": "' + "a" * report.LONGEST + '"}',
    ],
    ids=range(11),
)
def test_nonsense_is_an_error(text: str) -> None:
    assert report.read(text) == {"error": report.NONSENSE}


def test_what_fits_is_taken() -> None:
    said = {"protocol": "wsgi", "files": ["/srv/x.db"], "hosts": ["*"], "debug": True}
    assert report.read(json.dumps(said)) == said | {"files": ("/srv/x.db",), "hosts": ("*",)}


def test_a_reason_is_one_line_without_gaps_and_not_endless() -> None:
    told = report.read(json.dumps({"error": "a\nsh /x/install.sh" + " " * 80 + "b" + "\u00a0" * 9 + "c" * 9999}))
    assert told["error"].startswith("a sh /x/install.sh b c") and len(told["error"]) == report.LONGEST_REASON
    assert told["nothing"] is False
    assert report.read('{"nothing": true, "error": 5}') == {"nothing": True, "error": "5"}
    assert report.read('{"nothing": true}') == {"error": report.NONSENSE}  # a name alone says nothing
