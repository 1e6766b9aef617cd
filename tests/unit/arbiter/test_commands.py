"""Commands of the control socket: who waits for what, and what is kept of those that have gone."""

from collections.abc import Callable
from weakref import ref

import pytest

from sdserve.arbiter.call import Call, Message
from sdserve.arbiter.commands import Commands
from sdserve.arbiter.lifecycle import LEAVING, Master
from tests.unit.arbiter.services import service


@pytest.fixture
def commands() -> Commands:
    def nothing() -> None: ...

    return Commands(service(), nothing, nothing, lambda: "", lambda: "", lambda size: None, lambda: False, nothing)


@pytest.mark.parametrize(("name", "parameters"), [("events", {}), ("wait", {"seconds": 3600.0})])
def test_nothing_is_kept_of_clients_that_have_gone(
    commands: Commands, name: str, parameters: dict[str, object]
) -> None:
    """Monitors follow a service for a moment, again and again, while nothing happens to it."""

    def asked() -> Call:
        call = Call(lambda message: True, parameters, more=True)
        commands.table()[name](call)
        return call

    first = asked()
    gone = ref(first)
    first.over = True  # as its client does when it ends
    del first
    kept = asked()
    assert gone() is None
    assert not kept.over


@pytest.mark.parametrize("state", LEAVING)
def test_no_drain_is_taken_back_of_a_service_that_leaves(commands: Commands, state: Master) -> None:
    said: list[Message] = []

    def say(message: Message) -> bool:
        said.append(message)
        return False

    service = commands._service
    service.draining, service.state = True, state
    commands.table()["undrain"](Call(say))
    assert [(each.failure, each.text) for each in said] == [("Refused", f"The server is {state.value}.")]
    assert service.draining


def test_who_waits_in_vain_is_told_what_it_waited_for(commands: Commands) -> None:
    said: list[Message] = []

    def say(message: Message) -> bool:
        said.append(message)
        return True

    call = Call(say, {"seconds": 0.0})
    commands.table()["wait"](call)
    commands._service.loop.turn()
    assert (said[0].failure, said[0].text.partition(":")[0]) == ("TooLate", "not serving within 0 s")


class Failing:
    """A client that cannot be told anything while `fails`."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.heard: list[str] = []
        self.call = Call(self.say)

    def say(self, message: Message) -> bool:
        if self.fails:
            raise MemoryError
        self.heard.append(message.failure or message.text.partition(":")[0])
        return False


Outcome = tuple[str, Callable[[Commands], object], str]
OUTCOMES: list[Outcome] = [
    ("reload", lambda commands: commands.reloaded(""), "reloaded"),
    ("reload", lambda commands: commands.reloaded("a mistake"), "ReloadFailed"),
    ("reload", lambda commands: commands.overtaken(), "TakenOver"),
    ("upgrade", lambda commands: commands.upgraded("", "upgraded: all is well"), "upgraded"),
    ("wait", lambda commands: commands.passed_on(), "TakenOver"),
]


@pytest.mark.parametrize(("name", "end", "heard"), OUTCOMES)
def test_one_who_cannot_be_told_keeps_nobody_from_hearing(
    commands: Commands, name: str, end: Callable[[Commands], object], heard: str
) -> None:
    """And hears it at the next attempt, as the only one."""
    _, second, _ = clients = [Failing(), Failing(fails=True), Failing()]
    for client in clients:
        commands.table()[name](client.call)
    commands.reload_begins()
    with pytest.raises(ExceptionGroup) as raised:
        end(commands)
    assert [type(error) for error in raised.value.exceptions] == [MemoryError]
    assert [client.heard for client in clients] == [[heard], [], [heard]]
    second.fails = False
    end(commands)
    end(commands)
    assert [client.heard for client in clients] == [[heard]] * 3
