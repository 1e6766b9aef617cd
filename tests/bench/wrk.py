"""wrk as a function: what it is asked, and what it answers (wrk.lua prints it as JSON).

wrk is a C program with an event loop and leaves the cores to the server; one thread of it can saturate any server here.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.loads import Load

SCRIPT = Path(__file__).with_name("wrk.lua")
ERRORS = ("connect", "read", "write", "status", "timeout")
MARK = "RESULT "


class WrongAnswer(Exception):
    """A server did not answer as it should: its figures mean nothing."""


@dataclass(frozen=True)
class Result:
    """One run of wrk. Times in seconds."""

    requests: int
    seconds: float
    size: int
    """Bytes received."""
    p50: float
    p99: float
    errors: dict[str, int]
    """By kind, only those that happened; `status` are answers that are neither 2xx nor 3xx."""


def parse(output: str) -> Result:
    """The result in what wrk printed. Raises ValueError when there is none."""
    for line in output.splitlines():
        if line.startswith(MARK):
            found = json.loads(line.removeprefix(MARK))
            errors = {kind: found[kind] for kind in ERRORS if found[kind]}
            return Result(found["requests"], found["seconds"], found["bytes"], found["p50"], found["p99"], errors)
    raise ValueError(f"no result of wrk in: {output.strip()[-500:]}")


def check(result: Result, body: int) -> None:
    """Raises WrongAnswer when a request failed, or less came back than answers with `body` bytes each."""
    if result.errors:
        raise WrongAnswer(", ".join(f"{count} {kind} errors" for kind, count in result.errors.items()))
    if not result.requests:
        raise WrongAnswer("no request was answered")
    if result.size < result.requests * body:
        raise WrongAnswer(f"{result.requests} answers in {result.size} bytes: too short")


def begin(load: Load, url: str, seconds: float, connections: int = 0) -> subprocess.Popen[str]:
    """Starts wrk. `connections`: other than the load's. It takes whole seconds, at least one."""
    environ = os.environ | {"BENCH_BODY": str(load.body), "BENCH_CLOSE": "1" if load.close else "0"}
    environ["BENCH_TRAFFIC"] = load.traffic
    options = ["-t1", f"-c{connections or load.connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    return subprocess.Popen(
        ["wrk", *options, "-s", str(SCRIPT), url],
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def end(process: subprocess.Popen[str]) -> Result:
    """Waits for wrk. Raises ValueError when it failed."""
    output, _ = process.communicate()
    return parse(output)
