"""Who types an option of uvicorn's is told what says the same here."""

import pytest

from sdserve.config.commandline import parse
from sdserve.config.schema import SETTINGS
from sdserve.config.uvicorn import instead_of


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--host", "0.0.0.0"], "--host is an option of uvicorn's; here: -b host:port, "),
        (["--lifespan", "on"], "--lifespan is an option of uvicorn's; here: --asgi-lifespan"),
        (["--ws-max-size=5"], "--ws-max-size is an option of uvicorn's; here: --websocket-max-message-size, "),
        (["--loop", "uvloop"], "--loop is an option of uvicorn's; here: --asgi-loop"),
        (["--factory"], "--factory is an option of uvicorn's; here: 'main:create_app()', with"),
    ],
)
def test_an_option_of_uvicorns(argv: list[str], said: str) -> None:
    [problem] = parse([*argv, "main:app"], SETTINGS).problems
    assert problem.startswith(said)


@pytest.mark.parametrize(
    "argv", [["--root-path", "/x"], ["--limit-concurrency", "5"], ["--backlog=9"], ["--asgi-lo=auto"]]
)
def test_ours_and_their_prefixes_stay_ours(argv: list[str]) -> None:
    assert parse([*argv, "main:app"], SETTINGS).problems == []


@pytest.mark.parametrize("flag", ["--hosts", "--", "--w", "--asgi-loop", ""])
def test_what_uvicorn_does_not_have(flag: str) -> None:
    assert instead_of(flag) == ""
