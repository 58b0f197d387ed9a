"""Every script of tests/attacks: what a hostile checkpoint tries is refused or harmless, in bounded memory and time.
[SEC-001] [SEC-002] [SEC-003] [SEC-005] [SEC-006] [LIM-003] [LIM-007] [LIM-008]"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ATTACKS = Path(__file__).parent / "attacks"
SCRIPTS = sorted(path.stem for path in ATTACKS.glob("*.py") if path.stem not in ("attack", "commands", "mutants"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_attack(script: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ATTACKS / f"{script}.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.count("\n") > 1, "something was tried"
