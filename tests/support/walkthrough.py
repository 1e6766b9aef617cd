"""Pages that are commands to follow: their blocks, in order, as they stand.

A fenced block `sh` is to be run; a block `text` after it is what it prints, line by line, among other things.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.machine import CHECKOUT

BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass
class Step:
    """A script for sh(1), and the lines that it prints."""

    script: str
    prints: list[str]


def steps(page: str, section: str = "") -> Iterator[Step]:
    """The steps of a page of docs/ (or of the README), or of one of its sections."""
    text = (CHECKOUT / page).read_text()
    if section:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    last: Step | None = None
    for kind, content in BLOCK.findall(text):
        if kind == "sh":
            if last is not None:
                yield last
            last = Step(content, [])
        elif last is not None:
            last.prints += content.splitlines()
    if last is not None:
        yield last


def wheelhouse(directory: Path, *requirements: str, built: bool) -> Path:
    """A directory with what `pip install` fetches for `requirements` and the checkout, or with wheels of all that."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    needed = [*project["build-system"]["requires"], *project["project"]["dependencies"], *requirements]
    # Without --use-pep517 Debian 12's pip takes the environment's own setuptools, which may know no bdist_wheel.
    fetch = ["wheel", "--use-pep517", "-w"] if built else ["download", "-d"]
    subprocess.run([sys.executable, "-m", "pip", *fetch, str(directory), "-q", "wheel", *needed], check=True)
    return directory
