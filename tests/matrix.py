"""The suite under every Python that the package is for, with the newest packages, and with the oldest ones that
pyproject.toml admits under the oldest Python.

    python tests/matrix.py [--only 3.13] [--packages oldest] [--keep] [pytest's options]

Each run has a virtual environment of its own in a temporary folder. It prints a line as it ends: what passed, failed
and was skipped, or that the machine has no such Python. The whole output is in the folder that is named where something
failed, and with --keep the environment, too, to run a file of tests again in it. uv makes the environments: it finds
the oldest versions that fit together, which pip does not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
TORCH = "torch==2.13.0"  # as in the Makefile: the index may have a build of it for the CPU alone
RESOLUTIONS = {"newest": "highest", "oldest": "lowest-direct"}
RUNS = [(PYTHONS[0], "oldest"), *((version, "newest") for version in PYTHONS)]


def interpreter(version: str) -> str | None:
    """A command that is this Python, not just of its name: a launcher may stand there for a version that is missing."""
    homes = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    places = [shutil.which(f"python{version}"), *map(str, Path(homes).glob(f"versions/{version}.*/bin/python"))]
    for place in filter(None, places):
        ask = [place, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(ask, capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return place
    return None


def torch_is_small(python: Path) -> bool:
    """Whether pip would take a torch that brings no gigabytes of CUDA with it. Nothing is installed."""
    ask = [python, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed", "--report", "-"]
    done = subprocess.run([*ask, TORCH], capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        return False  # none for this Python
    needed = json.loads(done.stdout)["install"][0]["metadata"].get("requires_dist", [])
    linux = [name for name in needed if sys.platform == "linux" or "linux" not in name.lower()]
    return not any(re.match(r"nvidia|cuda|triton", name) for name in linux)


class Failed(Exception):
    pass


def call(log: Path, *command: object, **options: object) -> None:
    with log.open("a") as out:
        print("$", *command, file=out, flush=True)
        done = subprocess.run([*map(str, command)], cwd=ROOT, stdout=out, stderr=out, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise Failed


def run(python: str, packages: str, folder: Path, log: Path, arguments: list[str]) -> str:
    """The counts of a whole run, as pytest says them."""
    binaries = folder / "venv" / "bin"
    own = binaries / "python"
    call(log, python, "-m", "venv", folder / "venv")
    call(log, own, "-m", "pip", "install", "--quiet", "--upgrade", "pip", "uv")
    has_torch = torch_is_small(own)
    extra = "test" if has_torch else "test-without-torch"
    if has_torch:
        call(log, own, "-m", "pip", "install", "--quiet", TORCH)
    (folder / "torch.txt").write_text(f"{TORCH}\n")  # also for the oldest, as there are no small builds of old ones
    install: list[object] = [binaries / "uv", "pip", "install", "--python", own, "--quiet", "--compile-bytecode"]
    install += ["--resolution", RESOLUTIONS[packages], "--constraint", folder / "torch.txt"]
    call(log, *install, "--editable", f".[{extra}]")
    call(log, binaries / "uv", "pip", "freeze", "--python", own)
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as `make test`
    tests = [own, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={folder / 'tmp'}", *arguments]
    try:
        call(log, *tests, env=environment)
    finally:
        last = log.read_text(errors="replace").rstrip().rpartition("\n")[2]
    return counts(last) + ("" if has_torch else "; without torch, which has no small build here")


def counts(last: str) -> str:
    """What pytest's last line says without its ornament; nothing if it never came to that."""
    found = re.findall(r"\d+ (?:passed|failed|errors?|skipped|xfailed)", last)
    return ", ".join(found)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PYTHONS, action="append", help="this Python, and no other")
    parser.add_argument("--packages", choices=RESOLUTIONS, help="these packages, and no others")
    parser.add_argument("--keep", action="store_true", help="leave the environment of a run that failed")
    asked, rest = parser.parse_known_args(arguments)
    failed = False
    for version, packages in RUNS:
        if version not in (asked.only or PYTHONS) or packages not in (asked.packages or RESOLUTIONS):
            continue
        name = f"Python {version}, {packages} packages"
        python = interpreter(version)
        if python is None:
            print(f"{name}: there is no python{version} on this machine", flush=True)
            continue
        folder = Path(tempfile.mkdtemp(prefix="ckptfmt-matrix-"))
        folder.chmod(0o755)  # for tests that become another user
        log = folder / "log.txt"
        try:
            print(f"{name}: {run(python, packages, folder, log, rest)}", flush=True)
        except Failed:
            failed = True
            last = log.read_text(errors="replace").rstrip().rpartition("\n")[2]
            print(f"{name}: FAILED: {counts(last) or last}; see {log}", flush=True)
            if not asked.keep:
                shutil.rmtree(folder / "venv", ignore_errors=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
