"""The command line's grammar."""

import pytest

from sdserve.config import SETTINGS
from sdserve.config.commandline import parse
from sdserve.config.setting import Source


def values(*argv: str) -> dict[str, object]:
    parsed = parse(argv, SETTINGS)
    assert parsed.problems == []
    return {name: given.value for name, given in parsed.given.items()}


def problems(*argv: str) -> list[str]:
    return parse(argv, SETTINGS).problems


@pytest.mark.parametrize(
    "argv",
    [
        ("-w", "4"),
        ("-w4",),
        ("-w=4",),
        ("--workers", "4"),
        ("--workers=4",),
        ("-w", "2", "-w", "4"),
    ],
)
def test_ways_to_give_a_value(argv: tuple[str, ...]) -> None:
    assert values(*argv) == {"workers": "4"}


def test_short_flags_can_be_bundled() -> None:
    assert values("-Dw4") == {"daemon": True, "workers": "4"}


def test_long_flags_can_be_shortened_while_it_is_clear_what_they_mean() -> None:
    assert values("--graceful", "5") == {"graceful_timeout": "5"}
    assert problems("--work", "3", "a:b") == ["--work is ambiguous: it could be --workers or --worker-class"]


def test_underscores_in_flags_are_dashes() -> None:
    assert values("--limit-request-field_size", "10") == {"limit_request_field_size": "10"}


def test_repeatable_flags_add_up() -> None:
    assert values("-b", "a:1", "--bind=b:2") == {"bind": ["a:1", "b:2"]}
    assert values("-e", "A=1,2", "-e", "B=") == {"raw_env": ["A=1,2", "B="]}


def test_application_and_options_in_any_order() -> None:
    assert values("a:b", "-w", "2") == values("-w", "2", "a:b") == {"wsgi_app": "a:b", "workers": "2"}


def test_two_dashes_end_the_options() -> None:
    assert values("-w", "2", "--", "-odd:app") == {"workers": "2", "wsgi_app": "-odd:app"}


def test_a_dash_is_a_value() -> None:
    assert values("--access-logfile", "-", "a:b") == {"accesslog": "-", "wsgi_app": "a:b"}


def test_a_negative_number_is_a_value_so_that_its_converter_can_refuse_it() -> None:
    assert values("--timeout", "-1") == {"timeout": "-1"}


def test_flags_without_value_can_be_negated() -> None:
    assert values("--preload") == {"preload_app": True}
    assert values("--no-preload") == {"preload_app": False}
    assert values("--preload", "--no-preload") == {"preload_app": False}


def test_an_optional_value_is_not_the_application() -> None:
    assert values("--proxy-protocol", "a:b") == {"proxy_protocol": "auto", "wsgi_app": "a:b"}
    assert values("--proxy-protocol", "v2", "a:b") == {"proxy_protocol": "v2", "wsgi_app": "a:b"}
    assert values("--proxy-protocol=v1", "a:b") == {"proxy_protocol": "v1", "wsgi_app": "a:b"}
    assert values("a:b", "--proxy-protocol") == {"proxy_protocol": "auto", "wsgi_app": "a:b"}


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (("--wrokers", "4"), "--wrokers is not an option; did you mean --workers?"),
        (("--bogus", "4"), "--bogus is not an option"),
        (("-Z",), "-Z is not an option"),
        (("-w",), "-w needs a value: -w N"),
        (("-b", "--preload"), "-b needs a value: -b ADDRESS"),
        (("--preload=1",), "--preload takes no value, '1' was given"),
        (("--no-preload=1",), "--no-preload takes no value, '1' was given"),
        (("a:b", "c:d"), "'c:d' is one argument too many: the application is 'a:b'"),
    ],
)
def test_problems_name_the_argument(argv: tuple[str, ...], problem: str) -> None:
    assert problems(*argv) == [problem]


@pytest.mark.parametrize(
    ("argv", "setting", "value"),
    [
        (("--certfile", "x.pem", "a:b"), "certfile", "x.pem"),
        (("--certfile=x.pem", "a:b"), "certfile", "x.pem"),
        (("--reload", "a:b"), "reload", True),
        (("-R", "a:b"), "enable_stdio_inheritance", True),
        (("-RDw2", "a:b"), "enable_stdio_inheritance", True),
        (("--log-syslog-to", "udp://h", "a:b"), "syslog_addr", "udp://h"),
        (("--no-sendfile", "a:b"), "sendfile", False),
        (("--no-control-socket", "a:b"), "control_socket_disable", True),
        (("--worker_connections", "10", "a:b"), "worker_connections", "10"),
    ],
)
def test_gunicorns_flags_are_known_with_their_values(argv: tuple[str, ...], setting: str, value: object) -> None:
    parsed = parse(argv, SETTINGS)
    assert parsed.problems == []
    assert parsed.given[setting].value == value
    assert parsed.given["wsgi_app"].value == "a:b"


def test_one_of_gunicorns_flags_may_lack_its_value_like_any_other() -> None:
    assert problems("--worker-tmp-dir") == ["--worker-tmp-dir needs a value"]


def test_all_problems_are_found_in_one_pass() -> None:
    assert len(problems("--bnd", "x", "--preload=1", "--keyfile", "k", "-Z", "a:b", "c:d")) == 4


@pytest.mark.parametrize(
    ("argv", "wants"),
    [
        (["-h"], "help"),
        (["--help", "-v"], "help"),
        (["-w", "2", "--version"], "version"),
        (["-v"], "version"),
        ([], ""),
    ],
)
def test_help_and_version(argv: list[str], wants: str) -> None:
    assert parse(argv, SETTINGS).wants == wants


def test_arguments_of_the_environment_say_so() -> None:
    parsed: Source = parse(["-w", "x", "--zzz"], SETTINGS, "environment SDSERVE_CMD_ARGS")
    assert parsed.problems == ["SDSERVE_CMD_ARGS: --zzz is not an option"]
    assert parsed.given["workers"].problem("workers", "bad") == "SDSERVE_CMD_ARGS: -w: bad"
    assert parsed.given["workers"].source == "environment SDSERVE_CMD_ARGS"
