"""Access records in JSON and logfmt: who parses them finds what was sent, and nothing else."""

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sdserve.access.log import AccessLog, form_of, refused
from sdserve.access.structured import FIELDS, Structured
from tests.support.hostile import HOSTILE, percent
from tests.support.logfmt import parsed as logfmt
from tests.unit.test_access import ENVIRON

KEYS = {
    "client": "REMOTE_ADDR",
    "method": "REQUEST_METHOD",
    "target": "RAW_URI",
    "protocol": "SERVER_PROTOCOL",
    "host": "HTTP_HOST",
    "referer": "HTTP_REFERER",
    "user_agent": "HTTP_USER_AGENT",
    "request_id": "HTTP_X_REQUEST_ID",
    "traceparent": "HTTP_TRACEPARENT",
}
FORMS: dict[str, tuple[Structured, Callable[[str], dict[str, Any]]]] = {
    "json": (Structured("json"), json.loads),
    "logfmt": (Structured("logfmt"), logfmt),
}
STYLES = pytest.mark.parametrize("style", FORMS)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NAMES = [name for name, _, _, _ in FIELDS]


def shown(value: bytes) -> str:
    """What a record says of a field: UTF-8, or its bytes."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def agree(said: str | None, value: bytes) -> bool:
    """Whether a record says `value`, or the beginning of it and that there is more."""
    whole = shown(value)
    return said == whole or (
        said is not None and said.endswith("...") and whole.startswith(said[:-3]) and len(said) > 150
    )


def lines(style: str, environs: list[dict[str, Any]]) -> list[str]:
    written: list[str] = []
    log = AccessLog(FORMS[style][0], written.extend, pytest.fail)
    for environ in environs:
        log.record(environ, "200 OK", 13, 0.25)
    log.flush()
    for line in written:
        assert line.isascii() and line.isprintable() and len(line) < 48 << 10
        assert not re.search("<[0-9]{1,3}>", line)
    return written


def environ_of(value: bytes) -> dict[str, Any]:
    """A request that has `value` wherever a client may put it."""
    text = value.decode("latin-1")
    user = base64.b64encode(value.replace(b":", b"") + b":secret").decode()
    return dict.fromkeys(KEYS.values(), text) | {"HTTP_AUTHORIZATION": f"Basic {user}"}


@STYLES
def test_fields_and_types(style: str) -> None:
    more = {"HTTP_HOST": "a", "HTTP_TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    [line] = lines(style, [ENVIRON | more])
    record = FORMS[style][1](line)
    assert list(record) == NAMES
    assert TIME.fullmatch(record.pop("time")) and int(record.pop("pid")) > 0
    nothing = None if style == "json" else ""
    assert record == {
        "client": "1.2.3.4",
        "user": "user",
        "method": "GET",
        "target": "/a?b=c",
        "protocol": "HTTP/1.1",
        "host": "a",
        "status": 200,
        "bytes": 13,
        "duration": 0.25,
        "connection": "kept",
        "referer": nothing,
        "user_agent": "curl",
        "request_id": nothing,
        "traceparent": more["HTTP_TRACEPARENT"],
    }


@STYLES
def test_of_a_refused_request_what_is_known(style: str) -> None:
    form, read = FORMS[style]
    environ = refused(b"\x16\x03\x01<0>", [], "1.2.3.4")
    [line] = form.lines([form.take(environ, "400 Bad Request", 0, 0.0, (), "-")])
    record = read(line)
    assert (record["target"], record["status"], record["connection"]) == ("\x16\x03\x01<0>", 400, "closed")
    assert record["method"] == (None if style == "json" else "")


@STYLES
@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_what_a_client_sends_is_found_and_forges_nothing(style: str, value: bytes) -> None:
    plain = ENVIRON | {"RAW_URI": "/before"}
    path = ENVIRON | {"RAW_URI": percent(value), "PATH_INFO": "/" + value.decode("latin-1")}
    written = lines(style, [plain, environ_of(value), path, plain])
    before, record, asked, after = map(FORMS[style][1], written)
    for each in (before, record, asked, after):
        assert list(each) == NAMES
        assert (each["status"], each["bytes"], each["duration"]) == (200, 13, 0.25)
    assert before["target"] == after["target"] == "/before"
    for field, key in KEYS.items():
        if field != "client" or value:
            assert agree(record[field], value), key
    assert agree(record["user"] or "", value.replace(b":", b""))
    assert agree(asked["target"], percent(value).encode())


ANY = st.one_of(st.binary(max_size=40), st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))


@STYLES
@given(st.lists(ANY, min_size=1, max_size=4), st.sampled_from([1, 300]))
@example([b'"', b"a"], 1)
@example(["\ufdd0".encode()], 1)
@settings(max_examples=60)
def test_whatever_is_sent_each_record_says_it(style: str, values: list[bytes], times: int) -> None:
    values = [value * times for value in values]
    written = lines(style, [environ_of(value) for value in values])
    assert len(written) == len(values)
    for line, value in zip(written, values, strict=True):
        record = FORMS[style][1](line)
        assert list(record) == NAMES
        assert agree(record["user_agent"], value) and agree(record["target"], value)


@STYLES
def test_a_batch_of_ordinary_requests_is_made_without_a_look_at_each_value(style: str) -> None:
    """Whatever is absent: it costs a multiple otherwise, and the records are the same."""
    form, _ = FORMS[style]
    few = {name: ENVIRON[name] for name in ("REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL")}
    batch = [form.take(environ, "200 OK", 13, 0.25, [], "+") for environ in (ENVIRON, few, ENVIRON, few)]
    assert form.fast(batch) == form.lines(batch)
    hostile = form.take(ENVIRON | {"HTTP_REFERER": '"'}, "200 OK", 13, 0.25, [], "+")
    assert form.fast([*batch, hostile]) is None
    assert form.lines([*batch, hostile])[: len(batch)] == form.fast(batch)


@STYLES
@pytest.mark.parametrize("gap", ["null", ":null,", "= ", '"= "', '":null,"'])
@pytest.mark.parametrize("quotes", ['"', '""', '"x":null,"y":null,"'])
def test_what_looks_like_nothing_hides_no_quote(style: str, gap: str, quotes: str) -> None:
    few = ENVIRON | {"HTTP_REFERER": quotes, "HTTP_USER_AGENT": gap}
    more = ENVIRON | {"HTTP_REFERER": gap * 2 + quotes + gap, "RAW_URI": gap}
    for environ, line in zip((few, more), lines(style, [few, more]), strict=True):
        record = FORMS[style][1](line)
        assert list(record) == NAMES
        assert (record["referer"], record["user_agent"]) == (environ["HTTP_REFERER"], environ["HTTP_USER_AGENT"])
        assert record["target"] == environ["RAW_URI"]


@STYLES
def test_what_an_application_leaves_in_its_environ_harms_no_other_record(style: str) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError('no "text"')

    first, odd, last = lines(style, [ENVIRON, ENVIRON | {"HTTP_REFERER": Odd()}, ENVIRON])
    read = FORMS[style][1]
    assert read(first)["target"] == read(last)["target"] == "/a?b=c"
    assert "no " in read(odd)["error"] and list(read(odd)) == ["error"]


def test_the_formats_names() -> None:
    assert isinstance(form_of(" JSON "), Structured) and isinstance(form_of("logfmt"), Structured)
    assert not isinstance(form_of("%(h)s"), Structured)
    with pytest.raises(ValueError, match=r"access_log_format: 'jsn' has no atom such as %\(h\)s: use these, json, or"):
        form_of("jsn")


def test_paths_of_probes_are_left_out_while_they_succeed() -> None:
    written: list[str] = []
    log = AccessLog(form_of("%(s)s %({RAW_URI}e)s"), written.extend, pytest.fail, ["/livez", "/readyz"])
    for path, status in (("/livez", "200 OK"), ("/livez?a", "204 No Content"), ("/readyz", "503 Service Unavailable")):
        log.record(ENVIRON | {"RAW_URI": path}, status, 0, 0.0)
    log.record(ENVIRON | {"RAW_URI": "/livez/more"}, "200 OK", 0, 0.0)
    log.flush()
    assert written == ["503 /readyz", "200 /livez/more"]
