"""GPUs are dealt by slot, and stay balanced whatever happens to the workers."""

import math
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.support.server import Server, answer
from tests.support.waiting import eventually


def balanced(server: Server, workers: int, gpus: int, report: Path) -> None:
    """Eventually: as many workers as wanted, none of the GPUs with more than its share."""

    def look() -> bool:
        alive = [p.pid for p in server.workers if p.alive]
        assert len(alive) == workers, f"{len(alive)} workers"
        reported = dict(line.split() for line in report.read_text().splitlines())
        share = Counter(reported[str(pid)] for pid in alive if str(pid) in reported)
        assert share.total() == workers, share
        assert max(share.values()) <= math.ceil(workers / gpus), share
        return True

    eventually(look, f"{workers} workers on {gpus} GPUs")


def test_balanced_after_kills_ttin_ttou_and_reloads(start: Callable[..., Server], short_path: Path) -> None:
    report = short_path / "report"
    (short_path / "conf.py").write_text(
        "import os\n\ndef post_worker_init(worker):\n"
        f"    with open({str(report)!r}, 'a') as f:\n"
        "        f.write(f\"{os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']}\\n\")\n"
    )
    server = start("-c", f"{short_path}/conf.py", "-b", f"unix:{short_path}/s", "-w", "5", "--gpus", "0,1,7", "plain")
    server.wait_ready()
    balanced(server, 5, 3, report)
    # Not more kills than these: workers that die young are replaced later and later.
    events = ["kill"] * 5 + ["ttin"] * 3 + ["ttou"] * 3 + ["hup"] * 2
    dice = random.Random(1)
    dice.shuffle(events)
    wanted = 5
    for event in events:
        if event == "kill":
            dice.choice(server.workers).kill(signal.SIGKILL)
        elif event == "ttin":
            server.kill(signal.SIGTTIN)
            wanted += 1
        elif event == "ttou":
            server.kill(signal.SIGTTOU)
            wanted = max(1, wanted - 1)
        else:
            mark = server.notify.mark
            server.kill(signal.SIGHUP)
            server.notify.wait("READY=1", since=mark)
            wanted = 5
        balanced(server, wanted, 3, report)


def test_use_gpus_is_the_environment_of_the_setting(start: Callable[..., Server], short_path: Path) -> None:
    start("-b", f"unix:{short_path}/s", "plain:application", env={"USE_GPUS": "3"}).wait_ready()
    assert answer(f"{short_path}/s", "/environ/CUDA_VISIBLE_DEVICES").body == b"3"
