"""System calls of a worker and of a master fail, one at a time, under clients; `python -m tests.faults` has them all.

Here each call of a worker fails in two ways: with what the kernel says when it runs short, and with what a peer or a
disk may do. Those of a master fail in the first.
"""

import shutil

import pytest

from tests.faults.leaving import LeavingCampaign
from tests.faults.master import MasterCampaign
from tests.faults.points import points
from tests.faults.strace import CannotTrace
from tests.faults.worker import WorkerCampaign

SHORT, BROKEN = "ENOMEM", "EIO"

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]


@pytest.mark.parametrize("errno", [SHORT, BROKEN])
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    ("kind", "usual"),
    [
        (WorkerCampaign, {"accept4", "recvfrom", "sendto", "epoll_wait", "openat", "clone3"}),
        (LeavingCampaign, {"sendto", "sendmsg", "epoll_ctl", "epoll_wait"}),
    ],
    ids=["serves", "leaves"],
)
def test_a_worker_loses_nobody_but_who_is_concerned(
    kind: type[WorkerCampaign], usual: set[str], threads: int, errno: str
) -> None:
    with kind(threads) as campaign:
        try:
            calls = campaign.calls()
        except CannotTrace as refused:
            pytest.skip(f"no tracing here: {refused}")
        assert usual <= {"clone3" if call == "clone" else call for call in calls}
        tally = campaign.run(points(calls, [errno]))
    assert not tally.broken, "\n".join(tally.broken)
    assert tally.injected > len(calls) / 2


@pytest.mark.parametrize("verb", MasterCampaign.VERBS)
def test_a_master_goes_on_and_does_it_again(verb: str) -> None:
    with MasterCampaign() as campaign:
        try:
            calls = campaign.calls(verb)
        except CannotTrace as refused:
            pytest.skip(f"no tracing here: {refused}")
        tally = campaign.run(verb, points(calls, [SHORT]))
    assert not tally.broken, "\n".join(tally.broken)
    assert tally.injected > len(calls) / 2
