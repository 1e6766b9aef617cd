"""The commands of a running service, as one table.

Everything else is derived from it: what the master accepts and with which parameters, sdservectl's command line, the
Varlink interface (interface.py), the reference page and the man page (docs/generate.py).
"""

from typing import TYPE_CHECKING

from sdserve.immutable import Immutable
from sdserve.status import Figures, Status, WorkerStacks

if TYPE_CHECKING:
    from typing import Any

MOST_WORKERS = 1024  # for `scale`: more is taken for a slip of the finger
LONGEST = 7 * 24 * 3600.0  # seconds that anybody may want to wait


class Field(Immutable):
    """A parameter, or a field of an answer.

    kind: its type; `X | None` may be left out
    flag: sdservectl's option, "" for a positional argument
    metavar: the name of its value in --help
    least, most: the bounds of a number
    among: the words that a string may be; () for any
    """

    name: str
    kind: "Any"
    about: str
    flag: str = ""
    metavar: str = ""
    least: float = 0
    most: float = LONGEST
    among: tuple[str, ...] = ()

    @property
    def optional(self) -> bool:
        return type(None) in getattr(self.kind, "__args__", ())

    @property
    def expected(self) -> str:
        """What it takes, in words."""
        kinds = getattr(self.kind, "__args__", (self.kind,))
        if self.among:
            return f"one of {', '.join(self.among)}"
        if int in kinds or float in kinds:
            return f"{'a whole number' if int in kinds else 'a number'} from {self.least:g} to {self.most:g}"
        return "true or false" if bool in kinds else "a text"

    def wrong(self, value: object) -> bool:
        """Whether `value`, as JSON gave it, is not what this field takes."""
        if value is None:
            return not self.optional
        kinds = getattr(self.kind, "__args__", (self.kind,))
        if isinstance(value, bool):
            return bool not in kinds
        if isinstance(value, int | float):
            fits = float in kinds or (int in kinds and isinstance(value, int))
            return not (fits and self.least <= value <= self.most)  # NaN is nowhere
        if isinstance(value, str):
            return str not in kinds or bool(self.among and value not in self.among)
        return True


class Failure(Immutable):
    """A way in which a command can fail. Each says why in a field `text`, too."""

    name: str
    about: str
    fields: tuple[Field, ...] = ()


class Command(Immutable):
    """One command. Each answer has a field `text`, one line for people, besides what it `gives`.

    streams: "may": asked with `more` (Varlink), or --watch (sdservectl), further answers follow; "always": it has to be
    asked so; "before": asked with `more`, what it waits for is told before the answer; "" for one answer
    shows: options of sdservectl itself, which the master does not hear of
    hidden: sdservectl asks it by itself
    """

    name: str
    about: str
    takes: tuple[Field, ...] = ()
    gives: tuple[Field, ...] = ()
    fails: tuple[str, ...] = ()
    streams: str = ""
    shows: tuple[Field, ...] = ()
    details: str = ""
    hidden: bool = False

    def misfit(self, parameters: "dict[str, Any]") -> tuple[str, str]:
        """The name of a parameter that is missing, wrong, or unknown, and the reason; ("", "") if all are right."""
        known = {field.name: field for field in self.takes}
        for name in parameters:
            if name not in known:
                return name, f"{self.name} has no parameter {name!r}"
        for name, field in known.items():
            if field.wrong(parameters.get(name)):
                return name, f"{self.name}: {name} has to be {field.expected}"
        return "", ""


INTERVAL = Field("interval", float | None, "seconds between two looks (default: 1)", "--interval", "SECONDS", 0.1)
JSON = Field("json", bool, "all of it, as JSON", "--json")
STATES = ("serving", "draining", "stopped")

FAILURES = (
    Failure("Refused", "The command is understood, and cannot be done now."),
    Failure("ReloadFailed", "The new generation did not serve; the old one serves on."),
    Failure("UpgradeFailed", "The new master did not serve; the old one serves on."),
    Failure("TakenOver", "Another master has taken over: ask again, the same socket leads there."),
    Failure("NoSuchWorker", "No worker has this slot.", (Field("slot", int, "the slot that was asked for"),)),
    Failure("TooLate", "The time that was given is over."),
    Failure(
        "TooSlow",
        "The client does not read what it follows, and is told nothing more.",
        (Field("lost", int, "how many messages it has missed"),),
    ),
    Failure(
        "TooMany", "So many clients wait for answers that one more is not heard; whoever follows a stream makes room."
    ),
    Failure("Failed", "The master has failed at it in a way that nobody foresaw; its log has the traceback."),
)

COMMANDS = (
    Command(
        "status",
        "what the service is doing, worker by worker",
        takes=(INTERVAL,),
        gives=(Field("status", Status, "the whole state"),),
        fails=("TooSlow", "TakenOver"),
        streams="may",
        shows=(JSON, Field("watch", bool, "again and again, until it is interrupted", "--watch")),
    ),
    Command(
        "top",
        "workers, requests, latency and queues, on the whole terminal",
        takes=(INTERVAL,),
        gives=(Field("figures", Figures, "what there is now, and all that was counted"),),
        fails=("TooSlow", "TakenOver"),
        streams="may",
        details="q ends it. Rates and quantiles are those of the last interval: a quantile is the upper end of the "
        "histogram's bucket. While somebody follows, the master looks at shared memory, and asks a worker that has "
        "been busy for more than a second which requests last: at most 8 of a worker, and 32 in all. sdservectl itself "
        "reads the memory of workers, as far as the kernel lets it. Without a terminal that terminfo(5) knows it "
        "exits with 2.",
    ),
    Command(
        "reload",
        "new configuration and code; returns when it serves, or was rolled back",
        gives=(Field("warnings", tuple[str, ...] | None, "what the operator may see differently, a line each"),),
        fails=("ReloadFailed", "TakenOver"),
    ),
    Command(
        "upgrade",
        "new master; returns when it took over, or was backed out",
        fails=("UpgradeFailed", "Refused"),
        streams="before",
        details="Where an old master still finishes its requests, that one's end comes first: sdservectl says whose, "
        "and how long that may take.",
    ),
    Command(
        "scale",
        "another number of workers, as the signals TTIN and TTOU give one",
        takes=(Field("workers", int, "how many workers", "", "N", 1, MOST_WORKERS),),
        gives=(Field("wanted", int, "how many are wanted now"), Field("before", int, "how many were before")),
        fails=("Refused",),
        details="The number holds until a reload or an upgrade reads the configuration again, as in gunicorn. It is "
        "answered at once: `sdservectl wait` returns when all of them serve.",
    ),
    Command(
        "stacks",
        "where the threads of a worker are, or of all workers",
        takes=(Field("slot", int | None, "the slot of one worker (default: all)", "", "SLOT", 0, 1 << 32),),
        gives=(Field("workers", tuple[WorkerStacks, ...], "each worker"),),
        fails=("NoSuchWorker",),
        shows=(JSON,),
        details="Each worker writes them itself, from a signal handler that needs no interpreter: also while C code "
        "holds the GIL, and while it answers nobody. At most 100 threads are shown, the newest first, and 100 calls of "
        "each. A worker that was stopped (SIGSTOP) cannot write, is named as such and not waited for.",
    ),
    Command(
        "drain",
        "leaves a load balancer in order; returns when no connection is left",
        takes=(
            Field(
                "seconds",
                float | None,
                "how long health checks say `drain` while everything is served as ever (default: 10)",
                "--for",
                "SECONDS",
            ),
            Field("stop", bool | None, "then stop the service", "--stop"),
        ),
        gives=(Field("connections", int, "how many are left, when graceful_timeout was over"),),
        fails=("Refused",),
        details="First everything is served as ever, and health checks say `drain`, for as long as that was asked for. "
        "Then every answer carries Connection: close, and idle connections are closed, each after a last look for a "
        "request. It goes on until `undrain`, or a stop, whatever becomes of this command. New connections are served "
        "all the while. Asked again, it begins anew; a stop that somebody has asked for stays until `undrain`.",
    ),
    Command(
        "undrain",
        "takes a drain back",
        fails=("Refused",),
        details="Refused once the service stops, or is handed over.",
    ),
    Command(
        "events",
        "follows what happens, a line for each event",
        gives=(
            Field("event", str, "its name"),
            Field("at", float, "when, in seconds of the machine's monotonic clock"),
            Field("pid", int | None, "the worker's, or the other master's"),
            Field("slot", int | None, "the worker's"),
        ),
        fails=("TooSlow", "TakenOver"),
        streams="always",
        shows=(Field("json", bool, "each event as JSON, on a line", "--json"),),
        details="It goes on until it is interrupted, or the service ends; after an upgrade it follows the new master.",
    ),
    Command(
        "wait",
        "until the service is in a state, for scripts",
        takes=(
            Field(
                "state",
                str | None,
                "serving (the default: as many workers as are wanted serve, and no reload or upgrade is under way), "
                "draining, or stopped (nobody answers any more)",
                "",
                "STATE",
                among=STATES,
            ),
            Field("seconds", float | None, "", "--timeout", "SECONDS"),
        ),
        gives=(Field("status", Status, "the whole state"),),
        fails=("TooLate", "TakenOver"),
        details="It waits for a service that has not been started, too. Without --timeout it waits for ever.",
    ),
    Command(
        "environment",
        "digests of what the service was started with",
        gives=(Field("environment", dict, "a digest for each variable"),),
        hidden=True,
    ),
)


def named(name: str) -> Command:
    """The command of this name. Raises KeyError."""
    return BY_NAME[name]


BY_NAME = {command.name: command for command in COMMANDS}
