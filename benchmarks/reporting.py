"""`python -m benchmarks.reporting`: the page of a checkpoint beside a verified load of it, and that of a run.

Interleaved rounds, each in a fresh process, with its imports, which a load has too. A ratio is of the same round: less
is better.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

import ckptfmt
from benchmarks.results import Spread
from ckptfmt.format.dtypes import DTYPES
from ckptfmt.manager import CheckpointManager, LogTo

LAYERS = 24
KINDS = {"attn.q": 1, "attn.k": 1, "attn.v": 1, "attn.o": 1, "mlp.up": 4, "mlp.down": 4}


def tree_of(dtype: str, nbytes: int) -> dict[str, Any]:
    """A model of layers, whose matrices are parts of one array of normal numbers."""
    row = DTYPES[dtype]
    one = nbytes // row.stored.itemsize // (LAYERS * sum(KINDS.values())) // 1024 * 1024
    values = (np.random.default_rng(0).standard_normal(8 * one, np.float32) * 0.02).astype(row.numpy)
    return {
        f"layers.{layer}.{kind}": np.roll(values, layer)[: share * one].reshape(-1, 1024).copy()
        for layer in range(LAYERS)
        for kind, share in KINDS.items()
    }


def timed(what: str, path: str) -> float:
    begin = time.perf_counter()
    if what == "load":
        ckptfmt.load(path)
    else:
        ckptfmt.report(path)
    return time.perf_counter() - begin


def in_process(*arguments: Any) -> float:
    command = [sys.executable, "-m", "benchmarks.reporting", "--one", json.dumps(arguments)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@click.command()
@click.option("--mebibytes", default=2048, show_default=True, help="Of the checkpoint.")
@click.option("--steps", default=1000, show_default=True, help="Of the run.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--only", default="bfloat16,float32", show_default=True, help="Dtypes.")
@click.option("--dir", "folder", default=".", show_default=True, help="Where checkpoints go.")
@click.option("--one", hidden=True)
def main(*, mebibytes: int, steps: int, rounds: int, only: str, folder: str, one: str | None) -> None:
    """Measure pages beside verified loads."""
    if one is not None:
        click.echo(timed(*json.loads(one)))
        return
    for dtype in filter(None, only.split(",")):
        with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=folder) as place:
            path = str(Path(place) / "x.ckpt")
            ckptfmt.save(path, tree_of(dtype, mebibytes << 20), durable=False)
            pairs = [(in_process("report", path), in_process("load", path)) for _ in range(rounds)]
        ratios = Spread.of([page / load for page, load in pairs])
        click.echo(f"{dtype}: a page takes {ratios} of a verified load, {Spread.of([page for page, _ in pairs])} s")
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=folder) as place:
        log = LogTo(Path(place) / "run" / "history.jsonl")
        with CheckpointManager(Path(place) / "run", durable=False, on_commit=log) as manager:
            for step in range(steps):
                manager.save(step, {"w": np.ones(100)}, metrics={"loss": 1 / (step + 1), "accuracy": step / steps})
        seconds = Spread.of([in_process("report", str(Path(place) / "run")) for _ in range(rounds)])
        click.echo(f"a run of {steps:,} steps: {seconds} s")


if __name__ == "__main__":
    main()
