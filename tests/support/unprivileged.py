"""sdserve as somebody who may not become anybody else, whoever runs the tests, and wherever the checkout lies."""

import os
import shutil
import sys
from pathlib import Path

from tests.support.server import CHECKOUT

NOBODY = 65534


def unprivileged(place: Path) -> tuple[str, ...]:
    """The program `sdserve` for a user without privileges, who may enter `place` from now on.

    Nobody else may enter a checkout below /root, so root's program has a copy of the package there, and has imported
    what that takes from the virtual environment.
    """
    place.chmod(0o755)
    run = "from sdserve.cli import main; main()"
    if os.geteuid() == 0:
        copy = place / "package"
        shutil.copytree(CHECKOUT / "sdserve", copy / "sdserve")
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755)
        drop = f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})"
        run = f"import httptools, os, sys; sys.path.insert(0, {str(copy)!r}); {drop}; {run}"
    return sys.executable, "-c", run
