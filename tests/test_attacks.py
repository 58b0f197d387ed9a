"""Every script of tests/attacks: what a hostile checkpoint tries is refused or harmless, in bounded memory and time.
[SEC-001] [SEC-002] [SEC-003] [SEC-005] [SEC-006] [LIM-003] [LIM-007] [LIM-008]"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attacking import ATTACKS, attacks

SHARED = ("attack", "commands", "mutants", "server")
SCRIPTS = sorted(path.stem for path in ATTACKS.glob("*.py") if path.stem not in SHARED)


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[str, Path], None]]:
    with attacks() as run:
        yield run


@pytest.mark.parametrize("script", SCRIPTS)
def test_attack(script: str, tmp_path: Path, run: Callable[[str, Path], None]) -> None:
    run(script, tmp_path)
