"""A state machine: saving, failing, crashing, restarting, pruning, overwriting and reading, beside a plain model.

A crash makes every later call to the disk fail, so that nothing is cleaned up, as when a process dies. At any time each
step listed is whole and is what was saved; nothing that must be kept is lost; after a prune nothing else is there.
"""

from __future__ import annotations

import errno
import math
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from damage import LAYOUTS, WatchedDisk, leftovers
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
from ckptfmt.manager import Best, CheckpointManager, Every, Last
from ckptfmt.manager.policies import reasons_to_keep

KEEP = [Last(2), Every(5), Best("loss", 1)]
LOSS = st.sampled_from([0.5, 1.0, 2.0, math.nan, None])


class Crash(BaseException):
    """The end of the process."""


class Disks:
    """What the calls of all disks do: nothing special, fail once at a call, or crash there."""

    def __init__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        for module in ("ckptfmt.storage.local", "ckptfmt.manager.run_on_disk"):
            self.patch.setattr(f"{module}.Disk", lambda: WatchedDisk(self.before))
        self.calm()

    def calm(self) -> None:
        self.left, self.error = -1, None

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
            Path(self.folder.name) / "run", keep=KEEP, layout=self.layout, durable=False, max_in_flight=2
        )

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
        self.disks.at(call, Crash() if crashes else OSError(errno.EIO, os.strerror(errno.EIO)))
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
            assert leftovers(Path(self.manager.directory)) == []

    @precondition(lambda self: self.model and self.lease is None)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        step = data.draw(st.sampled_from(sorted(self.model)))
        context = CheckpointManager(self.manager.directory).lease(step)
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
            assert ckptfmt.verify(step.path).ok


Machine.TestCase.settings = settings(stateful_step_count=25)
TestManager = Machine.TestCase
