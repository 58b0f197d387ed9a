"""Every script of tests/attacks: what a hostile checkpoint tries is refused or harmless, in bounded memory and time.
[SEC-001] [SEC-002] [SEC-003] [SEC-005] [SEC-006] [LIM-003] [LIM-007] [LIM-008]"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ATTACKS = Path(__file__).parent / "attacks"
SHARED = ("attack", "commands", "mutants", "server")
SCRIPTS = sorted(path.stem for path in ATTACKS.glob("*.py") if path.stem not in SHARED)


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[str, Path], int]]:
    """Runs a script in a folder; gives its exit status."""
    command = [sys.executable, ATTACKS / "server.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        asked, answers = server.stdin, server.stdout
        assert asked is not None
        assert answers is not None

        def ask(script: str, folder: Path) -> int:
            print(script, folder, sep="\t", file=asked, flush=True)
            return int(answers.readline())

        yield ask
        asked.close()


@pytest.mark.parametrize("script", SCRIPTS)
def test_attack(script: str, tmp_path: Path, run: Callable[[str, Path], int]) -> None:
    status = run(script, tmp_path)
    words = (tmp_path / "words").read_text()
    assert status == 0, words[-4000:]
    assert words.count("\n") > 1, "something was tried"
