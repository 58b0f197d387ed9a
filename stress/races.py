"""Many writers at once on one path, threads and processes: exclusive saves have one winner, and every other writer is
told `exists`; of replacing saves all succeed, and one of them is there, whole."""

from __future__ import annotations

import itertools
import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np

import ckptfmt
from ckptfmt.storage import TEMPORARY_SUFFIX
from ckptfmt.testing import equal_trees

from .processes import CONTEXT, PATIENCE, child
from .result import Result

COUNT = 200
WRITERS = 16
LAYOUTS = ("file", "packed", "loose")
KINDS = ("threads", "processes")


def run(folder: Path, *, seed: int, count: int = COUNT, writers: int = WRITERS) -> Result:
    """`count` rounds for each layout, threads and processes, exclusive and replacing. The system's scheduler is what
    is random: the seed is not used."""
    bad: list[str] = []
    rounds = 0
    for layout, kind, overwrite in itertools.product(LAYOUTS, KINDS, (False, True)):
        what = f"{layout}, {kind}, {'replacing' if overwrite else 'exclusive'}"
        work = folder / what.replace(", ", "-")
        work.mkdir()
        for turn, outcomes in enumerate(race(work, layout, kind, overwrite, count, writers)):
            path = work / f"{turn}.ckpt"
            bad += [f"{what}, round {turn}: {text}" for text in problems(path, overwrite, outcomes)]
            rounds += 1
        bad += [f"{what}: {path.name} is left" for path in work.glob(f".*{TEMPORARY_SUFFIX}")]
    return Result(f"{rounds:,} rounds of {writers} writers", bad)


def candidate(number: int) -> dict[str, Any]:
    """A tree whose every part says who wrote it, large enough to be written in several calls."""
    return {"number": number, "arrays": [np.full(size, number, np.int32) for size in (1, 40_000, 5)]}


Outcomes = dict[int, str]  # of each writer: "saved", or the code of its error


def race(folder: Path, layout: str, kind: str, overwrite: bool, rounds: int, writers: int) -> list[Outcomes]:
    """What became of each writer in each round."""
    start: Any = threading.Barrier(writers) if kind == "threads" else CONTEXT.Barrier(writers)
    results: Any = queue.Queue() if kind == "threads" else CONTEXT.Queue()
    runners = []
    for number in range(writers):
        arguments = (folder, layout, overwrite, number, rounds, start, results)
        if kind == "threads":
            thread = threading.Thread(target=save_in_rounds, args=arguments, daemon=True)
            thread.start()
            runners.append(thread)
        else:
            runners.append(child(save_in_rounds, *arguments))
    outcomes: list[Outcomes] = [{} for _ in range(rounds)]
    for _ in range(writers * rounds):
        turn, number, outcome = results.get(timeout=PATIENCE)
        outcomes[turn][number] = outcome
    for runner in runners:
        runner.join(PATIENCE)
    return outcomes


def save_in_rounds(
    folder: Path, layout: str, overwrite: bool, number: int, rounds: int, start: Any, results: Any
) -> None:
    """Save at the same moment as the others, once in each round, and tell how it went."""
    for turn in range(rounds):
        start.wait(PATIENCE)
        try:
            ckptfmt.save(folder / f"{turn}.ckpt", candidate(number), layout=layout, overwrite=overwrite, durable=False)
            results.put((turn, number, "saved"))
        except ckptfmt.CkptError as error:
            results.put((turn, number, error.code))
        except BaseException as error:
            results.put((turn, number, repr(error)))


def problems(path: Path, overwrite: bool, outcomes: Outcomes) -> list[str]:
    """What is wrong with a round."""
    texts = []
    winners = [number for number, outcome in outcomes.items() if outcome == "saved"]
    others = {outcome for outcome in outcomes.values() if outcome != "saved"}
    if not overwrite and (len(winners) != 1 or others != {"exists"}):
        texts.append(f"{len(winners)} winners, and {others or 'no losers'}")
    if overwrite and others:
        texts.append(f"a writer was told {others}")
    try:
        found = ckptfmt.load(path)
        if not (found["number"] in winners and equal_trees(found, candidate(found["number"]))):
            texts.append(f"writer {found['number']} is there, and {winners} have won")
        if not ckptfmt.verify(path).ok:
            texts.append("it is damaged")
    except ckptfmt.CkptError as error:
        texts.append(f"it cannot be loaded: {error}")
    return texts
