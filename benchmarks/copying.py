"""What is timed beside a plain copy of the same file: each in a process of its own, the page cache warm. Nothing is
made durable, as the copy is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.disk import remove
from benchmarks.memory import Sampler

PAUSE = 0.005  # seconds between two looks at the memory of a process


def copied(source: Path, target: Path) -> float:
    """Seconds of a plain copy to where nothing is."""
    _clear(target)
    begin = time.perf_counter()
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
    return time.perf_counter() - begin


def timed(program: str, source: Path, target: Path, *arguments: str) -> tuple[float, int]:
    """Seconds that a Python program prints as JSON, and the most private memory seen in its process (bytes). Its
    arguments are the source, the target, where nothing is, and the others."""
    _clear(target)
    command = [sys.executable, "-c", program, str(source), str(target), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        sampler = Sampler(process.pid)
        while process.poll() is None:
            sampler.sample()
            time.sleep(PAUSE)
        assert process.stdout is not None
        seconds: float = json.loads(process.stdout.read())
    return seconds, sampler.peak()


def _clear(target: Path) -> None:
    remove(target)
    os.sync()
