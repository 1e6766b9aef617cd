"""What a tree of processes used, from /proc (proc_pid_stat(5), proc_pid_smaps(5)).

Processor time is that of every process in the tree plus what their waited-for children used, so a worker that is
replaced during a run is counted. Memory is PSS: a page that N processes share counts for 1/N in each, so the sum over
a tree of forked workers is what the tree really takes.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Stat:
    """The fields of /proc/PID/stat that matter here. Times in seconds."""

    parent: int
    cpu: float
    """utime + stime."""
    children: float
    """cutime + cstime: of children that were waited for."""


def parse_stat(text: str, tick: float = TICK) -> Stat:
    """Reads /proc/PID/stat. The command may hold spaces and parentheses, so fields are counted behind the last one."""
    fields = text[text.rindex(")") + 2 :].split()
    utime, stime, cutime, cstime = (int(field) for field in fields[11:15])
    return Stat(int(fields[1]), (utime + stime) * tick, (cutime + cstime) * tick)


def tree(root: int, stats: Mapping[int, Stat]) -> list[int]:
    """`root` and all that descend from it."""
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        children.setdefault(stat.parent, []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def snapshot(root: int) -> dict[int, Stat]:
    """The processes of a tree as they are now."""
    stats = {}
    for path in PROC.iterdir():
        if path.name.isdigit():
            try:
                stats[int(path.name)] = parse_stat((path / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended meanwhile
    return {pid: stats[pid] for pid in tree(root, stats) if pid in stats}


def cpu(before: Mapping[int, Stat], after: Mapping[int, Stat]) -> float:
    """Seconds of processor time that a tree used between two snapshots of it."""
    return sum(s.cpu + s.children for s in after.values()) - sum(s.cpu + s.children for s in before.values())


def busiest(root: int, before: Mapping[int, Stat], after: Mapping[int, Stat]) -> float:
    """The largest share of the processor time of all processes below `root` that one of them had; 1.0 for one."""
    used = [stat.cpu - (before[pid].cpu if pid in before else 0) for pid, stat in after.items() if pid != root]
    return max(used) / sum(used) if sum(used) > 0 else 1.0


def parse_pss(text: str) -> int:
    """Bytes of `Pss:` in /proc/PID/smaps_rollup."""
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def pss(pids: Mapping[int, Stat]) -> int:
    """Bytes of memory that processes take together."""
    total = 0
    for pid in pids:
        try:
            total += parse_pss((PROC / str(pid) / "smaps_rollup").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
    return total


def switches(pid: int) -> int:
    """How often all threads of a process have gone to sleep and been woken: voluntary_ctxt_switches."""
    total = 0
    for status in (PROC / str(pid) / "task").glob("*/status"):
        lines = (line.partition(":") for line in status.read_text().splitlines())
        total += sum(int(value) for name, _, value in lines if name == "voluntary_ctxt_switches")
    return total
