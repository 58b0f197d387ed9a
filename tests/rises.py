"""How far the memory of a program rises, measured in fresh processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def assert_rises(program: str, folder: Path, *most: int) -> None:
    """Each figure that a program prints is at most that much, the least of up to three runs: what the allocator and the
    threads of torch keep besides differs from run to run where other processes take the cores."""
    least = [sys.maxsize] * len(most)
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program, folder], check=True, capture_output=True, text=True)
        least = [min(map(int, pair)) for pair in zip(least, done.stdout.split(), strict=True)]
        if all(rise <= bound for rise, bound in zip(least, most, strict=True)):
            return
    raise AssertionError(f"{least} of {most}")
