"""Converters: what is accepted, what it becomes, and how a refusal reads."""

import os
import pwd
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdserve.config import SETTINGS, convert
from sdserve.config.address import address, binds
from sdserve.config.hooks import takes

Converter = Callable[[object], Any]


@pytest.mark.parametrize(
    ("converter", "value", "expected"),
    [
        (convert.boolean, "Yes", True),
        (convert.boolean, " off ", False),
        (convert.boolean, 1, True),
        (convert.whole(), "12", 12),
        (convert.whole(), " 007 ", 7),
        (convert.whole(), "0x10", 16),
        (convert.whole(), True, 1),
        (convert.whole(1, 3), 3, 3),
        (convert.seconds, "1.5", 1.5),
        (convert.seconds, "30", 30),
        (convert.seconds, 0, 0),
        (convert.size, "64K", 65536),
        (convert.size, "1 M", 1 << 20),
        (convert.size, 5, 5),
        (convert.text, "  a b ", "a b"),
        (convert.optional_text, "  ", None),
        (convert.umask, "022", 0o22),
        (convert.umask, "0o22", 0o22),
        (convert.umask, "22", 22),
        (convert.umask, "0x1f", 31),
        (convert.umask, 0o77, 0o77),
        (convert.file_mode, "660", 0o660),
        (convert.file_mode, "0660", 0o660),
        (convert.file_mode, 0o660, 0o660),
        (convert.user, "root", 0),
        (convert.user, "1234", 1234),
        (convert.user, 0, 0),
        (convert.group, "root", 0),
        (convert.choice("a", "b", also={True: "b"}), "A ", "a"),
        (convert.choice("a", "b", also={True: "b"}), True, "b"),
        (convert.comma_list(convert.text), "a, b,,c", ["a", "b", "c"]),
        (convert.comma_list(convert.network), "10.0.0.0/8,::1,*", ["10.0.0.0/8", "::1", "*"]),
        (convert.each(convert.text), "a,b", ["a,b"]),
        (convert.each(convert.text), ("a", "b"), ["a", "b"]),
        (convert.each(convert.text), "", []),
        (convert.header_name, "script_name", "SCRIPT_NAME"),
        (convert.header_name, "script_name", "SCRIPT_NAME"),
        (convert.header_values, {"x-a": "on"}, {"X-A": "on"}),
        (convert.header_values, "X-A=on,X-B=https", {"X-A": "on", "X-B": "https"}),
        (convert.request_target, " /health?full=1 ", "/health?full=1"),
        (convert.request_target, "https://example.org:8443", "https://example.org:8443"),
        (convert.request_target, "http://[::1]/x", "http://[::1]/x"),
        (convert.gpu_list, "0, 1", ["0", "1"]),
        (convert.gpu_list, [0, 1], ["0", "1"]),
        (convert.gpu_list, 3, ["3"]),
        (convert.gpu_list, "GPU-8932f937-d72c,MIG-a/1/0", ["GPU-8932f937-d72c", "MIG-a/1/0"]),
        (convert.gpu_list, "", []),
        (convert.worker_class, "sync", "sync"),
        (convert.worker_class, lambda: dict, dict),
        (binds, ["127.0.0.1:0", "127.0.0.1:0"], ["127.0.0.1:0", "127.0.0.1:0"]),
    ],
)
def test_accepts(converter: Converter, value: object, expected: object) -> None:
    converted = converter(value)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("converter", "value", "message"),
    [
        (convert.boolean, "maybe", "'maybe' is neither true nor false"),
        (convert.boolean, 2, "2 is neither"),
        (convert.whole(), "four", "'four' is not a whole number, 0 or more"),
        (convert.whole(), -1, "-1 is not"),
        (convert.whole(), 1.5, "1.5 is not"),
        (convert.whole(1, 3), "4", "'4' is not a whole number, 1 to 3"),
        (convert.seconds, "nan", "'nan' is not a number of seconds"),
        (convert.seconds, "inf", "'inf' is not a number of seconds"),
        (convert.seconds, "-0.5", "'-0.5' is not"),
        (convert.seconds, [], r"\[\] is not"),
        (convert.size, "10T", "'10T' is not a number of bytes"),
        (convert.text, 3, "3 is not a string"),
        (convert.umask, "099", "'099' is not a mask"),
        (convert.umask, 0o1000, "512 is not a mask"),
        (convert.file_mode, 660, "660 is not a file mode .* 0o660"),
        (convert.file_mode, "rw", "'rw' is not a file mode"),
        (convert.user, "no such user", "'no such user': there is no user of this name"),
        (convert.group, "nogroup?", "there is no group of this name"),
        (convert.user, 2**32 - 1, "is not a user id"),
        (convert.user, "", "neither the name nor the id"),
        (convert.choice("a", "b", hint="; sorry"), "c", "'c' is not one of a, b; sorry"),
        (convert.comma_list(convert.network), "10.0.0.1/8,nowhere", "host bits set.*'nowhere' is not an IP address"),
        (convert.each(convert.text), 5, "5 is not a list"),
        (convert.each(convert.text), ["a", 1, 2], "1 is not a string; 2 is not a string"),
        (convert.each(convert.assignment), ["A=1", "B"], "'B' is not of the form KEY=VALUE"),
        (convert.assignment, "=1", "'=1' is not"),
        (convert.header_name, "a b", "'a b' is not the name"),
        (convert.header_values, {"a": 1}, "is not a dict of header names"),
        (convert.request_target, "health", "'health' is neither a path such as /health nor a URL"),
        (convert.request_target, "/a b", "'/a b' is neither"),
        (convert.request_target, "/a#b", "'/a#b' is neither"),
        (convert.request_target, "http://:80/", "'http://:80/' is neither"),
        (convert.request_target, "http://a:b/", "'http://a:b/' is neither"),
        (convert.request_target, "http://me@a/", "'http://me@a/' is neither"),
        (convert.gpu_list, "0,0", "'0,0' names a device twice"),
        (convert.gpu_list, "-1", "'-1' is not the index"),
        (convert.gpu_list, "all", "'all' is not the index"),
        (binds, ["localhost:80", "LOCALHOST:80"], "'LOCALHOST:80' is the same address as 'localhost:80'"),
        (binds, ["a:x", "unix:"], "'x' is not a port.*'unix:' has no usable path"),
        (binds, [], "no address"),
        (binds, 8000, "'8000' is not an address; a port alone is written ':8000'"),
    ],
)
def test_refuses(converter: Converter, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        converter(value)


def test_a_long_value_is_cut_in_messages() -> None:
    with pytest.raises(ValueError) as caught:
        convert.whole()("x" * 1000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("Example.COM:80", ("example.com", 80)),
        ("localhost", ("localhost", 8000)),
        (":81", ("0.0.0.0", 81)),
        ("", ("0.0.0.0", 8000)),
        ("[::1]:82", ("::1", 82)),
        ("[::]", ("::", 8000)),
        ("tcp://h:1", ("h", 1)),
        ("h:0", ("h", 0)),
        ("h:65535", ("h", 65535)),
        ("unix:/run/x", "/run/x"),
        ("unix:///run/x", "/run/x"),
        ("unix:x.sock", "x.sock"),
        ("unix:@name", "@name"),
        ("fd://3", 3),
    ],
)
def test_addresses(spec: str, expected: object) -> None:
    assert address(spec) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("h:65536", "'65536' is not a port"),
        ("h:-1", "'-1' is not a port"),
        ("h:", "'' is not a port"),
        ("h:٣", "is not a port"),
        ("a:80:90", r"several colons; an IPv6 address is written \[::1\]:8000"),
        ("[::1", "is not an IPv6 address"),
        ("[::1]8", "is not an IPv6 address"),
        ("[]:80", "is not an IPv6 address"),
        ("/run/x", "written unix:/path"),
        ("unix:", "no usable path"),
        ("unix:@", "no usable path"),
        ("unix:/" + "x" * 107, "at most 107 bytes"),
        ("fd://x", "'x' is not the number"),
        ("fd://-1", "'-1' is not the number"),
    ],
)
def test_bad_addresses(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        address(spec)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_ip_address_comes_back(ip: Any, port: int) -> None:
    host = f"[{ip}]" if ip.version == 6 else str(ip)
    assert address(f"{host}:{port}") == (str(ip), port)


@given(st.text(max_size=40))
def test_an_address_is_understood_or_refused_by_name(spec: str) -> None:
    try:
        address(spec)
    except ValueError as exc:
        assert str(exc).startswith(convert.show(spec))


_keys = st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True)
_values = st.text(st.characters(blacklist_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029,=\0"), max_size=10)


@given(st.dictionaries(_keys, _values.map(str.strip), min_size=1))
def test_assignments_come_back_from_both_separators(wanted: dict[str, str]) -> None:
    items = [f"{key}={value}" for key, value in wanted.items()]
    assert convert.split_assignments(",".join(items)) == items
    assert convert.split_assignments("\n".join(items) + "\n") == items


def test_commas_inside_an_assignment_belong_to_it() -> None:
    assert convert.split_assignments("HOSTS=a,b,c, DEBUG=1") == ["HOSTS=a,b,c", "DEBUG=1"]
    assert convert.split_assignments("A=1,2\nB=x=y,C=3") == ["A=1,2", "B=x=y,C=3"]


@given(st.integers(0, 0o777))
def test_modes_come_back_from_octal(mode: int) -> None:
    assert convert.file_mode(f"{mode:o}") == mode
    assert convert.file_mode(f"0{mode:o}") == mode
    assert convert.umask(f"0{mode:o}") == mode


def test_own_user_by_name() -> None:
    assert convert.user(pwd.getpwuid(os.geteuid()).pw_name) == os.geteuid()


# --- hooks ------------------------------------------------------------------------------------------------------------


class Hooks:
    def method(self, server: object) -> None: ...

    @staticmethod
    def static(server: object) -> None: ...

    @classmethod
    def of_class(cls, server: object) -> None: ...

    def __call__(self, server: object) -> None: ...


def two(server: object, worker: object) -> str:
    return "two"


def keyword_needed(server: object, *, worker: object) -> None: ...


@pytest.mark.parametrize(
    ("function", "counts"),
    [
        (two, {2}),
        (lambda server, worker=None: None, {1, 2}),
        (lambda *args: None, {0, 1, 2, 3, 4}),
        (lambda server, *rest: None, {1, 2, 3, 4}),
        (lambda server, *, quiet=True: None, {1}),
        (keyword_needed, set()),
        (Hooks().method, {1}),
        (Hooks.static, {1}),
        (Hooks.of_class, {1}),
        (Hooks(), {1}),
        (partial(two, None), {1}),
    ],
)
def test_takes_says_what_can_be_called(function: Callable[..., object], counts: set[int]) -> None:
    assert {count for count in range(5) if takes(function, count)} == counts


def test_a_hook_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the function two cannot be called as when_ready\(server\)"):
        SETTINGS["when_ready"].convert(two)
    with pytest.raises(ValueError, match="3 cannot be called"):
        SETTINGS["when_ready"].convert(3)


def test_a_hook_may_be_a_dotted_path() -> None:
    assert SETTINGS["pre_fork"].convert("os.path.join") is os.path.join


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "is not a dotted path"),
        ("no.such.module", "cannot be imported: No module named 'no'"),
        ("os.path.nothing", "the module os.path has no nothing"),
    ],
)
def test_a_bad_dotted_path_says_what_is_missing(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SETTINGS["pre_fork"].convert(path)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_post_request_gets_as_many_arguments_as_it_takes(count: int) -> None:
    seen: list[tuple[object, ...]] = []
    functions: dict[int, Callable[..., object]] = {
        2: lambda worker, req: seen.append((worker, req)),
        3: lambda worker, req, environ: seen.append((worker, req, environ)),
        4: lambda worker, req, environ, resp: seen.append((worker, req, environ, resp)),
    }
    converted = SETTINGS["post_request"].convert(functions[count])
    converted(1, 2, 3, 4)
    assert seen == [(1, 2, 3, 4)[:count]]


def test_post_request_with_one_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be called as post_request"):
        SETTINGS["post_request"].convert(lambda worker: None)
