"""What is left of a service: its processes are found by their control group, and nobody else is touched."""

import os
import subprocess
from pathlib import Path

import pytest

from sdserve.process import control_group


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Our own group is said to be that of another service."""
    group = "0::/system.slice/sdserve-test.service\n"
    (tmp_path / "cgroup").write_text(group)
    monkeypatch.setattr(control_group, "OWN", str(tmp_path / "cgroup"))
    return group


def test_nobody_of_another_group_is_signalled(group: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        assert control_group.end_others() == []
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize(
    ("groups", "mounts"),
    [
        (
            "0::/system.slice/a.service\n",
            "31 24 0:26 / {} rw,nosuid shared:9 master:1 - cgroup2 cgroup2 rw,nsdelegate\n",
        ),
        ("0::/x/system.slice/a.service\n", "31 24 0:26 /x {} rw - cgroup2 cgroup2 rw\n"),
        (
            "1:name=systemd:/system.slice/a.service\n0::/\n",
            "30 24 0:25 / /nowhere rw - cgroup2 cgroup rw\n31 24 0:26 / {} rw - cgroup cgroup rw,xattr,name=systemd\n",
        ),
    ],
    ids=["alone", "in a container", "beside an older one"],
)
def test_the_control_group_lists_whom_proc_may_hide(
    groups: str, mounts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "system.slice/a.service/cgroup.procs"
    listed.parent.mkdir(parents=True)
    listed.write_text("17\n0\n23\n")
    (tmp_path / "mounts").write_text("22 1 254:1 / / rw - ext4 /dev/vda1 rw\n" + mounts.format(tmp_path))
    monkeypatch.setattr(control_group, "MOUNTS", str(tmp_path / "mounts"))
    assert control_group.members(groups) == [17, 23]
    listed.unlink()
    assert control_group.members(groups) == []


def test_a_session_is_not_ours_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cgroup").write_text("0::/user.slice/user-0.slice/session-1.scope\n")
    monkeypatch.setattr(control_group, "OWN", str(tmp_path / "cgroup"))
    assert control_group.end_others() == []
    assert os.getpid()
