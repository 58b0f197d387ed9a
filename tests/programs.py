"""Programs as their users run them: the examples, and the command line in pipes and on terminals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import Result

import ckptfmt

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in a directory of its own; warnings are errors, and temporary files go to that directory too."""
    environment = os.environ | {
        "COLUMNS": "120",
        "FORCE_COLOR": "",  # plain text, whatever the caller set
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "PYTHONUTF8": "1",
        "TMPDIR": str(cwd),
    }
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "ckptfmt", *map(str, args)]


def environment(**more: str) -> dict[str, str]:
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "PYTHONUNBUFFERED")
    }
    root = str(Path(ckptfmt.__file__).parents[1])
    return {**kept, "PYTHONPATH": root, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **more}


def real(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    """A real process, its output in pipes."""
    return subprocess.run(
        command(*args), capture_output=True, text=True, encoding="utf-8", env=environment(**env), timeout=120
    )


def on_terminal(*args: object, stream: int = 1, **env: str) -> tuple[int, str, str]:
    """A real process whose stdout (1) or stderr (2) is a terminal; gives exit code, terminal text, other stream."""
    ours, theirs = os.openpty()
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    streams["stdout" if stream == 1 else "stderr"] = theirs
    with subprocess.Popen(command(*args), env=environment(**env), **streams) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says so when the other side is closed
                break
            if not part:
                break
            shown += part
        os.close(ours)
        out, err = process.communicate(timeout=120)
    other = err if stream == 1 else out
    return process.returncode, shown.decode(), other.decode()


def assert_plain(text: str) -> None:
    """No control character but the line feed: nothing that a terminal would obey."""
    assert all(character.isprintable() or character == "\n" for character in text), repr(text)


def assert_safe(result: Result) -> None:
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert_plain(result.stdout)
    assert_plain(result.stderr)
