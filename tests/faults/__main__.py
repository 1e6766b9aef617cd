"""`python -m tests.faults worker|leaving|master [OPTIONS]`: a whole campaign; ends with 1 when a promise was broken."""

import argparse
import sys
import time

from tests.faults.leaving import LeavingCampaign
from tests.faults.master import MasterCampaign
from tests.faults.points import ERRNOS, points
from tests.faults.strace import Fault
from tests.faults.worker import Tally, WorkerCampaign


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("what", choices=("worker", "leaving", "master"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--calls", help="only these, with commas (default: every one that is made)")
    parser.add_argument("--errnos", default=",".join(ERRNOS))
    parser.add_argument("--when", default="1", help="which occurrences, with commas: 1 the first, 2+3 the 2nd, 5th, …")
    options = parser.parse_args()
    began = time.monotonic()
    tally = master(options) if options.what == "master" else worker(options)
    print(f"{tally} in {time.monotonic() - began:.0f} s; concerned by call: {dict(tally.refused)}")
    return 1 if tally.broken else 0


def worker(options: argparse.Namespace) -> Tally:
    kind = LeavingCampaign if options.what == "leaving" else WorkerCampaign
    with kind(options.threads) as campaign:
        calls = options.calls.split(",") if options.calls else campaign.calls()
        return campaign.run(chosen(calls, options))


def master(options: argparse.Namespace) -> Tally:
    with MasterCampaign() as campaign:
        for verb in campaign.VERBS:
            calls = options.calls.split(",") if options.calls else list(campaign.calls(verb))
            print(verb, flush=True)
            campaign.run(verb, chosen(calls, options))
        return campaign.tally


def chosen(calls: list[str], options: argparse.Namespace) -> list[Fault]:
    faults = list(points(calls, options.errnos.split(","), options.when.split(",")))
    print(f"{len(calls)} system calls: {', '.join(calls)}: {len(faults)} faults", flush=True)
    return faults


if __name__ == "__main__":
    sys.exit(main())
