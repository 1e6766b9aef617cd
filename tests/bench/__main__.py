"""Compares sdserve with its peers: the same application, the same load, in turn, several rounds, medians.

    tests/bench/run                               everything; sets up what is missing (wrk, libev, the peers)
    tests/bench/run --loads tiny,post --peers granian,bjoern --rounds 5 --seconds 10
    python -m tests.bench ...                     the same where wrk is installed

--loads, --peers  names from loads.py and peers.py, separated by commas; sdserve is always measured, with 1 thread where
                  the load allows that
--rounds          how often each pair is measured; rounds are interleaved, so that what disturbs the machine for a while
                  disturbs all (default: 3)
--seconds         how long each measurement takes, after a second of warm-up (default: 5)
--venv            where the peers are installed (default: sdserve-bench/venv below $XDG_CACHE_HOME or ~/.cache)

^C ends the measurements and prints what there is. Tables in Markdown go to standard output, progress to standard error.
The exit code is 1 when an answer of sdserve was wrong. What the figures mean is in docs/measurements/performance.md. No
test runs this, and no test is about time.
"""

import argparse
import os
import platform
import resource
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TypeVar

from tests.bench.install import install
from tests.bench.loads import LOADS, Load
from tests.bench.measure import Run, measure
from tests.bench.peers import PEERS, Peer
from tests.bench.report import Outcome, chapter, spread
from tests.bench.wrk import WrongAnswer

FILES = 8192  # descriptors that servers and clients may need
Named = TypeVar("Named", Load, Peer)
Found = dict[tuple[str, str], tuple[list[Run], list[str]]]  # by load and peer: measurements, and what went wrong


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=lines[0])
    parser.add_argument("--loads", help="of " + ",".join(load.name for load in LOADS))
    parser.add_argument("--peers", help="of " + ",".join(peer.name for peer in PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--venv", type=Path, default=cache / "sdserve-bench" / "venv")
    return parser.parse_args(argv)


def chosen(table: Sequence[Named], names: str | None) -> list[Named]:
    """The rows of a table with these names, in the table's order; all when there are no names. Raises ValueError."""
    if names is None:
        return list(table)
    wanted = names.split(",")
    if unknown := set(wanted) - {row.name for row in table}:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(row.name for row in table)}")
    return [row for row in table if row.name in wanted]


def turns(peers: Sequence[Peer], number: int) -> list[Peer]:
    """The order of one round: each begins with another server, so none always follows the same one."""
    start = number % len(peers) if peers else 0
    return [*peers[start:], *peers[:start]]


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(sys.argv[1:] if argv is None else argv)
    try:
        loads = chosen(LOADS, args.loads)
        peers = [p for p in PEERS if not p.package or p in chosen(PEERS, args.peers)]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if not shutil.which("wrk"):
        print("wrk is not installed: tests/bench/run installs it, or apt-get install wrk", file=sys.stderr)
        return 2
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    needed = [package for load in loads for package in load.packages]
    versions, missing = install(args.venv, peers, needed)
    loads = [load for load in loads if not missing.keys() & set(load.packages)]
    peers = [peer for peer in peers if peer.package not in missing]
    _print_header(versions, missing, args.rounds, args.seconds)
    return run(loads, peers, args.venv / "bin", args.rounds, args.seconds)


def run(loads: Sequence[Load], peers: Sequence[Peer], bin: Path, rounds: int, seconds: float) -> int:
    """Measures all pairs, round by round, then prints the tables; at ^C of what there is. 1 when sdserve failed."""
    found: Found = {}
    try:
        for number in range(rounds):
            for load in loads:
                for peer in turns([p for p in peers if p.fits(load)], number):
                    said = _measure(found, peer, load, bin, seconds)
                    print(f"round {number + 1}, {load.name}, {peer.name}: {said}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("Interrupted: these are the rounds until then.\n")
    spreads = []
    wrong = False
    for load in loads:
        outcomes = {p.name: Outcome(*found[load.name, p.name]) for p in peers if (load.name, p.name) in found}
        print(chapter(load, outcomes))
        spreads += [spread(outcome.runs) for outcome in outcomes.values() if outcome.runs]
        wrong |= any(outcomes[p.name].failures for p in peers if p.name in outcomes and not p.package)
    if spreads:
        print(f"The rates of one pair's rounds lay {median(spreads):.0%} of their median apart (median of all pairs).")
    return int(wrong)


def _measure(found: Found, peer: Peer, load: Load, bin: Path, seconds: float) -> str:
    """One measurement, added to what was found; in a few words what came of it."""
    runs, failures = found.setdefault((load.name, peer.name), ([], []))
    try:
        result = measure(peer, load, bin, seconds)
    except (WrongAnswer, ValueError) as error:
        failures.append(str(error))
        return f"failed: {error}"
    runs.append(result)
    return f"{result.rate:,.0f}/s, {result.cpu * 1e6:.0f} us"


def _print_header(versions: dict[str, str], missing: dict[str, str], rounds: int, seconds: float) -> None:
    print(f"{platform.python_implementation()} {platform.python_version()}, Linux {platform.release()}, ", end="")
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the start.")
    print(f"Medians of {rounds} rounds, {seconds:g} s each.", end=" ")
    print("Peers:", ", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    for package, why in missing.items():
        print(f"Left out, could not be installed: {package} ({why}).")
    print()


if __name__ == "__main__":
    sys.exit(main())
