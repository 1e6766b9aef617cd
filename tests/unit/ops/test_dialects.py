"""What is said on the control socket: cut anywhere, mixed, or meant to harm."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sdserve.ops import dialects, interface
from sdserve.ops.commands import COMMANDS
from sdserve.ops.dialects import LONGEST, NEWLINE, NUL, Framer, Request, TooLongError, read

CONTROL = "org.sdserve.Control1"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([command.name for command in COMMANDS]) | JSON
FIELDS = st.sampled_from(["workers", "slot", "state", "seconds", "interval", "more"])


def messages(framer: Framer) -> list[bytes]:
    found = []
    while (message := framer.next()) is not None:
        found.append(message)
    return found


@given(
    st.lists(st.binary(max_size=40).map(lambda text: text.replace(NUL, b"").replace(NEWLINE, b"")), min_size=1),
    st.sampled_from([NUL, NEWLINE]),
    st.lists(st.integers(1, 30)),
)
def test_messages_are_the_same_however_they_are_cut(texts: list[bytes], end: bytes, cuts: list[int]) -> None:
    said = b"".join(text + end for text in texts)
    framer, heard, at = Framer(), [], 0
    for cut in [*cuts, len(said)]:
        framer.feed(said[at : at + cut])
        at += cut
        heard += messages(framer)
    assert heard == texts


@given(st.lists(st.sampled_from([NUL, NEWLINE, b"{", b"}", b'"', b"a"])).map(b"".join))
def test_the_first_end_says_which_dialect_it_is_for_good(said: bytes) -> None:
    framer = Framer()
    framer.feed(said)
    ends = said.replace(b"{", b"").replace(b"}", b"").replace(b'"', b"").replace(b"a", b"")
    assert framer.dialect == ends[:1]
    assert len(messages(framer)) == (said.count(framer.dialect) if framer.dialect else 0)


@pytest.mark.parametrize("end", [b"", NUL, NEWLINE])
def test_what_does_not_end_is_not_kept(end: bytes) -> None:
    framer = Framer()
    framer.feed(end + b"x" * LONGEST if end else b"x" * LONGEST)
    messages(framer)
    with pytest.raises(TooLongError):
        framer.feed(b"x")


def test_what_is_too_long_behind_another_is_not_heard_either() -> None:
    framer = Framer()
    framer.feed(b"{}" + NUL + b"x" * LONGEST + b"x" + NUL)
    assert framer.next() == b"{}"
    with pytest.raises(TooLongError):
        framer.next()


@given(st.dictionaries(FIELDS | st.text(max_size=5), JSON, max_size=4), NAMES, st.sampled_from([NUL, NEWLINE]))
@example({"": None}, "status", NEWLINE)
def test_hostile_json_is_a_request_or_a_refusal(fields: dict[str, Any], name: Any, dialect: bytes) -> None:
    told = {**fields, "command": name} if dialect == NEWLINE else {"method": name, "parameters": fields}
    request = read(dialect, json.dumps(told).encode())
    if request is None:
        assert dialect == NUL
    elif request.command is not None:
        assert request.command.misfit(request.parameters) == ("", "")
    elif request.answered is None:
        assert request.failure
        json.loads(dialects.refusal(dialect, request.failure, request.text, request.fields)[:-1])


@given(st.binary(max_size=200), st.sampled_from([NUL, NEWLINE]))
def test_bytes_of_any_kind_are_a_request_or_a_refusal(message: bytes, dialect: bytes) -> None:
    request = read(dialect, message)
    assert request is None or request.command is None


@given(st.text(), st.dictionaries(st.text(), JSON.filter(lambda value: value == value), max_size=3))
def test_no_answer_breaks_its_frame(text: str, fields: dict[str, Any]) -> None:
    for dialect in (NUL, NEWLINE):
        for said in (
            dialects.answer(dialect, text, fields),
            dialects.answer(dialect, text, fields, continues=True),
            dialects.refusal(dialect, "Refused", text, fields),
        ):
            assert said.count(NUL) + said.count(NEWLINE) == 1
            assert said.endswith(dialect)


@pytest.mark.parametrize(
    ("message", "failure", "fields"),
    [
        ({"method": "org.varlink.service.GetInterfaceDescription"}, "InvalidParameter", {"parameter": "interface"}),
        ({"method": "org.varlink.service.Halt"}, "MethodNotFound", {"method": "Halt"}),
        ({"method": f"{CONTROL}.Halt"}, "MethodNotFound", {"method": "Halt"}),
        ({"method": f"{CONTROL}.Environment"}, "MethodNotFound", {"method": "Environment"}),
        ({"method": "org.example.Other.Status"}, "InterfaceNotFound", {"interface": "org.example.Other"}),
        ({"method": "Status"}, "InterfaceNotFound", {"interface": ""}),
        ({"method": f"{CONTROL}.Status", "parameters": []}, "", {}),
        ({"method": f"{CONTROL}.Status", "parameters": [1]}, "InvalidParameter", {"parameter": "parameters"}),
        ({"method": f"{CONTROL}.Scale"}, "InvalidParameter", {"parameter": "workers"}),
        ({"method": f"{CONTROL}.Scale", "parameters": {"workers": True}}, "InvalidParameter", {"parameter": "workers"}),
        ({"method": f"{CONTROL}.Scale", "parameters": {"workers": 1e3}}, "InvalidParameter", {"parameter": "workers"}),
        ({"method": f"{CONTROL}.Scale", "parameters": {"workers": 0}}, "InvalidParameter", {"parameter": "workers"}),
        ({"method": f"{CONTROL}.Reload", "parameters": {"now": 1}}, "InvalidParameter", {"parameter": "now"}),
    ],
)
def test_varlinks_own_errors(message: dict[str, Any], failure: str, fields: dict[str, Any]) -> None:
    request = read(NUL, json.dumps(message).encode())
    assert request is not None
    assert request.failure.rpartition(".")[2] == failure
    assert request.fields == fields
    if failure:
        told = json.loads(dialects.refusal(NUL, request.failure, request.text, request.fields)[:-1])
        assert told == {"error": f"org.varlink.service.{failure}", "parameters": fields}


def test_both_dialects_ask_for_the_same() -> None:
    line = read(NEWLINE, b'{"command": "scale", "workers": 3}')
    call = read(NUL, b'{"method": "org.sdserve.Control1.Scale", "parameters": {"workers": 3}}')
    assert line == call
    assert isinstance(line, Request)
    assert line.command is not None
    assert (line.command.name, line.parameters) == ("scale", {"workers": 3})


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1", "0.01", "1e300", '"1"', "[]", "true"])
def test_seconds_are_seconds(number: str) -> None:
    request = read(NEWLINE, f'{{"command": "status", "interval": {number}}}'.encode())
    assert request is not None
    assert request.command is None
    assert request.text == "status: interval has to be a number from 0.1 to 604800"


def test_the_interface_names_each_command_and_each_failure_once() -> None:
    """As sd-varlink's parser asks: types, methods and errors have different names, and types are known."""
    text = interface.description()
    names = [line.split(" ")[1].partition("(")[0] for line in text.splitlines() if line[:4] in ("type", "meth", "erro")]
    assert len(names) == len(set(names))
    assert {"Status", "Reload", "Upgrade", "Scale", "Stacks", "Wait"} <= set(names)
    used = {each for command in COMMANDS for each in command.fails}
    assert used <= set(names)
