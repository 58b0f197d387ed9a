"""A state machine: saving, failing, crashing, restarting, pruning, overwriting and reading, beside a plain model.

A crash makes every later call to the disk fail, so that nothing is cleaned up, as when a process dies. At any time each
step listed is whole and is what was saved; nothing that must be kept is lost; after a prune nothing else is there.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import tempfile
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from damage import LAYOUTS, leftovers, use_disk
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import ckptfmt
from ckptfmt.manager import Background, Best, CheckpointManager, CopyTo, CopyWarning, Every, Last, copies
from ckptfmt.manager.policies import reasons_to_keep

KEEP = [Last(2), Every(5), Best("loss", 1)]
FEWER = max(12, settings().max_examples // 4)  # examples of the slower machines
LOSS = st.sampled_from([0.5, 1.0, 2.0, math.nan, None])


class Crash(BaseException):
    """The end of the process."""


class Disks:
    """What the calls of all disks do: nothing special, fail once at a call, or crash there."""

    def __init__(self) -> None:
        self.patch = use_disk(self.before)
        for name in ("pipe_file", "rm_file"):  # what changes a store
            self.patch.setattr(MemoryFileSystem, name, self._watched(getattr(MemoryFileSystem, name)))
        self.calm()

    def calm(self) -> None:
        self.left, self.error = -1, None

    def _watched(self, call: Any) -> Any:
        def watched(*arguments: Any, **options: Any) -> Any:
            self.before()
            return call(*arguments, **options)

        return watched

    def at(self, call: int, error: BaseException) -> None:
        self.left, self.error = call, error

    def before(self, *_: Any) -> None:
        if self.error is None:
            return
        if self.left == 0 or (self.left < 0 and isinstance(self.error, Crash)):
            self.left = -1
            raise self.error
        self.left -= 1


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.disks = Disks()
        self.weights = np.zeros(10)
        self.model: dict[int, tuple[int, float | None]] = {}  # step to (value, loss), as they are known to be there
        self.value = 0
        self.lease: Any = None

    @initialize(layout=st.sampled_from(LAYOUTS))
    def start(self, layout: str) -> None:
        self.layout = layout
        self.restart()

    def restart(self) -> None:
        self.manager = CheckpointManager(
            self.directory, keep=KEEP, layout=self.layout, durable=False, background=Background(max_in_flight=2)
        )

    @property
    def directory(self) -> str:
        return f"{self.folder.name}/run"

    def teardown(self) -> None:
        self.let_go()
        self.disks.patch.undo()
        self.folder.cleanup()

    # ---- the model

    @property
    def held(self) -> set[int]:
        return set() if self.lease is None else {self.lease[1].step}

    def kept(self, model: dict[int, Any]) -> dict[int, Any]:
        steps = [
            SimpleNamespace(step=step, metrics={} if loss is None else {"loss": loss})
            for step, (_, loss) in sorted(model.items())
        ]
        wanted = {*reasons_to_keep(steps, KEEP), *self.held}
        return {step: entry for step, entry in model.items() if step in wanted}

    def listed(self) -> set[int]:
        return {step.step for step in self.manager.steps()}

    def settle(self, before: dict[int, Any], after: dict[int, Any], step: int) -> None:
        """After a failure: the directory is as before, or the new step is there, and some deletions are done."""
        there = self.listed()
        is_new = step in there and self.stored(step) == after[step][0]
        is_gone = step not in there and step not in self.kept(after)  # it may have been committed and pruned
        surely = self.kept(after) if is_new or is_gone else before
        assert set(surely) <= there | ({step} - set(before)), "a step that must be kept is lost"
        assert there <= {*before, step}, "a step is there that was deleted, or never committed"
        known = {**before, **({step: after[step]} if is_new else {})}
        self.model = {each: known[each] for each in there}

    def stored(self, step: int) -> int:
        return int(self.manager.restore(step)["value"])

    # ---- saving

    def save(self, step: int, loss: float | None, block: bool, overwrite: Any) -> dict[int, Any]:
        """Save, and give the model of what should be there before pruning."""
        self.value += 1
        self.weights[:] = self.value
        later = {} if overwrite != "later" else {each for each in self.model if each > step}
        after = {each: entry for each, entry in self.model.items() if each not in later}
        after[step] = (self.value, loss)
        tree = {"w": self.weights, "value": self.value}
        metrics = None if loss is None else {"loss": loss}
        self.pending = after
        self.manager.save(step, tree, metrics=metrics, block=block, overwrite=overwrite)
        self.weights[:] = -1  # a snapshot does not mind
        self.manager.wait()
        return after

    def next_step(self, ahead: int) -> int:
        return max(self.model, default=-1) + ahead

    @rule(ahead=st.integers(1, 4), loss=LOSS, block=st.booleans())
    def save_next(self, ahead: int, loss: float | None, block: bool) -> None:
        self.model = self.kept(self.save(self.next_step(ahead), loss, block, False))
        assert self.listed() == set(self.model)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), block=st.booleans())
    def refuse_older(self, data: st.DataObject, block: bool) -> None:
        step = data.draw(st.integers(0, max(self.model)))
        with pytest.raises(ckptfmt.ExistsError):
            self.manager.save(step, {}, block=block)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), loss=LOSS, block=st.booleans(), overwrite=st.sampled_from([True, "later"]))
    def overwrite(self, data: st.DataObject, loss: float | None, block: bool, overwrite: Any) -> None:
        step = data.draw(st.integers(0, max(self.model)))
        if step in self.held:
            self.let_go()
        if overwrite == "later" and any(each > step for each in self.held):
            self.let_go()
        self.model = self.kept(self.save(step, loss, block, overwrite))
        assert self.listed() == set(self.model)

    @rule(
        ahead=st.integers(-6, 3),
        loss=LOSS,
        block=st.booleans(),
        call=st.integers(0, 14),
        crashes=st.booleans(),
        overwrite=st.sampled_from([False, True, "later"]),
    )
    def fail(self, ahead: int, loss: float | None, block: bool, call: int, crashes: bool, overwrite: Any) -> None:
        """A save during which a call to the disk fails, or after which nothing happens any more."""
        self.let_go()
        step = max(0, self.next_step(ahead))
        if not overwrite and step <= max(self.model, default=-1):
            step = self.next_step(1)
        before = dict(self.model)
        self.disks.at(call, Crash() if crashes else OSError(errno.EACCES, os.strerror(errno.EACCES)))
        try:
            self.save(step, loss, block, overwrite)
        except (Crash, ckptfmt.StorageError):
            pass
        finally:
            self.disks.calm()
        if crashes:
            self.restart()
        self.settle(before, self.pending, step)

    # ---- the rest

    @rule()
    def restart_and_prune(self) -> None:
        self.restart()
        planned = self.manager.plan()
        assert self.manager.prune() == planned
        self.model = self.kept(self.model)
        assert set(planned.kept) == self.listed() == set(self.model)
        if self.lease is None:
            assert self.leftovers() == []

    def leftovers(self) -> list[Any]:
        return leftovers(Path(self.directory))

    @precondition(lambda self: self.model and self.lease is None)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        step = data.draw(st.sampled_from(sorted(self.model)))
        context = CheckpointManager(self.directory).lease(step)
        self.lease = (context, context.__enter__())

    @rule()
    def let_go(self) -> None:
        if self.lease is not None:
            self.lease[0].__exit__(None, None, None)
            self.lease = None

    @invariant()
    def everything_listed_is_whole(self) -> None:
        steps = self.manager.steps()
        assert [step.step for step in steps] == sorted(self.model)
        latest, best = self.manager.latest(), self.manager.best()
        assert (latest and latest.step) == max(self.model, default=None)
        losses = {s: loss for s, (_, loss) in self.model.items() if loss is not None and not math.isnan(loss)}
        assert (best and losses[best.step]) == (min(losses.values()) if losses else None)
        for step in steps:
            value, loss = self.model[step.step]
            tree = self.manager.restore(step.step)
            assert tree["value"] == value
            assert (tree["w"] == value).all()
            assert step.metrics.get("loss") == loss or math.isnan(loss or 0)
            assert not step.run.damage_of(step)


Machine.TestCase.settings = settings(stateful_step_count=25)
TestManager = Machine.TestCase


class MachineOnStore(Machine):
    """The same on a store, in memory."""

    @initialize()
    def start(self) -> None:  # type: ignore[override]
        MemoryFileSystem.store.clear()
        super().start("file")

    @property
    def directory(self) -> str:
        return "memory://model/run"

    def leftovers(self) -> list[Any]:
        return [name for name in MemoryFileSystem.store if name.rpartition("/")[2].startswith(".")]


MachineOnStore.TestCase.settings = settings(stateful_step_count=25, max_examples=FEWER)
TestManagerOnStore = MachineOnStore.TestCase


class MachineWithCopies(RuleBasedStateMachine):
    """A run with a second directory, and failures at any call to either disk, in saves, deletions and copies: all that
    was committed, and not given up, is there in the end, whole, in the second directory; and in the first the last two
    of what it had, which is not filled up from the second where later steps are given up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(copies, "FIRST_PAUSE", 0.001)
        self.disks = Disks()
        self.model: dict[int, int] = {}
        self.first: set[int] = set()  # what the first directory had when it was last seen, and what was saved since
        self.value = 0

    @initialize(layout=st.sampled_from(LAYOUTS))
    def start(self, layout: str) -> None:
        self.layout = layout
        self.restart()

    @rule()
    def restart(self) -> None:
        there = CopyTo(f"{self.folder.name}/second", at_exit="abort")
        self.manager = CheckpointManager(
            f"{self.folder.name}/run", keep=2, copy_to=there, layout=self.layout, durable=False
        )
        self.manager.should_save(1 << 40)  # the copies that the one before left are made now
        assert self.manager.wait_for_copies(30)

    def teardown(self) -> None:
        self.disks.patch.undo()
        self.patch.undo()
        self.folder.cleanup()

    def save(self, step: int, block: bool, overwrite: Any) -> bool:
        """Gives whether the step was copied, too, as it is unless the process ends meanwhile."""
        self.value += 1
        self.manager.save(step, {"w": np.full(9, self.value)}, block=block, overwrite=overwrite)
        self.manager.wait()
        return self.manager.wait_for_copies(30)

    def after(self, step: int, overwrite: Any) -> dict[int, int]:
        kept = {each: value for each, value in self.model.items() if overwrite != "later" or each < step}
        return {**kept, step: self.value}

    def committed(self, step: int, model: dict[int, int]) -> None:
        self.model = model
        self.first = (self.first | {step}) & set(model)

    @rule(ahead=st.integers(1, 3), block=st.booleans())
    def save_next(self, ahead: int, block: bool) -> None:
        step = max(self.model, default=0) + ahead
        assert self.save(step, block, False)
        self.committed(step, self.after(step, False))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), block=st.booleans(), overwrite=st.sampled_from([True, "later"]))
    def overwrite(self, data: st.DataObject, block: bool, overwrite: Any) -> None:
        step = data.draw(st.sampled_from(sorted(self.model)))
        assert self.save(step, block, overwrite)
        self.committed(step, self.after(step, overwrite))

    @rule(
        back=st.integers(0, 4),
        block=st.booleans(),
        call=st.integers(0, 30),
        crashes=st.booleans(),
        overwrite=st.sampled_from([False, True, "later"]),
    )
    def fail(self, back: int, block: bool, call: int, crashes: bool, overwrite: Any) -> None:
        """A call to a disk fails, once; or nothing happens any more after it."""
        last = max(self.model, default=0)
        step = max(1, last - back) if overwrite else last + 1
        before = dict(self.model)
        self.disks.at(call, Crash() if crashes else OSError(errno.EIO, os.strerror(errno.EIO)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CopyWarning)
            thread = threading.Thread(target=self._save_quietly, args=(step, block, overwrite))
            thread.start()
            while thread.is_alive():
                thread.join(0.002)
                if isinstance(self.disks.error, Crash) and self.disks.left == -1 and not self.manager._worker.steps:
                    self.manager._copier.close()  # type: ignore[union-attr]  # what was being copied stays undone
            self.disks.calm()
            if not crashes:
                assert self.manager.wait_for_copies(30)
        self.restart()
        after = self.after(step, overwrite)
        there = {each.step: int(self.manager.restore(each.step)["w"][0]) for each in self.manager.steps()}
        is_new = there.get(step) == self.value
        surely = after if is_new else before
        assert there == {**there, **surely}, "what was committed is lost"
        assert set(there) <= {*before, step}
        assert all(value in (before.get(each), after.get(each)) for each, value in there.items())
        if is_new:
            self.committed(step, there)

    def _save_quietly(self, step: int, block: bool, overwrite: Any) -> None:
        with contextlib.suppress(Crash, ckptfmt.StorageError):
            self.save(step, block, overwrite)

    @invariant()
    def everything_is_where_it_should_be(self) -> None:
        assert [step.step for step in self.manager.steps()] == sorted(self.model)
        for step in self.manager.steps():
            assert (self.manager.restore(step.step)["w"] == self.model[step.step]).all()
        second = CheckpointManager(f"{self.folder.name}/second")
        assert [step.step for step in second.steps()] == sorted(self.model)
        for step in second.steps():
            assert (second.restore(step.step)["w"] == self.model[step.step]).all()
            assert not step.run.damage_of(step)
        first = CheckpointManager(f"{self.folder.name}/run")
        there = [step.step for step in first.steps()]
        assert there[-2:] == sorted(self.first)[-2:]
        self.first = set(there)


MachineWithCopies.TestCase.settings = settings(stateful_step_count=15, max_examples=FEWER)
TestManagerWithCopies = MachineWithCopies.TestCase
