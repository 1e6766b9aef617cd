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


def test_a_session_is_not_ours_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cgroup").write_text("0::/user.slice/user-0.slice/session-1.scope\n")
    monkeypatch.setattr(control_group, "OWN", str(tmp_path / "cgroup"))
    assert control_group.end_others() == []
    assert os.getpid()
