"""What steps that share cost: bytes and time of a step beside a full save, and the disk of a run of a thousand steps.

    python -m benchmarks.sharing [--gb N] [--rounds N] [--dir DIR] [--picture]

The tree is like that of LoRA: 95 % of the bytes are frozen, the rest, adapters and the two moments of their optimizer,
changes with each step. A round saves it in full and shared, in random order, each to a new path, with one fsync of all
before. Ratios are taken within a round; quoted is their median with least and greatest: of seconds by the clock, and of
CPU time, which means something on a machine that does other work, too. Then all of it changes: what it costs to look
for what is the same and find nothing.

The run of a thousand steps has the same shares at 2 MB; its files are counted, each once. It draws the picture of
docs/howto/thousand-steps.md; `--picture` does no more.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

import ckptfmt
from ckptfmt.maintenance.usage import usage_of
from ckptfmt.manager import CheckpointManager

PICTURE = Path("docs/thousand-steps.png")
FROZEN = 0.95
STEPS, SMALL, LOOKS = 1000, 2_000_000, 50  # of the long run: steps, bytes of a tree, times that the disk is looked at

Tree = dict[str, Any]


def lora(size: int, layers: int) -> Tree:
    """A tree of `size` bytes, with four tensors a layer."""
    draw = np.random.default_rng(0)
    base = {f"layer{i}": draw.integers(0, 1 << 16, int(FROZEN * size) // layers // 2, np.uint16) for i in range(layers)}
    rest = int((1 - FROZEN) * size) // layers // 4 // 3
    trained = {name: {f"layer{i}": np.zeros(rest, np.float32) for i in range(layers)} for name in ("lora", "m", "v")}
    return {"base": base, **trained}


def train(tree: Tree, names: tuple[str, ...] = ("lora", "m", "v")) -> None:
    """Change every element of these parts."""
    for name in names:
        for array in tree[name].values():
            array += 1


class Timed(NamedTuple):
    """Seconds by the clock and of all threads, and what the save reported."""

    clock: float
    cpu: float
    report: Any


def timed(call: Callable[[], Any]) -> Timed:
    os.sync()
    clock, cpu = time.perf_counter(), time.process_time()
    report = call()
    return Timed(time.perf_counter() - clock, time.process_time() - cpu, report)


def told(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def beside_full(folder: Path, tree: Tree, names: tuple[str, ...], rounds: int, *, durable: bool) -> dict[str, str]:
    """A step that shares with the one before, beside a full save."""
    ckptfmt.save(folder / "0", tree, layout="packed", durable=durable)
    before, found = "0", []
    for number in range(1, rounds + 2):
        train(tree, names)
        base, path, other = folder / before, folder / f"{number}", folder / "full"
        calls = {
            "shared": partial(ckptfmt.save, path, tree, share_with=base, durable=durable),
            "full": partial(ckptfmt.save, other, tree, layout="packed", durable=durable),
        }
        found.append({name: timed(calls[name]) for name in random.sample(list(calls), 2)})
        shutil.rmtree(other)
        shutil.rmtree(base)
        before = path.name
    shutil.rmtree(folder / before)
    found = found[1:]  # the first step finds out what lies apart
    written = [one["shared"].report.bytes - one["shared"].report.shared for one in found]
    return {
        "bytes": told([size / one["full"].report.bytes for size, one in zip(written, found, strict=True)]),
        "seconds": told([one["shared"].clock / one["full"].clock for one in found]),
        "CPU seconds": told([one["shared"].cpu / one["full"].cpu for one in found]),
        "a full save takes": told([one["full"].clock for one in found]),
    }


def long_run(folder: Path, *, share: bool) -> list[tuple[int, int]]:
    """Steps and bytes on the disk, now and then through a run that keeps all of its steps."""
    tree, found = lora(SMALL, 8), []
    with CheckpointManager(folder, share=share, durable=False) as manager:
        for step in range(1, STEPS + 1):
            train(tree)
            manager.save(step, tree)
            if step % (STEPS // LOOKS) == 0 or step == 1:
                found.append((step, usage_of(one.path for one in manager.steps()).on_disk))
    return found


def draw(runs: dict[str, list[tuple[int, int]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(7, 3.6))
    for (name, found), colour in zip(runs.items(), ("#94a3b8", "#c2410c"), strict=True):
        tree = found[0][1]
        steps, sizes = [step for step, _ in found], [size / tree for _, size in found]
        panel.plot(steps, sizes, color=colour, linewidth=2)
        place: dict[str, Any] = {
            "textcoords": "offset points",
            "ha": "right",
            "fontsize": 9,
            "color": colour,
        }
        panel.annotate(f"{name}: {sizes[-1]:,.0f}", (steps[-1], sizes[-1]), xytext=(-4, 6), **place)
    panel.set_xlabel("steps that are kept")
    panel.set_ylabel("disk, in full checkpoints")
    panel.set_title("95 % of the bytes are frozen", fontsize=10, loc="left")
    panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def picture(folder: Path) -> dict[str, float]:
    """Draw the run of a thousand steps; gives the disk of each in full checkpoints."""
    runs = {}
    for name, share in (("each written in full", False), ("share=True", True)):
        runs[name] = long_run(folder / "run", share=share)
        shutil.rmtree(folder / "run")
    draw(runs, PICTURE)
    return {name: round(found[-1][1] / found[0][1], 1) for name, found in runs.items()}


@click.command()
@click.option("--gb", type=float, default=1.9, help="Bytes of the tree, in GB.")
@click.option("--rounds", type=int, default=7)
@click.option("--dir", "parent", type=click.Path(path_type=Path), default=Path(), help="The disk that is meant.")
@click.option("--picture", "picture_only", is_flag=True, help="Draw the picture of the guide, and no more.")
def main(gb: float, rounds: int, parent: Path, picture_only: bool) -> None:
    """Run all of it, and print a line for each."""
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=parent) as name:
        folder = Path(name)
        if not picture_only:
            tree = lora(int(gb * 1e9), 24)
            for durable in (True, False):
                found = beside_full(folder, tree, ("lora", "m", "v"), rounds, durable=durable)
                click.echo(f"95 % frozen, durable={durable}, beside a full save: {found}")
            found = beside_full(folder, tree, ("base", "lora", "m", "v"), rounds, durable=False)
            click.echo(f"all changes, durable=False, beside a full save: {found}")
            del tree
        click.echo(f"disk of {STEPS:,} steps, in full checkpoints: {picture(folder)}")


if __name__ == "__main__":
    main()
