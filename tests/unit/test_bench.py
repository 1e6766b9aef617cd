"""The comparison with peers: what it reads, what it computes, what it calls wrong. Nothing here is about time."""

import os
import subprocess
import sys
from pathlib import Path
from statistics import StatisticsError

import pytest

from tests.bench import __main__ as bench
from tests.bench import apps, install, procfs, report, wrk
from tests.bench.loads import LOADS, Load
from tests.bench.measure import Run
from tests.bench.peers import PEERS
from tests.bench.procfs import Stat
from tests.bench.report import Outcome
from tests.bench.servers import Server

CHECKOUT = Path(__file__).resolve().parents[2]
LINE = (
    'RESULT {"requests": 200, "seconds": 2.0, "bytes": 30000, "p50": 0.001, "p99": 0.004, '
    '"connect": 0, "read": %d, "write": 0, "status": %d, "timeout": 0}'
)
STAT = "42 (a (b) c) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 30 20 20 0 1 0 99 1000 200"


def a_run(rate: float, cpu: float = 1e-5) -> Run:
    return Run(rate=rate, p50=0.001, p99=0.002, cpu=cpu, memory=2**20)


def test_result_of_wrk_is_found_behind_what_it_prints_itself() -> None:
    result = wrk.parse(f"Running 2s test\n  Latency 1ms\n\n{LINE % (0, 0)}\n")
    assert (result.requests, result.seconds, result.size, result.p50, result.p99) == (200, 2.0, 30000, 0.001, 0.004)
    assert result.errors == {}
    wrk.check(result, 100)


def test_failed_run_of_wrk_is_told_with_what_it_said() -> None:
    with pytest.raises(ValueError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


@pytest.mark.parametrize(
    ("line", "body", "said"),
    [
        (LINE % (3, 0), 100, "3 read errors"),
        (LINE % (0, 1), 100, "1 status errors"),
        (LINE % (0, 0), 151, "too short"),
        (LINE.replace("200", "0") % (0, 0), 100, "no request was answered"),
    ],
)
def test_wrong_answers_are_no_result(line: str, body: int, said: str) -> None:
    with pytest.raises(wrk.WrongAnswer, match=said):
        wrk.check(wrk.parse(line), body)


def test_stat_is_read_behind_a_command_with_parentheses() -> None:
    assert procfs.parse_stat(STAT, tick=0.01) == Stat(parent=7, cpu=2.0, children=0.5)


def test_tree_is_root_and_all_below() -> None:
    parents = {1: 0, 10: 1, 11: 10, 12: 10, 13: 11, 20: 1}
    stats = {pid: Stat(parent, 0, 0) for pid, parent in parents.items()}
    assert sorted(procfs.tree(10, stats)) == [10, 11, 12, 13]


def test_cpu_of_a_tree_includes_workers_that_came_and_went() -> None:
    before = {1: Stat(0, 1.0, 0.0), 2: Stat(1, 5.0, 0.0)}
    after = {1: Stat(0, 1.5, 6.0), 3: Stat(1, 2.0, 0.0)}  # 2 used one second more, ended, and was waited for
    assert procfs.cpu(before, after) == pytest.approx(0.5 + 1.0 + 2.0)


def test_busiest_share_is_of_workers_not_of_their_master() -> None:
    before = {1: Stat(0, 0.0, 0.0), 2: Stat(1, 1.0, 0.0), 3: Stat(1, 1.0, 0.0)}
    after = {1: Stat(0, 9.0, 0.0), 2: Stat(1, 4.0, 0.0), 3: Stat(1, 2.0, 0.0)}
    assert procfs.busiest(1, before, after) == pytest.approx(0.75)
    assert procfs.busiest(1, {1: before[1]}, {1: after[1]}) == 1.0


def test_this_process_is_found_in_proc() -> None:
    found = procfs.snapshot(os.getpid())
    assert found[os.getpid()].parent == os.getppid()
    assert procfs.pss({os.getpid(): found[os.getpid()]}) > 2**20


def test_pss_is_in_bytes() -> None:
    assert procfs.parse_pss("55d0-7ffe ---p 0 [rollup]\nRss:  900 kB\nPss:   12 kB\nPss_Anon: 5 kB\n") == 12 * 1024
    assert procfs.parse_pss("") == 0


def test_middle_is_the_median_of_each_figure() -> None:
    middle = report.middle([a_run(100, cpu=3), a_run(900, cpu=1), a_run(200, cpu=2)])
    assert (middle.rate, middle.cpu) == (200, 2)
    with pytest.raises(StatisticsError):
        report.middle([])


def test_ratio_needs_a_base() -> None:
    assert report.ratio(3, 2) == 1.5
    assert report.ratio(3, 0) is None


def test_spread_is_in_units_of_the_median() -> None:
    assert report.spread([a_run(90), a_run(100), a_run(120)]) == pytest.approx(0.3)


def test_rows_compare_with_sdserve() -> None:
    row = report.row("other", Outcome([a_run(50, cpu=4e-5)]), a_run(100, cpu=1e-5))
    assert row == ("other", "50", "1.00", "2.00", "40", "1.0", "0.50", "4.00")


def test_rows_name_what_went_wrong() -> None:
    assert report.row("other", Outcome(failures=["3 read errors"]), None)[1] == "failed: 3 read errors"
    assert report.row("other", Outcome([a_run(1)], ["x"]), None)[0] == "other (1 of 2 rounds failed)"


def test_chapter_is_a_table_in_markdown() -> None:
    load = Load("w", "two workers", workers=2)
    text = report.chapter(load, {"sdserve": Outcome([a_run(100)]), "other": Outcome(failures=["gone"])})
    lines = text.splitlines()
    assert lines[0] == "### w: two workers"
    rows = [line for line in lines if line.startswith("|")]
    assert len({len(line) for line in rows}) == 1 and len({line.count("|") for line in rows}) == 1
    assert "- sdserve: busiest process 100% of the CPU time" in lines


def test_every_load_has_an_answer_to_check_and_servers_that_fit() -> None:
    for load in LOADS:
        assert load.path in apps.ANSWERS
        fitting = {peer.name for peer in PEERS if peer.fits(load)}
        assert fitting & {"sdserve", "sdserve-16"} and len(fitting) > 3, load.name
        assert not load.traffic or f"traffic.{load.traffic}" in wrk.SCRIPT.read_text(), load.name


def test_names_choose_rows_and_unknown_ones_are_told() -> None:
    assert [load.name for load in bench.chosen(LOADS, "post,tiny")] == ["tiny", "post"]
    assert bench.chosen(LOADS, None) == list(LOADS)
    with pytest.raises(ValueError, match="unknown: tinny; there are proxied, "):
        bench.chosen(LOADS, "tinny")


def test_every_round_begins_with_another_server() -> None:
    assert [bench.turns(PEERS, number)[0] for number in range(len(PEERS) + 1)] == [*PEERS, PEERS[0]]
    assert set(bench.turns(PEERS, 3)) == set(PEERS)


def test_failure_to_install_is_told_in_one_line() -> None:
    output = "Building wheel\nx.c:1:10: fatal error: ev.h: No such file\nerror: command 'gcc' failed\nERROR: Failed"
    assert install.reason(output) == "x.c:1:10: fatal error: ev.h: No such file"
    assert install.reason("ERROR: No matching distribution") == "ERROR: No matching distribution"


def test_server_is_probed_and_leaves_nothing_behind() -> None:
    with Server(PEERS[0], Path(sys.prefix) / "bin", LOADS[0]) as server:
        for path in apps.ANSWERS:
            server.probe(path)
    assert not procfs.snapshot(server.pid)


def test_help_names_loads_and_peers() -> None:
    command = [sys.executable, "-m", "tests.bench", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT)
    said = "".join(done.stdout.split())
    assert ",".join(load.name for load in LOADS) in said and ",".join(peer.name for peer in PEERS) in said
