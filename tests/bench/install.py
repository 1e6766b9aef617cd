"""The peers' own virtual environment: made when missing, never the checkout's.

A peer that cannot be installed (no compiler, no libev, no network) is named and left out; the others are compared.
"""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.bench.peers import Peer


def environment(place: Path) -> Path:
    """The bin directory of the virtual environment at `place`, of the Python that runs sdserve."""
    bin = place / "bin"
    if not (bin / "pip").exists():
        print(f"making {place}", file=sys.stderr)
        # Not sys.executable itself: an environment made by one of another environment would lean on that.
        python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        subprocess.run([python, "-m", "venv", place], check=True)
    return bin


def install(place: Path, peers: Iterable[Peer], more: Iterable[str] = ()) -> tuple[dict[str, str], dict[str, str]]:
    """Installs what `peers` need, and `more`. Returns versions of packages that are there, and why others are not."""
    bin = environment(place)
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    for package in dict.fromkeys(peer.package for peer in peers if peer.package) | dict.fromkeys(more):
        version = _version(bin, package)
        if not version:
            print(f"installing {package}", file=sys.stderr)
            done = subprocess.run(
                [bin / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            version = _version(bin, package)
            if done.returncode or not version:
                missing[package] = reason(done.stdout)
                continue
        versions[package] = version
    return versions, missing


def reason(output: str) -> str:
    """The line of pip's output that says most about a failure: the first of a compiler, else the last of pip."""
    lines = [line.strip() for line in output.splitlines() if "error" in line.lower()]
    for line in lines:
        if "fatal error:" in line:
            return line
    return lines[-1] if lines else "pip failed"


def _version(bin: Path, package: str) -> str:
    program = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run([bin / "python", "-c", program], capture_output=True, text=True)
    return done.stdout.strip()
