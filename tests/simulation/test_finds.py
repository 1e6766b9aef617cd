"""What the simulation found, each as the shortest story that shows it."""

import errno
import os
import signal

import pytest

from sdserve.arbiter.call import Call, Message
from sdserve.arbiter.lifecycle import Master
from sdserve.process.scoreboard import HAND_ON, HAND_ON_CRASH, HAND_ON_RESTART, HAND_ON_SUCCESSORS
from sdserve.workers.words import READY
from tests.simulation.events import What
from tests.simulation.plan import EXCLUSIVE, Plan
from tests.simulation.world import World


def service(workers: int = 1, **plan: object) -> World:
    """A service that runs."""
    world = World(Plan(workers, **plan))  # type: ignore[arg-type]
    happen(world, *[What.READY] * workers)
    return world


def happen(world: World, *story: What | tuple[What, int]) -> None:
    """One thing after the other, and a turn of the masters after each."""
    for what in story:
        kind, who = what if isinstance(what, tuple) else (what, 0)
        assert world.happens(kind, who), f"{kind} meets nobody"
        world.settle()


def finish(world: World) -> None:
    world.calm_down()
    world.end()


def upgraded(world: World) -> None:
    """A new master is about to say that it serves."""
    happen(world, What.USR2, What.MASTER_STARTS)


def test_a_boot_that_only_kill_ends_has_failed() -> None:
    """It blocks in C code and never hears ABRT: the reload is rolled back, not tried for ever."""
    world = service()
    happen(world, What.HUP)
    master = world.masters[0].arbiter
    assert master is not None and master.service.state is Master.RELOADING
    world.happens(What.TIME, 0, 21.5)
    assert (master.service.state, master.service.goal.generation) == (Master.RUNNING, 1)
    assert "did not boot within 20 seconds" in master.service.trouble
    finish(world)


def test_no_hand_over_to_a_master_that_is_gone() -> None:
    """It served and said so, and died before the old one looked."""
    world = service()
    upgraded(world)
    old, new = world.masters
    world.happens(What.READY)
    world.turn(new)
    world.happens(What.MASTER_KILLED, 1)
    world.settle()
    assert old.arbiter is not None and old.arbiter.service.state is Master.RUNNING
    assert old.arbiter.service.trouble == "upgrade failed: it ended before it served"
    assert world.promises.main is old
    finish(world)


def test_a_client_that_cannot_be_told_keeps_nobody_from_the_hand_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """It followed the events of the old master, which had no memory for a last word."""
    world = service(systemd=True)
    upgraded(world)
    old, new = world.masters
    master = old.arbiter
    assert master is not None

    def no_room(message: Message) -> bool:
        if message.failure:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return True

    def hears(message: Message) -> bool:
        heard.append(message)
        return True

    heard: list[Message] = []
    master.commands.table()["events"](Call(hears, more=True))
    master.commands.table()["events"](Call(no_room, more=True))
    monkeypatch.setattr(world, "unforeseen", lambda: None)
    happen(world, What.READY)
    assert world.promises.main is new
    assert heard[-1].failure == "TakenOver"
    finish(world)


def test_no_stop_for_failed_boots_while_a_worker_says_that_it_serves() -> None:
    """The fifth boot in a row failed, and the word of another worker was still unread."""
    world = service(2)
    happen(world, What.DIES, What.DIES)
    for _ in range(2):
        happen(world, What.BOOT_FAILS)
        world.happens(What.TIME, 0, 10.0)
    first, second = (each for each in world.masters[0].workers if each.alive)
    for what in (What.BOOT_FAILS, What.READY):
        assert world.happens(what)
    assert not first.alive and second.booted
    world.settle()
    arbiter = world.masters[0].arbiter
    assert arbiter is not None and arbiter.service.state is Master.RUNNING and second.answers
    finish(world)


def test_a_master_that_is_alone_before_it_starts_keeps_its_pidfile() -> None:
    world = service(systemd=False)
    happen(world, What.USR2, What.MASTER_KILLED, What.MASTER_STARTS, What.READY)
    [master] = (each for each in world.masters if each.alive)
    assert world.files == {"/pid": master.pid}
    finish(world)


def test_a_promotion_during_a_reload_takes_the_name_in_force() -> None:
    """The pidfile of the configuration on trial is not claimed, for a roll-back would have to give it back."""
    world = service(systemd=False, manual=True)
    upgraded(world)
    happen(world, What.READY)
    world.happens(What.DEPLOY, 5)
    assert world.deployed[3] == "/other"
    happen(world, (What.HUP, 1), What.MASTER_KILLED)
    [master] = (each for each in world.masters if each.alive)
    happen(world, What.BOOT_FAILS)
    assert world.files["/pid"] == master.pid and "/other" not in world.files
    finish(world)


def test_a_promotion_on_a_full_disk_is_made_good_by_the_next_reload() -> None:
    """The file kept its .2 for good: at each reload it was there, and named its master."""
    world = service(systemd=False)
    upgraded(world)
    happen(world, What.DISK_FULL, What.READY, What.LEAVES)
    [master] = (each for each in world.masters if each.alive)
    assert world.files == {"/pid.2": master.pid}
    happen(world, What.HUP, What.READY, What.ACKNOWLEDGES)
    assert world.files == {"/pid": master.pid}
    finish(world)


@pytest.mark.parametrize("asked", [What.ASKED_TO_RELOAD, What.ASKED_TO_UPGRADE])
def test_sdservectl_hears_of_a_stop_in_the_middle(asked: What) -> None:
    world = service()
    happen(world, asked, What.TERM)
    assert world.masters[0].questions == 0
    finish(world)


def test_sdservectl_hears_of_a_stop_before_the_reload_began() -> None:
    world = World(Plan(1))
    happen(world, What.ASKED_TO_RELOAD, What.TERM)
    assert world.masters[0].questions == 0
    finish(world)


def test_a_generation_that_was_rejected_leaves_its_patience_behind() -> None:
    """Its deaths kept the old generation from booting again for up to half a minute."""
    world = service(2, surge=1)
    happen(world, What.HUP, What.READY)
    arbiter = world.masters[0].arbiter
    assert arbiter is not None
    while arbiter.service.state is Master.RELOADING:
        for each in [each for each in world.masters[0].workers if each.worker.generation == 2]:
            each.say(READY)
            each.end(9)
            world.settle()
        world.happens(What.TIME, 0, 1.0)
    assert arbiter.service.goal.generation == 1
    world.settle()
    assert [each.worker.generation for each in world.masters[0].workers if each.untold] == [1, 1]
    finish(world)


def test_one_worker_more_is_one_more_after_a_roll_back_too() -> None:
    world = service(2)
    happen(world, What.HUP, What.TTIN, What.BOOT_FAILS)
    arbiter = world.masters[0].arbiter
    assert arbiter is not None and (arbiter.service.goal.generation, arbiter.service.goal.size) == (1, 3)
    finish(world)


@pytest.mark.parametrize("again", [False, True])
def test_an_old_master_that_hangs_after_the_hand_over_does_not_last(again: bool) -> None:
    """It was stopped while it drained, and the unit could not be stopped any more: it is continued, or else killed."""
    world = service()
    upgraded(world)
    happen(world, What.READY)
    old, new = world.masters
    assert old.has_handed_over and world.promises.main is new
    happen(world, (What.MASTER_STOPPED, 0), (What.TERM, 1))
    if again:
        happen(world, (What.MASTER_STOPPED, 0))
    world.happens(What.TIME, 0, 40.0)
    assert not old.alive and old.status == (signal.SIGKILL if again else 0)
    assert not new.alive and new.status == 0


def test_a_new_master_that_dies_after_the_hand_over_does_not_call_the_old_one_back() -> None:
    """Without systemd nobody starts it again; the old one has told its workers to leave already."""
    world = service(systemd=False)
    upgraded(world)
    happen(world, What.READY, (What.MASTER_KILLED, 1))
    old = world.masters[0].arbiter
    assert old is not None and old.service.state is Master.HANDING_OVER
    finish(world)


def test_a_step_gets_its_time_though_nobody_has_heard_yet_that_a_worker_serves() -> None:
    """A hook took longer than the watchdog waits, while what the only worker had said lay unread in its channel."""
    world = service(2, watchdog=4)
    happen(world, What.TTOU, (What.DIES, 1))
    [master] = world.masters
    leaving, booting = (each for each in master.workers if each.alive)
    assert leaving.told and not booting.booted
    world.happens(What.STEP_LASTS, 1)
    for what in (What.LEAVES, What.READY):
        assert world.happens(what)
    world.settle()
    assert master.alive and booting.answers
    finish(world)


def test_a_step_in_the_gap_of_an_exclusive_pool_gets_its_time() -> None:
    """The hook for the worker that had left took longer than the watchdog waits; the next was not forked yet."""
    world = service(surge=EXCLUSIVE, watchdog=4)
    world.happens(What.TIME, 0, 0.2)
    happen(world, What.WORN)
    world.happens(What.STEP_LASTS, 1)
    happen(world, What.LEAVES)
    assert world.masters[0].alive
    finish(world)


def test_what_systemd_kills_does_nothing_more() -> None:
    """The simulation's own: a hook is on when the watchdog bites, since systemd had not heard of it."""
    world = service(3, watchdog=4)
    world.happens(What.DEAF, 2)
    world.happens(What.STEP_LASTS, 1)
    happen(world, What.DIES)
    assert not any(process.alive for process in world.processes())


def test_a_sign_of_life_that_was_not_heard_is_given_again_soon() -> None:
    """systemd was deaf at two moments, half of WatchdogSec= apart, and killed a service that was well."""
    world = service(watchdog=4)
    world.happens(What.DEAF, 3)
    world.happens(What.TIME, 0, 5.0)
    assert world.masters[0].alive
    finish(world)


def test_a_wish_for_time_that_was_not_heard() -> None:
    """The simulation's own: no watchdog can be blamed for what systemd could not hear."""
    world = service(watchdog=4)
    happen(world, What.HUP)
    world.happens(What.TIME, 0, 0.01)
    happen(world, What.READY)
    world.happens(What.DEAF, 1)
    world.happens(What.STEP_LASTS, 3)
    happen(world, What.LEAVES)
    assert not any(process.alive for process in world.processes())


def test_who_reopens_its_logs_leaves_no_gap() -> None:
    """The simulation's own: to have been sent USR1 is not to have been told to leave."""
    world = service(surge=EXCLUSIVE, watchdog=4)
    happen(world, What.USR1)
    happen(world, What.STOPPED)
    world.happens(What.TIME, 0, 5.0)
    assert not any(process.alive for process in world.processes())


def test_a_worker_that_hangs_before_anybody_can_know_counts() -> None:
    """The simulation's own: it was busy for too long while a hook kept the master from looking."""
    world = World(Plan(3))
    happen(world, What.TTIN, (What.READY, 3))
    world.happens(What.STEP_LASTS, 2)
    for what in ((What.READY, 1), (What.TTOU, 0), (What.BUSY, 1), (What.READY, 0)):
        assert world.happens(*what)
    world.settle()
    assert world.masters[0].said_ready
    finish(world)


@pytest.mark.parametrize("ends", [What.UNIT_STOPS, What.UNIT_RESTARTS])
@pytest.mark.parametrize("heard", [False, True])
def test_a_stop_of_the_unit_that_meets_the_hand_over_ends_both_masters(ends: What, heard: bool) -> None:
    """systemd stops the old master, and hears no more of the new one: that served on until it was killed.

    heard: the old master had heard that the new one serves, and had not come to look at its signals
    """
    world = service()
    upgraded(world)
    old, new = world.masters
    world.happens(What.READY)
    world.turn(new)
    assert world.happens(ends)
    if heard:
        assert old.arbiter is not None
        old.arbiter.sleep()
    world.settle()
    assert world.promises.main is old
    assert all(signal.SIGTERM in each.told for master in (old, new) for each in master.workers)
    word = {each.worker.cell.word(HAND_ON) for master in (old, new) for each in master.workers}
    assert word == ({HAND_ON_RESTART | HAND_ON_CRASH} if ends is What.UNIT_RESTARTS else {0})
    while world.happens(What.LEAVES):
        world.settle()
    assert (old.alive, new.alive) == (False, False)


def test_a_restart_of_the_unit_ends_both_masters_that_wait_for_the_operator() -> None:
    world = service(manual=True)
    upgraded(world)
    happen(world, What.READY, What.UNIT_RESTARTS)
    while world.happens(What.LEAVES):
        world.settle()
    assert not any(each.alive for each in world.masters)


def test_who_drains_hears_that_nobody_adopts_any_more() -> None:
    """The new master was stopped, too: what the old one's workers gave away was never answered."""
    world = service()
    upgraded(world)
    happen(world, What.READY)
    [leaving] = world.masters[0].workers
    assert leaving.worker.cell.word(HAND_ON) & HAND_ON_SUCCESSORS
    happen(world, What.UNIT_STOPS)
    assert world.masters[0].alive and leaving.worker.cell.word(HAND_ON) == 0
    finish(world)


def test_a_term_to_who_has_handed_over_is_not_meant_for_the_new_master() -> None:
    """Scripts for other servers send it to the old master; systemd does so only before it has heard of the new one."""
    world = service()
    upgraded(world)
    happen(world, What.READY, (What.TERM, 0))
    old, new = world.masters
    while world.happens(What.LEAVES):
        world.settle()
    assert not old.alive and new.alive and world.promises.main is new
    finish(world)


@pytest.mark.parametrize("messages", range(4))
def test_who_becomes_the_main_process_unheard_says_again_how_it_is(messages: int) -> None:
    """systemd heard MAINPID= late, and had taken nothing from a process that it did not know."""
    world = service()
    upgraded(world)
    happen(world, (What.DEAF, messages), What.READY)
    world.happens(What.TIME, 0, 10.0)
    told = [line for line in world.story().splitlines() if "tells systemd" in line]
    named = next(at for at, line in enumerate(told) if "MAINPID=" in line)
    assert any("110 tells systemd WATCHDOG=1" in line for line in told[named:]), told
    finish(world)


def test_no_old_master_is_killed_before_systemd_knows_the_new_one() -> None:
    """It waits for nothing else; its end would be that of the service."""
    world = service(systemd=True)
    upgraded(world)
    world.deaf = 1_000_000
    happen(world, What.READY)
    while world.happens(What.LEAVES):
        world.settle()
    world.happens(What.TIME, 0, 600.0)
    old, new = world.masters
    assert old.alive and new.alive
    world.deaf = 0
    world.happens(What.TIME, 0, 1.0)
    assert not old.alive
    assert world.promises.main is new
    finish(world)


def reloaded_beside(world: World, times: int = 1) -> None:
    """The old master has reloaded, while the workers of a new one boot, which have read the code already."""
    upgraded(world)
    for _ in range(times):
        happen(world, (What.HUP, 0), What.READY, What.ACKNOWLEDGES)
    while any(each.told_to_end and each.alive for each in world.masters[0].workers):
        happen(world, What.LEAVES)


def states(world: World) -> list[Master]:
    return [each.arbiter.service.state for each in world.masters if each.arbiter is not None and each.alive]


@pytest.mark.parametrize("times", [1, 2])
def test_an_upgrade_does_not_undo_a_reload(times: int) -> None:
    """It was answered with success, and then a new master took over that had read the code before."""
    world = service()
    reloaded_beside(world, times)
    happen(world, What.READY)
    assert states(world) == [Master.RUNNING, Master.RELOADING]
    happen(world, What.READY, What.ACKNOWLEDGES)
    old, new = world.masters
    assert old.has_handed_over and world.promises.main is new
    finish(world)


def test_a_reload_while_the_new_master_makes_good_for_another() -> None:
    world = service()
    reloaded_beside(world)
    happen(world, What.READY, (What.HUP, 0), What.READY, What.ACKNOWLEDGES)  # the old one's worker comes first
    happen(world, What.READY, (What.ACKNOWLEDGES, 1))
    assert states(world) == [Master.RUNNING, Master.RELOADING]
    finish(world)


def test_a_new_master_that_cannot_follow_a_reload_is_given_up() -> None:
    """The code is broken since: what serves is newer than what the new master has."""
    world = service()
    reloaded_beside(world)
    happen(world, What.READY)
    assert states(world) == [Master.RUNNING, Master.RELOADING]
    happen(world, What.BOOT_FAILS)
    while len(states(world)) > 1:
        happen(world, What.LEAVES)
    old = world.masters[0].arbiter
    assert old is not None and old.service.state is Master.RUNNING
    assert old.service.trouble.startswith("upgrade failed: the new master could not follow a reload: ")
    finish(world)


@pytest.mark.parametrize("hangs", [False, True])
def test_a_new_master_that_is_too_slow_to_follow_is_given_up(hangs: bool) -> None:
    """It has the time of its boot and of a reload; its own limit ends it, or the old master does."""
    world = service()
    upgraded(world)
    happen(world, (What.HUP, 0), What.READY, What.ACKNOWLEDGES, What.LEAVES)
    world.happens(What.TIME, 0, 19.0)
    happen(world, What.READY)
    assert states(world) == [Master.RUNNING, Master.RELOADING]
    if hangs:
        happen(world, (What.MASTER_STOPPED, 1))
    world.happens(What.TIME, 0, 19.0)
    assert states(world) == [Master.RUNNING, Master.RELOADING]
    world.happens(What.TIME, 0, 200.0)
    assert states(world) == [Master.RUNNING]
    finish(world)


def test_a_new_master_that_is_alone_serves_what_it_has() -> None:
    """The old one died while this one made good for its reload, which fails: there is nobody else."""
    world = service(systemd=False)
    reloaded_beside(world)
    happen(world, What.READY, (What.MASTER_KILLED, 0), What.BOOT_FAILS)
    assert states(world) == [Master.RUNNING]
    finish(world)


def test_a_reload_that_failed_asks_nothing_of_the_new_master() -> None:
    world = service()
    upgraded(world)
    happen(world, (What.HUP, 0), What.BOOT_FAILS, What.READY)
    assert world.masters[0].has_handed_over and states(world)[1] is Master.RUNNING
    finish(world)


def test_a_reload_that_was_asked_for_before_the_upgrade_asks_nothing_of_the_new_master() -> None:
    world = service()
    happen(world, What.HUP, What.USR2, What.MASTER_STARTS, What.READY, What.ACKNOWLEDGES)
    happen(world, What.READY)
    assert world.masters[0].has_handed_over and states(world)[1] is Master.RUNNING
    finish(world)
