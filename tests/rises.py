"""How far the memory of a program rises, measured in fresh processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def least_rises(program: str, folder: Path, count: int) -> list[int]:
    """The `count` figures that a program prints, each the least of three runs: what the allocator and the threads of
    torch keep besides differs from run to run where other processes take the cores."""
    runs = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program, folder], check=True, capture_output=True, text=True)
        runs.append([int(figure) for figure in done.stdout.split()])
        assert len(runs[-1]) == count
    return [min(figures) for figures in zip(*runs, strict=True)]
