"""The course of a run: rounds in which every contender has its turn, in shuffled order.

A turn saves, loads, slices and then deletes, so the disk and the page cache hold one checkpoint at
a time. Ratios are taken within a round, so a machine that drifts between rounds moves both sides.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks import disk
from benchmarks.contenders.contender import Contender
from benchmarks.job import Job, Outcome
from benchmarks.memory import Sampler, Spell
from benchmarks.operations import OPERATIONS, SAVES
from benchmarks.results import Absence, Footprint, Results, Sample
from benchmarks.slices import ChildError, SliceReader
from benchmarks.states import STATES

ROOT = Path(__file__).resolve().parent.parent
SAMPLING_PAUSE = 0.002


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is run, and how."""

    contenders: tuple[Contender, ...]
    quick: bool
    rounds: int
    slow_rounds: int
    seed: int
    cold: bool

    def visits(self) -> list[tuple[str, int, list[Contender]]]:
        """State, round and who runs in it, in its order."""
        shuffler = random.Random(self.seed)
        visits = []
        for state in STATES:
            for number in range(self.rounds):
                present = [c for c in self.contenders if number < (self.slow_rounds if c.slow else self.rounds)]
                present = [c for c in present if self.operations(c, state, *SAVES, "load")]
                visits.append((state, number, shuffler.sample(present, len(present))))
        return visits

    def turns(self) -> int:
        """For the progress bar: every visit, and the memory pass."""
        return sum(len(present) for _, _, present in self.visits()) + len(self.contenders)

    def operations(self, contender: Contender, state: str, *actions: str) -> tuple[str, ...]:
        """The operations that a contender runs and shows on a state."""
        if state == "small" and contender.tedious and not self.quick:
            return ()
        return tuple(
            operation.name
            for operation in OPERATIONS
            if operation.state == state
            and operation.action in actions
            and contender.can(operation.action)
            and operation.name not in contender.omits
        )


class Course:
    """Runs a plan in a folder of its own and gathers the results."""

    def __init__(self, plan: Plan, folder: Path, results: Results, report: Callable[[str], None]) -> None:
        self._plan, self._folder, self._results, self._report = plan, folder, results, report
        self._path = folder / "checkpoint"
        self._slices = SliceReader(STATES["llama"](quick=plan.quick), cold=plan.cold)
        results.slice_bytes = self._slices.nbytes
        self._failed: set[tuple[str, str]] = set()

    def run(self) -> None:
        for state, number, present in self._plan.visits():
            for contender in present:
                self._report(f"{STATES[state](quick=True).title}, round {number + 1}: {contender.name}")
                self._guarded(contender, state, partial(self._turn, contender, state, number))
        for contender in self._plan.contenders:
            self._report(f"memory: {contender.name}")
            self._guarded(contender, "llama", partial(self._weigh, contender))

    def _guarded(self, contender: Contender, state: str, turn: Callable[[], None]) -> None:
        """A contender that fails is reported once and left out of that state from then on."""
        if (contender.name, state) in self._failed:
            return
        try:
            turn()
        except ChildError as error:
            self._failed.add((contender.name, state))
            self._results.absences.append(Absence(contender.name, f"failed on {state}: {error}"))
        finally:
            for path in self._folder.iterdir():
                disk.remove(path)

    def _turn(self, contender: Contender, state: str, number: int) -> None:
        """Save, load, slice."""
        saves = self._plan.operations(contender, state, *SAVES)
        loads = self._plan.operations(contender, state, "load", "map", "open")
        # A contender that shows no saves still needs a checkpoint to load.
        outcome = self._process(contender, state, saves or (("save",) if state == "llama" else ("small_save",)))
        seconds = {name: outcome.seconds[name] for name in saves}
        if "copy" in saves:
            self._results.samples.append(Sample("copy", contender.name, number, outcome.seconds["copy"]))
            return
        if saves:
            self._results.stored_bytes.setdefault(state, {})[contender.name] = disk.size(self._path)
        seconds |= self._process(contender, state, loads).seconds
        samples = [Sample(name, contender.name, number, figure) for name, figure in seconds.items()]
        if state == "llama":
            samples += self._slice(contender, number)
        self._results.samples += samples

    def _slice(self, contender: Contender, number: int) -> list[Sample]:
        if contender.slice is None:
            return []
        figures = self._slices.read(contender.slice, self._path, ROOT)
        return [Sample(f"slice_{what}", contender.name, number, seconds) for what, seconds in asdict(figures).items()]

    def _weigh(self, contender: Contender) -> None:
        """Memory, in processes that are sampled and therefore not timed."""
        for operation in ("save", "load"):
            if not contender.can(operation) or (operation in contender.omits and "load" in contender.omits):
                continue  # what omits its saves alone still needs a checkpoint to load
            sampled: list[Sampler] = []
            outcome = self._process(contender, "llama", (operation,), sampled)
            spell = outcome.spells.get(operation)
            if spell and operation not in contender.omits:
                footprint = Footprint(operation, contender.name, spell.resident_rise, sampled[0].rise(spell))
                self._results.footprints.append(footprint)

    def _process(
        self, contender: Contender, state: str, operations: tuple[str, ...], sampled: list[Sampler] | None = None
    ) -> Outcome:
        """Run a job in a fresh process; with `sampled`, watch its memory meanwhile."""
        job = Job(contender.name, state, operations, str(self._path), self._plan.quick, self._plan.cold)
        result = self._folder / "result.json"
        command = [sys.executable, "-m", "benchmarks.job", json.dumps(asdict(job)), str(result)]
        with tempfile.TemporaryFile("w+") as words:
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=words)
            try:
                if sampled is not None:
                    sampled.append(Sampler(process.pid))
                    while process.poll() is None:
                        sampled[0].sample()
                        time.sleep(SAMPLING_PAUSE)
                process.wait()
            finally:
                process.kill()
                process.wait()
            if process.returncode:
                words.seek(0)
                raise ChildError.quoting(words.read(), process.returncode)
        found = json.loads(result.read_text())
        os.unlink(result)
        return Outcome(found["seconds"], {name: Spell(**spell) for name, spell in found["spells"].items()})
