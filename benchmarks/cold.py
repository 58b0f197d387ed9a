"""`python -m benchmarks.cold`: a program of its own that opens a file and reads a slice, beyond one that imports NumPy.

Processes in shuffled order, round by round. A figure is the processor time, or the wall time, of the whole process,
less that of `import numpy`, its end included: best and median. `--former` is another source tree of ckptfmt, to be
measured beside this one.
"""

from __future__ import annotations

import compileall
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from safetensors.numpy import save_file

import ckptfmt

HERE = Path(ckptfmt.__file__).parents[1]
BASE = "import numpy"
OURS = "import ckptfmt, sys\nwith ckptfmt.open(sys.argv[1] + '.ckpt') as file: file['t0'][0:10]"
THEIRS = (
    "import sys\nfrom safetensors import safe_open\n"
    "with safe_open(sys.argv[1] + '.safetensors', 'numpy') as file: file.get_slice('t0')[0:10]"
)


class Times(NamedTuple):
    """Of a whole process, in milliseconds."""

    processor: float
    wall: float


def run(program: str, stem: Path, tree: Path) -> Times:
    """One process, which imports ckptfmt from a source tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    begin = time.perf_counter()
    process = os.posix_spawn(sys.executable, [sys.executable, "-P", "-c", program, str(stem)], environment)
    _, status, used = os.wait4(process, 0)
    wall = time.perf_counter() - begin
    if status:
        raise click.ClickException(f"a process ended with {os.waitstatus_to_exitcode(status)}")
    return Times(1000 * (used.ru_utime + used.ru_stime), 1000 * wall)


def beyond(found: list[Times], base: list[Times]) -> str:
    """Best and median beyond the base, of both times."""
    texts = []
    for name, times, others in zip(Times._fields, zip(*found, strict=True), zip(*base, strict=True), strict=True):
        best, median = min(times) - min(others), statistics.median(times) - statistics.median(others)
        texts.append(f"{name} best {best:6.1f} ms, median {median:6.1f} ms")
    return "; ".join(texts)


@click.command()
@click.option("--tensors", default=137, show_default=True)
@click.option("--rounds", default=25, show_default=True)
@click.option("--former", type=click.Path(exists=True, path_type=Path), help="Another source tree of ckptfmt.")
def main(*, tensors: int, rounds: int, former: Path | None) -> None:
    """Measure a first slice in a fresh process."""
    trees = {"ckptfmt": HERE, **({} if former is None else {"ckptfmt, former": former.absolute()})}
    for tree in trees.values():
        compileall.compile_dir(tree / "ckptfmt", quiet=2)
    programs = {"numpy": (BASE, HERE), **{name: (OURS, tree) for name, tree in trees.items()}}
    programs["safetensors"] = (THEIRS, HERE)
    found: dict[str, list[Times]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as folder:
        stem = Path(folder) / "x"
        arrays = {f"t{number}": np.full((64, 64), number, np.float32) for number in range(tensors)}
        ckptfmt.save(f"{stem}.ckpt", arrays)
        save_file(arrays, f"{stem}.safetensors")
        for number in range(rounds + 1):
            for name in random.sample(list(programs), len(programs)):
                program, tree = programs[name]
                times = run(program, stem, tree)
                if number:  # the first round fills the page cache
                    found[name].append(times)
    for name, samples in found.items():
        if name != "numpy":
            click.echo(f"{name:16} {beyond(samples, found['numpy'])}")


if __name__ == "__main__":
    main()
