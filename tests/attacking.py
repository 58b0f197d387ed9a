"""The scripts of tests/attacks, which one process runs that has imported what they import."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ATTACKS = Path(__file__).parent / "attacks"


@contextmanager
def attacks(**environment: str) -> Iterator[Callable[[str, Path], None]]:
    """Gives what runs a script in a folder, and checks that it went well."""
    command = [sys.executable, ATTACKS / "server.py"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as server:
        asked, answers = server.stdin, server.stdout
        assert asked is not None
        assert answers is not None

        def run(script: str, folder: Path) -> None:
            print(script, folder, sep="\t", file=asked, flush=True)
            status, words = int(answers.readline()), (folder / "words").read_text()
            assert status == 0, words[-4000:]
            assert words.count("\n") > 1, "something was tried"

        yield run
        asked.close()
