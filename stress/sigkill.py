"""Saves in a child process that is killed at a random moment: no checkpoint whose save has returned is lost, none is
torn, and what the save in flight leaves is the old checkpoint, the new one, or a temporary that is refused."""

from __future__ import annotations

import itertools
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

import ckptfmt
from ckptfmt.storage import TEMPORARY_SUFFIX
from ckptfmt.testing import equal_trees

from .processes import CONTEXT, child
from .result import Result

COUNT = 1000
LAYOUTS = ("file", "packed", "loose")
SHARING = "new names, sharing"  # each with the one before
HISTORY = "steps of a run, patches"  # all but the last
KINDS = [
    *itertools.product(LAYOUTS, ("new names", "one name")),
    *itertools.product(("packed", "loose"), (SHARING,)),
    *itertools.product(LAYOUTS, (HISTORY,)),
]


def run(folder: Path, *, seed: int, count: int = COUNT) -> Result:
    """`count` kills, in turn of saves in each layout to new names, and over one name, of saves that share, and of runs
    whose older steps become patches."""
    moments = random.Random(seed)
    bad: list[str] = []
    midway = saves = 0
    for number in range(count):
        layout, kind = KINDS[number % len(KINDS)]
        work = folder / str(number)
        work.mkdir()
        begun, ended = killed(work, layout, kind, moments.uniform(0, 0.06))
        bad += [f"kill {number}, {layout}, {kind}: {text}" for text in problems(work, kind, begun, ended)]
        midway += begun > ended
        saves += ended
        shutil.rmtree(work)
    return Result(f"{count:,} kills, {midway:,} of them in the middle of a save, after {saves:,} that had ended", bad)


def tree(number: int, *, frozen: bool = False) -> dict[str, Any]:
    """All of it changes with the number, but for what is `frozen`, most of the bytes."""
    arrays = [np.full(size, number, np.int32) for size in (1, 300_000, 3, 50_000)]
    return {"number": number, "arrays": arrays, **({"frozen": np.arange(800_000)} if frozen else {})}


def killed(folder: Path, layout: str, kind: str, seconds: float) -> tuple[int, int]:
    """Let a child save until it is killed, so many seconds after its first save; gives the saves begun and ended."""
    counts = CONTEXT.Array("q", 2, lock=False)
    process = child(save_for_ever, folder, layout, kind, counts)
    try:
        while not counts[1]:
            assert process.is_alive(), "the child does not save"
            time.sleep(0.001)
        time.sleep(seconds)
    finally:
        process.kill()
        process.join()
    return counts[0], counts[1]


def save_for_ever(folder: Path, layout: str, kind: str, counts: Any) -> None:
    if kind == HISTORY:
        manager = ckptfmt.CheckpointManager(folder, layout=layout, history="patches")
    for number in itertools.count(1):
        counts[0] = number
        if kind == HISTORY:
            manager.save(number, tree(number, frozen=True), block=number % 3 > 0)
            manager.wait()
            counts[1] = number
            continue
        base = path_of(folder, kind, number - 1) if kind == SHARING and number > 1 else None
        path, overwrite = path_of(folder, kind, number), kind == "one name"
        ckptfmt.save(path, tree(number, frozen=kind == SHARING), layout=layout, overwrite=overwrite, share_with=base)
        counts[1] = number


def path_of(folder: Path, kind: str, number: int) -> Path:
    names = {"one name": "model.ckpt", HISTORY: f"step-{number:010d}.ckpt"}
    return folder / names.get(kind, f"{number}.ckpt")


def problems(folder: Path, kind: str, begun: int, ended: int) -> list[str]:
    """What is wrong with what a killed child has left."""
    texts = []
    wanted = {path_of(folder, kind, number): number for number in range(1, ended + 1)}  # the last of each name
    may_be = path_of(folder, kind, begun)
    for path in sorted(folder.iterdir()):
        if path.name.endswith(TEMPORARY_SUFFIX):
            texts += [f"{path.name} is not refused"] * (found(path) != "temporary")
        elif path not in wanted and path != may_be and path.name != "kept.json":
            texts.append(f"{path.name} is there")
    for path in {*wanted, may_be}:
        allowed = [wanted.get(path, "not-found"), *([begun] if path == may_be else [])]
        what = found(path)
        if what not in allowed:
            texts.append(f"{path.name} is {what}, not {allowed}")
    return texts


def found(path: Path) -> int | str:
    """The number of the checkpoint at a path, which is whole, or the code of what is wrong."""
    try:
        loaded = ckptfmt.load(path, base=path.parent)
        if not ckptfmt.verify(path).ok:
            return "damaged"
    except ckptfmt.CkptError as error:
        return error.code
    whole = tree(loaded["number"], frozen="frozen" in loaded)
    return int(loaded["number"]) if equal_trees(loaded, whole) else "wrong"
