"""A small disk of a machine's own, which can be full, and which can stand still.

It is a file with ext4 on a loop device, so that fsfreeze(8) can have whoever writes to it wait, as for a disk that does
not answer. Where there is no loop device it is a tmpfs, which can be full only (`can_stand_still`).
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.machine import Machine

FILLER = "filler"


class Disk:
    """Mounted at `path` inside a machine, writable for everybody."""

    def __init__(self, machine: Machine, path: str, can_stand_still: bool) -> None:
        self.path = path
        self.can_stand_still = can_stand_still
        self._machine = machine

    @classmethod
    @contextmanager
    def mounted(cls, machine: Machine, path: str, megabytes: int) -> Iterator["Disk"]:
        machine.run("mkdir", "-p", path)
        device = _loop_device(megabytes)
        if device is None:
            machine.run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "disk", path)
        else:
            try:
                numbers = os.stat(device).st_rdev
                node = "/dev/test-disk"
                machine.run("mknod", node, "b", str(os.major(numbers)), str(os.minor(numbers)))
                machine.run("mount", node, path)
                machine.run("rm", node)
            finally:
                subprocess.run(["losetup", "-d", device], check=True)  # once it is not mounted any more
        try:
            machine.run("chmod", "1777", path)
            yield cls(machine, path, device is not None)
        finally:
            machine.run("umount", path)

    @property
    def names(self) -> set[str]:
        """The files on it that have a name."""
        return set(os.listdir(self._machine.path(self.path))) - {"lost+found"}

    @contextmanager
    def full(self) -> Iterator[None]:
        """Nothing can be written, but for what is freed meanwhile."""
        filler = self._machine.path(self.path) / FILLER
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue
        try:
            yield
        finally:
            filler.unlink()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Whoever writes to it waits until the end, in the kernel, where no signal reaches it."""
        self._machine.run("fsfreeze", "--freeze", self.path)
        try:
            yield
        finally:
            self._machine.run("fsfreeze", "--unfreeze", self.path)


def _loop_device(megabytes: int) -> str | None:
    """A loop device with an empty file system; None where there are none."""
    if any(shutil.which(tool) is None for tool in ("losetup", "mkfs.ext4", "fsfreeze")):
        return None
    with tempfile.TemporaryDirectory() as directory:
        image = Path(directory) / "image"
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        done = subprocess.run(["losetup", "--show", "--find", image], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None
