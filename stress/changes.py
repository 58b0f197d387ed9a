"""Memory that others change all the time while it is saved: every save that returns can be verified and loaded."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import ckptfmt
from ckptfmt.manager import CheckpointManager
from ckptfmt.parallel.files import FileCoordinator

from .processes import CONTEXT, PATIENCE, child
from .result import Result

COUNT = 200
LAYOUTS = ("file", "packed", "loose")
COMPRESSIONS = (None, "zstd", "gzip")
DTYPES = {"float64": "<f8", "foreign": ">f4", "bool": "?", "int4": ml_dtypes.int4, "bfloat16": ml_dtypes.bfloat16}


def run(folder: Path, *, seed: int, count: int = COUNT) -> Result:
    """`count` saves of each kind. The system's scheduler is what is random: the seed is not used."""
    bad: list[str] = []
    saves = 0
    with changing(folder) as tree:
        for what, save in kinds(folder, tree):
            for turn in range(count):
                path = save(turn)
                saves += 1
                problem = problem_of(path, tree)
                if problem:
                    bad.append(f"{what}, save {turn}: {problem}")
    return Result(f"{saves:,} saves of memory that was changed meanwhile", bad)


def kinds(folder: Path, tree: Any) -> Iterator[tuple[str, Callable[[int], Path]]]:
    """Every way to save, with what it is called; a save gives the place of the checkpoint."""
    for layout, compression in itertools.product(LAYOUTS, COMPRESSIONS):
        path = folder / f"{layout}-{compression}.ckpt"

        def save(_: int, path: Path = path, layout: str = layout, compression: Any = compression) -> Path:
            ckptfmt.save(path, tree, layout=layout, compression=compression, overwrite=True, durable=False)
            return path

        yield f"{layout}, {compression or 'raw'}", save
    yield "two ranks", lambda turn: saved_by_two(folder, tree, turn)
    for block in (True, False):
        with CheckpointManager(folder / f"run-{block}", keep=2, durable=False) as manager:

            def by_manager(turn: int, manager: Any = manager, block: bool = block) -> Path:
                manager.save(turn, tree, block=block)
                manager.wait()
                return Path(manager.steps()[-1].path)

            yield f"a manager, block={block}", by_manager


def saved_by_two(folder: Path, tree: Any, turn: int) -> Path:
    """A save by two ranks, each in a thread, with the same tensors."""
    path, meeting = folder / "ranks.ckpt", folder / f"ranks-{turn}"
    meeting.mkdir()

    def save(rank: int) -> None:
        coordinator = FileCoordinator(meeting, rank, 2)
        ckptfmt.save(path, tree, overwrite=True, durable=False, coordinator=coordinator)

    other = threading.Thread(target=save, args=(1,))
    other.start()
    save(0)
    other.join()
    return path


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[dict[str, Any]]:
    """A tree of arrays that a thread and another process change, without end."""
    arrays = {name: np.zeros((700, 1000), np.dtype(dtype)) for name, dtype in DTYPES.items()}
    shared = np.memmap(folder / "shared", np.uint8, "w+", shape=(8 << 20,))
    stopped, ended = threading.Event(), CONTEXT.Event()
    turner = threading.Thread(target=turn, args=([array.view(np.uint8) for array in arrays.values()], stopped))
    other = child(turn_shared, folder / "shared", ended)
    turner.start()
    try:
        strided, small = arrays["float64"].T[::2], [arrays["float64"][i] for i in range(20)]
        yield {"shared": shared, "strided": strided, "small": small, **arrays}
    finally:
        stopped.set()
        ended.set()
        turner.join()
        other.join(PATIENCE)


def turn(arrays: list[Any], stopped: threading.Event) -> None:
    """Change every byte, to 0 or 1 and back, which are values of every dtype."""
    while not stopped.is_set():
        for array in arrays:
            np.bitwise_xor(array, 1, out=array)


def turn_shared(path: Path, ended: Any) -> None:
    array = np.memmap(path, np.uint8, "r+")
    while not ended.is_set():
        array += 1


def problem_of(path: Path, tree: Any) -> str | None:
    """What is wrong with a checkpoint, if anything is."""
    report = ckptfmt.verify(path)
    if not report.ok:
        return str(report.damage[0])
    found = ckptfmt.load(path)
    return None if found.keys() == tree.keys() else f"the tree has {sorted(found)}"
