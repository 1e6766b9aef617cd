"""What a worker that could not boot means for the service: a pure decision.

The first start fails at once, so that the operator sees why instead of a loop. A reload is rolled back. Afterwards the
service goes on with the workers that it has and tries again, ever more slowly; when nobody serves and nothing can boot
any more, it ends, so that systemd's Restart= and StartLimit= take over. A boot that somebody outside killed, such as
the OOM killer, says nothing about the application, and is tried again a few times first.
"""

from enum import Enum

from sdserve.arbiter.lifecycle import LEAVING, Master

BOOT_KILLS = 3  # boots ended by a signal from outside before they count as failed
LAST_BOOTS = 5  # failed rounds of boots in a row, with nobody serving, before the service ends


class Verdict(Enum):
    HALT = "halt"
    ROLL_BACK = "roll back"
    RETRY = "retry"
    IGNORE = "ignore"


def on_no_room(state: Master, rounds: int) -> Verdict:
    """Decides after a worker could not be forked, `rounds` times in a row: whoever waits is told, others try again."""
    if rounds < LAST_BOOTS:
        return Verdict.RETRY
    return {Master.STARTING: Verdict.HALT, Master.RELOADING: Verdict.ROLL_BACK}.get(state, Verdict.RETRY)


def on_failed_boot(state: Master, *, newest: bool, kills: int, rounds: int, some_serve: bool) -> Verdict:
    """Decides after a boot failed.

    newest: the worker was of the generation that the goal names
    kills: boots in a row that a signal from outside ended, this one included; 0 if it ended otherwise
    rounds: of boots in a row in which workers died early, this one included
    some_serve: a worker serves
    """
    if state in LEAVING or state is Master.DOWN or not newest:
        return Verdict.IGNORE
    if 0 < kills < BOOT_KILLS:
        return Verdict.RETRY
    if state is Master.STARTING:
        return Verdict.HALT
    if state is Master.RELOADING:
        return Verdict.ROLL_BACK
    if rounds >= LAST_BOOTS and not some_serve:
        return Verdict.HALT
    return Verdict.RETRY
