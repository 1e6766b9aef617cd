"""What a running service has counted, read from outside: the memory of its counters, by a process that has it open."""

import os

from sdserve.process.counter_memory import CounterMemory
from sdserve.process.counters import Totals


def counters(pid: int) -> CounterMemory:
    """The memory that the process `pid`, a master, has open. To be closed."""
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        try:
            if os.readlink(path).startswith("/memfd:sdserve-counters"):
                return CounterMemory.found(os.open(path, os.O_RDWR))
        except FileNotFoundError:  # it was closed meanwhile
            continue
    raise AssertionError(f"process {pid} has no memory of counters open")


def totals(pid: int) -> Totals:
    memory = counters(pid)
    try:
        return memory.totals()
    finally:
        memory.close()
