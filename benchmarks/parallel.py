"""`python -m benchmarks.parallel`: many processes that save one checkpoint.

First on paper: a checkpoint of many tensors, each cut over all ranks. Of the ranks only two are there, in threads of
this process; the messages of all others are made up from theirs, and their packs are never written. What rank 0 does,
what it writes, and what a reader reads is real. Then on disk: processes that save one state together, beside one
process that saves it alone.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import ml_dtypes
import msgpack
import numpy as np
from rich.console import Console
from rich.table import Table

import ckptfmt
from benchmarks.memory import Meter
from benchmarks.states import STATES
from ckptfmt.format.manifest import Manifest
from ckptfmt.frameworks.sources import Shard, Sharded
from ckptfmt.parallel.coordinator import Answer
from ckptfmt.parallel.proposal import Boxes
from ckptfmt.reading.checkpoint import StoredCheckpoint

WIDTH = 128  # elements of the one row of each tensor that a rank of the simulation holds
MB = 1e6

# ---- on paper


@dataclass(frozen=True, slots=True)
class Size:
    """How many tensors are cut over how many ranks, and whether their tables stand in pages."""

    tensors: int
    ranks: int
    paged: bool = False

    @property
    def witness(self) -> int:
        """The rank beside rank 0 that is there."""
        return self.ranks * 3 // 4


class Seat:
    """The coordinator of rank 0, or of the witness, in a crowd of ranks that are not there."""

    def __init__(self, size: Size, rank: int, sent: queue.SimpleQueue[bytes], back: queue.SimpleQueue[bytes]) -> None:
        self.rank, self.size = rank, size.ranks
        self.answering: list[float] = []  # seconds of rank 0 in each round
        self._crowd, self._sent, self._back = size, sent, back

    def exchange(self, message: bytes, answer: Answer) -> bytes:
        if self.rank:
            self._sent.put(message)
            return self._back.get()
        messages = self._made_up(len(self.answering), message, self._sent.get())
        began = time.perf_counter()
        replies = answer(messages)
        self.answering.append(time.perf_counter() - began)
        self._back.put(replies[self._crowd.witness])
        return replies[0]

    def _made_up(self, number: int, own: bytes, witness: bytes) -> list[bytes]:
        call, kind, said = msgpack.unpackb(witness, strict_map_key=False)
        assert kind == "ok", said
        ranks = range(1, self.size)
        if number == 0:  # all have one outline
            return [own] * self.size
        if number == 1:
            boxes = Boxes.decode(said[1])
            told = ([None, _moved(boxes, rank).encode()] for rank in ranks)
            return [own, *(bytes(msgpack.packb([call, "ok", each])) for each in told)]
        ((_, _, size, frame, path, *rest),), seen = said  # where it is to stand in pages, the table begins in its place

        def row(rank: int) -> list[Any]:
            own_path = path if self._crowd.paged else f"parts/{rank:05d}.msgpack"
            return [rank, f"packs/{rank:05d}.zip", size, frame, own_path, *rest]

        return [own, *(bytes(msgpack.packb([call, "ok", [[row(rank)], seen]])) for rank in ranks)]


def _moved(boxes: Boxes, rank: int) -> Boxes:
    start = boxes.start.astype(np.int64)
    start[:, 0] = rank
    return Boxes(boxes.tensor, start, boxes.extent)


def _tree(size: Size, rank: int) -> dict[str, Any]:
    """What a rank holds: one row of each tensor."""
    row = np.full((1, WIDTH), rank, ml_dtypes.bfloat16)
    held = (Shard((rank, 0), row),)
    return {name: Sharded((size.ranks, WIDTH), row.dtype, held) for name in map(_name, range(size.tensors))}


def _name(number: int) -> str:
    return f"layers.{number // 10}.weight.{number % 10}"


def simulate(size: Size, folder: Path) -> list[str]:
    """The figures of one row of the table."""
    path = folder / "simulated.ckpt"
    sent: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    back: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    seats = {rank: Seat(size, rank, sent, back) for rank in (0, size.witness)}
    trees = {rank: _tree(size, rank) for rank in seats}
    how = {"durable": False, "paged": size.paged}
    threads = [
        threading.Thread(target=ckptfmt.save, args=(path, trees[rank]), kwargs={"coordinator": seat, **how})
        for rank, seat in seats.items()
    ]
    with Meter() as meter:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rise = meter.spell.resident_rise if meter.spell else 0
    opening, finding = [], []
    for _ in range(5):
        began = time.perf_counter()
        with StoredCheckpoint(path) as checkpoint:
            opening.append(time.perf_counter() - began)
            began = time.perf_counter()
            found = checkpoint[_name(size.tensors // 2)][size.witness]
            finding.append(time.perf_counter() - began)
            manifest = checkpoint.manifest
            read = _read_for_a_slice(path, size, manifest)
    assert (found == np.array(size.witness, found.dtype)).all()
    rows = None if manifest.placement is None else len(manifest.placement.first)
    _, plan, commit = seats[0].answering
    figures = [
        f"{size.tensors:,}",
        f"{size.ranks:,}",
        f"{size.tensors * size.ranks:,}",
        f"{plan:.2f} s",
        f"{commit:.2f} s",
        f"{rise / MB:,.0f} MB",
        f"{(path / 'manifest.msgpack').stat().st_size / MB:.2f} MB",
        "in pages" if rows is None else f"{rows:,}",
        f"{min(opening) * 1e3:.1f} ms",
        f"{min(finding) * 1e3:.2f} ms",
        f"{read / 1e3:,.1f} kB",
    ]
    shutil.rmtree(path)
    return figures


def _read_for_a_slice(path: Path, size: Size, manifest: Manifest) -> int:
    """Bytes of the part manifest, or of the largest page, that is read for one row of a tensor."""
    if manifest.pages is not None:
        return max(manifest.pages._pages.lengths)
    return (path / f"parts/{size.witness:05d}.msgpack").stat().st_size


COLUMNS = (
    "tensors",
    "ranks",
    "chunks",
    "rank 0 plans",
    "and commits",
    "its memory",
    "root manifest",
    "placement rows",
    "open",
    "first slice",
    "reads of a part or page",
)

# ---- on disk


def _share(array: Any, rank: int, ranks: int) -> Sharded:
    """A rank's rows of an array, as torch.chunk cuts it."""
    share = -(-len(array) // ranks)
    mine = slice(min(rank * share, len(array)), min((rank + 1) * share, len(array)))
    return Sharded(array.shape, array.dtype, (Shard((mine.start, *[0] * (array.ndim - 1)), array[mine]),))


def _take_part(arrays: dict[str, Any], folder: Path, rank: int, ranks: int, durable: bool, *ends: Any) -> None:
    start, spans = ends
    tree = {name: _share(array, rank, ranks) for name, array in arrays.items()}
    with ckptfmt.FileCoordinator(folder, rank, ranks) as coordinator:
        start.wait()
        began = time.monotonic()
        ckptfmt.save(folder / "x.ckpt", tree, coordinator=coordinator, durable=durable)
        spans.put((began, time.monotonic()))


def save_together(arrays: dict[str, Any], parent: Path, ranks: int, durable: bool) -> float:
    """Seconds from the first rank's begin to the last rank's end."""
    context = multiprocessing.get_context("fork")  # the ranks share the arrays
    start, spans = context.Barrier(ranks), context.SimpleQueue()
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        rest = (Path(folder), ranks, durable, start, spans)
        workers = [context.Process(target=_take_part, args=(arrays, rest[0], rank, *rest[1:])) for rank in range(ranks)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            if worker.exitcode:
                raise click.ClickException("a rank has failed")
        found = [spans.get() for _ in workers]
        os.sync()  # so that the next turn has the disk to itself
    return float(max(end for _, end in found) - min(began for began, _ in found))


def race(parent: Path, *, quick: bool, rounds: int, ranks: tuple[int, ...]) -> Iterator[list[str]]:
    """A row for each way of saving and number of ranks: time, throughput, and ratio to one rank in the same round."""
    state = STATES["llama"](quick=quick)
    arrays = state.arrays()
    size = sum(array.nbytes for array in arrays.values())
    for durable in (True, False):
        seconds: dict[int, list[float]] = {count: [] for count in ranks}
        for number in range(rounds):
            for count in ranks if number % 2 else ranks[::-1]:
                seconds[count].append(save_together(arrays, parent, count, durable))
        for count in ranks:
            ratios = [one / many for one, many in zip(seconds[1], seconds[count], strict=True)]
            median = statistics.median(seconds[count])
            yield [
                "yes" if durable else "no",
                f"{count}",
                f"{size / 1e9:.2f} GB",
                f"{median:.2f} s",
                f"{size / median / 1e9:.2f} GB/s",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            ]


def _print(console: Console, title: str, columns: tuple[str, ...], rows: Any) -> None:
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    console.print(table)


@click.command()
@click.option("--quick", is_flag=True, help="Fewer ranks, a far smaller state and fewer rounds, for a glance.")
@click.option(
    "--dir",
    "parent",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    help="Where temporary folders are made (and removed): the disk that is measured.",
)
@click.option("--rounds", type=click.IntRange(1), help="Rounds on disk [default: 5, quick 2].")
def main(*, quick: bool, parent: Path, rounds: int | None) -> None:
    """Measure saves by many processes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a terminated run, too, removes its gigabytes
    console = Console(width=max(150, Console().width))
    counts = (10, 100, 1000) if quick else (10, 100, 1000, 10_000)
    many = [Size(number * counts[-1], 100, paged) for number in (1, 2) for paged in (False, True)]
    sizes = [*(Size(1000, ranks) for ranks in counts), *many, Size(1000, counts[-1], True)]
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=parent) as folder:
        _print(console, "On paper", COLUMNS, (simulate(size, Path(folder)) for size in sizes))
        rows = race(Path(folder), quick=quick, rounds=rounds or (2 if quick else 5), ranks=(1, 2, 4))
        _print(console, "On disk", ("durable", "ranks", "state", "time", "throughput", "of one rank's"), rows)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.parallel")
