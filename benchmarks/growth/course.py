"""Rounds in which every racer has its turn at every point, in an order shuffled anew for each of them."""

from __future__ import annotations

import compileall
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import disk
from benchmarks.contenders import BY_NAME, missing
from benchmarks.growth.lines import Line, Point
from benchmarks.growth.worker import Job
from benchmarks.results import Absence, Spread
from benchmarks.slices import ChildError

ROOT = Path(__file__).resolve().parent.parent.parent
BRIEF = 3  # fresh processes for one figure of what takes milliseconds


@dataclass(frozen=True, slots=True)
class Racer:
    """A contender, and the tree of sources that its `ckptfmt` comes from."""

    name: str
    contender: str
    tree: Path = ROOT

    def environment(self, folder: Path) -> dict[str, str]:
        """The benchmarks of this tree, through a link of their own, with the `ckptfmt` of the racer's."""
        link = folder / "benchmarks"
        if not link.exists():
            link.symlink_to(ROOT / "benchmarks")
        paths = (folder, self.tree, self.tree / "adapters")
        return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds of the clock and of the processor."""

    line: str
    at: int
    action: str
    racer: str
    round: int
    seconds: float
    processor: float


@dataclass(slots=True)
class Found:
    """Everything measured, and the ratios drawn from it."""

    setting: dict[str, str]
    samples: list[Sample] = field(default_factory=list)
    absences: list[Absence] = field(default_factory=list)
    stored: dict[str, dict[int, dict[str, int]]] = field(default_factory=dict)

    def of(self, line: Line, at: int, action: str, racer: str) -> dict[int, Sample]:
        """Samples by round."""
        key = (line.title, at, action, racer)
        return {s.round: s for s in self.samples if (s.line, s.at, s.action, s.racer) == key}

    def median(self, line: Line, at: int, action: str, racer: str) -> float | None:
        seconds = [sample.seconds for sample in self.of(line, at, action, racer).values()]
        return statistics.median(seconds) if seconds else None

    def ratio(self, line: Line, at: int, action: str, racer: str, other: str, what: str = "seconds") -> Spread | None:
        """How many times as fast as `other` in the same round."""
        own, beside = self.of(line, at, action, racer), self.of(line, at, action, other)
        pairs = [getattr(beside[n], what) / max(getattr(own[n], what), 1e-9) for n in own if n in beside]
        return Spread.of(pairs) if pairs else None


class Course:
    """Runs lines in a folder of its own."""

    def __init__(self, racers: tuple[Racer, ...], folder: Path, found: Found, *, cold: bool, seed: int) -> None:
        self._racers, self._folder, self._found, self._cold = racers, folder, found, cold
        self._shuffler = random.Random(seed)
        self._failed: set[tuple[str, str, int]] = set()
        for racer in racers:  # as what is installed is
            compileall.compile_dir(racer.tree / "ckptfmt", quiet=2)

    def run(self, lines: tuple[Line, ...], rounds: int, report: Callable[[str], None]) -> None:
        for number in range(rounds):
            for line in lines:
                for point in line.points:
                    racers = self._of(line)
                    for racer in self._shuffler.sample(racers, len(racers)):
                        report(f"round {number + 1}, {line.title}, {line.at(point):,} {line.unit}: {racer.name}")
                        self._turn(line, point, racer, number)

    def _of(self, line: Line) -> tuple[Racer, ...]:
        if not line.beside:
            return self._racers
        ours = (racer for racer in self._racers if racer.contender == "ckptfmt")
        return (*ours, *(Racer(name, name) for name in line.beside if not missing(BY_NAME[name])))

    def _turn(self, line: Line, point: Point, racer: Racer, number: int) -> None:
        at = line.at(point)
        if (racer.name, line.title, at) in self._failed:
            return
        checkpoint = self._folder / "checkpoint"
        try:
            for action, seconds in self._actions(line, point, racer, checkpoint):
                self._found.samples.append(Sample(line.title, at, action, racer.name, number, *seconds))
            sizes = self._found.stored.setdefault(line.title, {}).setdefault(at, {})
            sizes[racer.name] = disk.size(checkpoint)
        except ChildError as error:
            self._failed.add((racer.name, line.title, at))
            self._found.absences.append(Absence(racer.name, f"failed at {line.title}, {at:,} {line.unit}: {error}"))
        finally:
            disk.remove(checkpoint)

    def _actions(self, line: Line, point: Point, racer: Racer, path: Path) -> Iterator[tuple[str, list[float]]]:
        for action in line.actions:
            job = Job(racer.contender, action, point.count, point.nbytes, str(path), self._cold)
            runs = [self._process(job, racer) for _ in range(BRIEF if action == "first" or point.is_small else 1)]
            yield action, sorted(runs)[len(runs) // 2]

    def _process(self, job: Job, racer: Racer) -> list[float]:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "benchmarks.growth.worker", json.dumps(asdict(job))],
            cwd=self._folder, env=racer.environment(self._folder), capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise ChildError.quoting(done.stderr, done.returncode)
        seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
        return seconds
