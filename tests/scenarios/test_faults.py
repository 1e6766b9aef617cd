"""System calls of a worker and of a master fail, one at a time, under clients; `python -m tests.faults` has them all.

Here each call fails in two ways: with what the kernel says when it runs short, and with what a peer or a disk may do.
"""

import shutil

import pytest

from tests.faults.master import MasterCampaign
from tests.faults.points import points
from tests.faults.strace import CannotTrace

SHORT = "ENOMEM"

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


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
