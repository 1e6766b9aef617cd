"""Wheels made on the spot: a dependency in versions, installed by pip without a network."""

import re
import zipfile
from pathlib import Path


def wheel(directory: Path, name: str, version: str, source: str) -> Path:
    """Write the wheel (PEP 427) of a one-module distribution `name` into `directory`; return its path."""
    path = directory / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return path


def wheel_of(directory: Path, package: Path, version: str, scripts: dict[str, str]) -> Path:
    """Write the wheel of a package as it lies on disk, with console scripts: {"sdserve": "sdserve.cli:main"}."""
    name = package.name
    path = directory / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {str(file.relative_to(package.parent)): file.read_text() for file in sorted(package.rglob("*.py"))}
    init = f"{name}/__init__.py"
    files |= {
        init: re.sub('(?<=__version__ = ").*(?=")', version, files[init]),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "\n".join(["[console_scripts]", *(f"{k} = {v}" for k, v in scripts.items()), ""]),
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return path
