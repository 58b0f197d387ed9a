"""`python -m benchmarks.statistics`: statistics of a checkpoint beside a verified load of the same bytes,
and saves that store them, or look for NaNs, beside one that does not.

Interleaved rounds, each in a fresh process, as a process that has loaded once has its memory already. A ratio is of the
same round: of statistics and load in bytes a second (more is better), of saves in seconds (less is better).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

import ckptfmt
from benchmarks.results import Spread
from ckptfmt.format.dtypes import DTYPES

NAMES = ("float32", "bfloat16", "float16", "float64", "float8_e4m3fn", "int8", "int32", "small")
SMALL = 512  # elements of each of many small tensors


def tree_of(name: str, nbytes: int) -> dict[str, Any]:
    """Normal numbers in eight tensors, or in many small ones."""
    dtype = DTYPES["float32" if name == "small" else name]
    count = nbytes // dtype.stored.itemsize // 8
    one = np.random.default_rng(1).standard_normal(count) * (20 if "int" in name else 0.02)
    values = one.astype(dtype.numpy)
    if name == "small":
        return {f"w{i}": values[i * SMALL % (count - SMALL) :][:SMALL].copy() for i in range(8 * count // SMALL)}
    return {f"w{i}": np.roll(values, i) for i in range(8)}


SAVES: dict[str, dict[str, Any]] = {
    "save": {"durable": False},
    "save, statistics": {"durable": False, "statistics": True},
    "save, on_nan": {"durable": False, "on_nan": "refuse"},
    "durable": {},
    "durable, statistics": {"statistics": True},
}


def timed(what: str, name: str, path: str, nbytes: int) -> float:
    """Seconds of one operation in this process, after a small one that has imported all."""
    calls: dict[str, Callable[[str], Any]] = {"stats": ckptfmt.stats, "load": ckptfmt.load}
    small = f"{path}.small"
    ckptfmt.save(small, tree_of(name, 1 << 20), overwrite=True, durable=False)
    if what in SAVES:
        tree = tree_of(name, nbytes)
        for at in (small, path):  # so that all is imported, and the file is replaced
            ckptfmt.save(at, tree if at == path else tree_of(name, 1 << 20), overwrite=True, **SAVES[what])
        begin = time.perf_counter()
        ckptfmt.save(path, tree, overwrite=True, **SAVES[what])
        return time.perf_counter() - begin
    calls[what](small)
    begin = time.perf_counter()
    calls[what](path)
    return time.perf_counter() - begin


def in_process(*arguments: Any) -> float:
    command = [sys.executable, "-m", "benchmarks.statistics", "--one", json.dumps(arguments)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@click.command()
@click.option("--mebibytes", default=512, show_default=True, help="Of each checkpoint.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--only", default=",".join(NAMES), show_default=True, help="Dtypes, and small: many small tensors.")
@click.option("--dir", "folder", default=".", show_default=True, help="Where checkpoints go.")
@click.option("--one", hidden=True)
def main(*, mebibytes: int, rounds: int, only: str, folder: str, one: str | None) -> None:
    """Measure statistics beside verified loads."""
    if one is not None:
        click.echo(timed(*json.loads(one)))
        return
    nbytes = mebibytes << 20
    for name in only.split(","):
        with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=folder) as place:
            path = str(Path(place) / "x.ckpt")
            ckptfmt.save(path, tree_of(name, nbytes), durable=False)
            ratios, speeds = [], []
            for _ in range(rounds):
                stats, load = (in_process(what, name, path, nbytes) for what in ("stats", "load"))
                ratios.append(load / stats)
                speeds.append(nbytes / stats / 1e9)
            saves: dict[str, list[float]] = {what: [] for what in SAVES}
            for _ in range(rounds):
                for what, seconds in saves.items():
                    seconds.append(in_process(what, name, f"{path}.saved", nbytes))
            for what, seconds in saves.items():
                beside = saves[what.partition(",")[0]]
                if seconds is not beside:
                    slower = [mine / theirs for mine, theirs in zip(seconds, beside, strict=True)]
                    click.echo(f"{name}: {what} {Spread.of(slower)} of the seconds without")
            click.echo(f"{name}: stats {Spread.of(ratios)} of a verified load, {Spread.of(speeds)} GB/s")


if __name__ == "__main__":
    main()
