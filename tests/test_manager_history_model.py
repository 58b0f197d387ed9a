"""A state machine: saving, going back, pruning in every way, patches of a manager and of people, folding, crashes. At
any time each step listed is, to the bit, what was saved, and nothing that a policy keeps is lost."""

from __future__ import annotations

import errno
import os
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from damage import LAYOUTS
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_manager_model import Crash, Disks

import ckptfmt
from ckptfmt.manager import CheckpointManager, Every, HistoryWarning, Last, Pinned
from ckptfmt.manager.policies import reasons_to_keep
from ckptfmt.manager.steps import Step

KEEP = [Last(2), Every(3)]
RANDOM = np.random.default_rng(0).integers(0, 256, 4000, np.uint8)


def tree(value: int) -> dict[str, Any]:
    weights = RANDOM.copy()
    weights[value % 100 :: 97] += np.uint8(value)
    return {"w": weights, "same": RANDOM[::2].copy(), "value": value}


def kept_of(steps: Iterable[int], policies: Any = KEEP) -> set[int]:
    """What policies keep of steps."""
    return set(reasons_to_keep([SimpleNamespace(step=step) for step in sorted(steps)], policies))  # type: ignore[misc]


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.disks = Disks()
        self.model: dict[int, int] = {}  # what was saved of each step that is there
        self.value = 0

    @property
    def run(self) -> Path:
        return Path(self.folder.name) / "run"

    @initialize(layout=st.sampled_from(LAYOUTS))
    def start(self, layout: str) -> None:
        self.layout = layout
        self.restart(True)

    @rule(history=st.booleans())
    def restart(self, history: bool) -> None:
        self.manager = CheckpointManager(
            self.run, keep=KEEP, layout=self.layout, durable=False, history="patches" if history else None
        )
        self.manager.should_save(1 << 40)
        self.manager.wait()
        self.manager.prune()
        self.manager.wait()

    def teardown(self) -> None:
        self.disks.patch.undo()
        self.folder.cleanup()

    def listed(self) -> list[Step]:
        return self.manager.steps()

    def settle(self, kept: set[int]) -> None:
        """After something was deleted, or may have been: what had to stay is there."""
        there = {step.step for step in self.listed()}
        assert kept <= there, "what is kept is lost"
        assert there <= set(self.model), "what was deleted is there"
        self.model = {step: self.model[step] for step in there}

    # ---- what a manager does

    def save(self, step: int, overwrite: Any, block: bool) -> None:
        self.value += 1
        self.manager.save(step, tree(self.value), overwrite=overwrite, block=block)
        self.manager.wait()

    def saved(self, step: int, overwrite: Any) -> dict[int, int]:
        before = {each: value for each, value in self.model.items() if overwrite != "later" or each < step}
        return {**before, step: self.value}

    @rule(ahead=st.integers(1, 3), block=st.booleans())
    def save_next(self, ahead: int, block: bool) -> None:
        step = max(self.model, default=-1) + ahead
        self.save(step, False, block)
        self.model = self.saved(step, False)
        self.settle(kept_of(self.model))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), overwrite=st.sampled_from([True, "later"]), block=st.booleans())
    def overwrite(self, data: st.DataObject, overwrite: Any, block: bool) -> None:
        step = data.draw(st.sampled_from(sorted(self.model)))
        self.save(step, overwrite, block)
        self.model = self.saved(step, overwrite)
        self.settle(kept_of(self.model))

    @rule(
        back=st.integers(-2, 4),
        overwrite=st.sampled_from([True, "later"]),
        call=st.integers(0, 40),
        crashes=st.booleans(),
    )
    def fail(self, back: int, overwrite: Any, call: int, crashes: bool) -> None:
        """A call to the disk fails in a save, in what it deletes or in a patch; or nothing happens after it."""
        step = max(0, max(self.model, default=0) - back)
        before = dict(self.model)
        self.disks.at(call, Crash() if crashes else OSError(errno.EACCES, os.strerror(errno.EACCES)))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", HistoryWarning)
                self.save(step, overwrite, True)
        except (Crash, ckptfmt.StorageError):
            pass
        finally:
            self.disks.calm()
        self.restart(True)
        after = self.saved(step, overwrite)
        self.model = before | after
        there = {each.step: int(self.manager.restore(each.step)["value"]) for each in self.listed()}
        is_new = there.get(step) == self.value
        self.model[step] = self.value if is_new else before.get(step, self.value)
        self.settle(kept_of(after if is_new else before))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), as_folder=st.booleans())
    def prune(self, data: st.DataObject, as_folder: bool) -> None:
        """By other policies, and by the command that knows of no manager."""
        policies = [Last(1), Pinned(data.draw(st.lists(st.sampled_from(sorted(self.model)), max_size=3)))]
        kept = kept_of(self.model, policies)
        if as_folder:
            ckptfmt.prune(self.run, policies, delete=True)
        else:
            CheckpointManager(self.run, keep=policies).prune()
        self.settle(kept)
        used = {step.base for step in self.listed()}
        extra = [step for step in self.listed() if step.step not in kept and step.sha256 not in used]
        assert extra == [], "nothing is read through what stays"

    # ---- what people do

    @precondition(lambda self: len(self.model) > 1)
    @rule(data=st.data())
    def patch(self, data: st.DataObject) -> None:
        """A step becomes a patch of any other, which may be one, too."""
        steps = self.listed()
        used = {step.base for step in steps}
        free = [step for step in steps if step.sha256 not in used and step.base is None]
        if not free:
            return
        step = data.draw(st.sampled_from(free))
        bases = [other for other in steps if other is not step and len(other.run.bases_of(other)) < 3]
        if bases:
            base = data.draw(st.sampled_from(bases))
            ckptfmt.patch(base.path, step.path, step.path, bases=self.run, overwrite=True, durable=False)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def fold(self, data: st.DataObject) -> None:
        steps = self.listed()
        used = {step.base for step in steps}
        chained = [(step, step.run.bases_of(step)) for step in steps if step.sha256 not in used]
        chained = [(step, bases) for step, bases in chained if len(bases) > 1]
        if chained:
            step, bases = data.draw(st.sampled_from(chained))
            patches = [base.path for base in bases[-2::-1]]
            ckptfmt.fold(bases[-1].path, [*patches, step.path], step.path, overwrite=True, durable=False)

    @precondition(lambda self: self.model)
    @rule()
    def collect(self) -> None:
        ckptfmt.gc(self.run, delete=True, grace=0)

    # ---- what holds

    @invariant()
    def everything_listed_is_what_was_saved(self) -> None:
        steps = self.listed()
        assert [step.step for step in steps] == sorted(self.model)
        for step in steps:
            found, expected = self.manager.restore(step.step), tree(self.model[step.step])
            assert found["value"] == expected["value"]
            assert all((found[name] == expected[name]).all() for name in ("w", "same"))
            assert not step.run.damage_of(step)


Machine.TestCase.settings = settings(
    stateful_step_count=15, max_examples=max(15, settings().max_examples // 4), deadline=None
)
TestHistory = Machine.TestCase
