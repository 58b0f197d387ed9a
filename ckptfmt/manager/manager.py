"""`CheckpointManager`: the checkpoints of a training run."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self

from ..api import save
from ..errors import CkptError, fault
from ..format.tree import Tree
from ..frameworks.adapter import settle
from ..parallel.coordinator import Alone, Coordinator
from ..warning import warn
from ..writing.writer import SaveReport
from . import retention, snapshot
from .agreement import Decision, Vote, decide, together
from .asynchronous import DroppedError, Job, Worker
from .copies import Copier, CopyTo, CopyWarning, Waiting
from .finding import Finder, one_of
from .flax_rules import PREFIX, FlaxKeep, FlaxNames
from .imports import import_all
from .policies import Policy, policies_asked
from .preemption import Preemption
from .retention import Plan
from .run import place_of, run_at
from .schedule import Schedule, schedule_asked
from .steps import FixedNames, Names, Number, metadata_for

Overwrite = bool | Literal["later"]

_TAKEN = (
    "path",
    "tree",
    "overwrite",
    "metadata",
    "coordinator",
    "before_commit",
)  # arguments of `save` that the manager gives itself


class CheckpointManager(Finder):
    """The checkpoints of a training run, one for each step, in one directory.

        with CheckpointManager("runs/7", schedule=1000, keep=[Last(3), Best("loss")]) as manager:
            for step in range(first, steps):
                ...
                manager.save(step, tree, metrics={"loss": loss}, block=False)

    `directory` is made at the first save. `schedule`: None (every step that is offered), an int (multiples of it) or a
    `Schedule`. `keep`: None keeps all, an int the last so many, else a policy or several, joined as a union; the newest
    step is always kept, and so is what is being read. Saving comes first, deleting after.

    `max_in_flight`: most saves in the background; `when_full`: the next one has to "wait" or "skip". `at_exit`: what
    `close`, and the end of the process, do with those in flight: "wait", or "abort": what has not begun is dropped, and
    what is being written is lost whole if the process ends first. `on_commit(step, report)` and `on_error(step, error)`
    are called for each save, those in the background from their thread.

    `copy_to`: a second directory, or a `CopyTo`: committed checkpoints are copied there in the background, and are
    found there where they are not in the first.

    `coordinator`: the group of processes that share the run (`ckptfmt.parallel`). All make the same calls and save
    together, each what it holds; rank 0 deletes. With `per_process` each saves alone, into a directory of its own,
    `process-00003` say, below `directory`.

    `mode="flax"`: names, order, `keep`, `keep_every_n_steps` and `overwrite` of `flax.training.checkpoints`.
    `directory` may be a URL; a relative path is that of the working directory of now. `storage_options` and `options`
    are further arguments of `ckptfmt.save`, such as `layout`, `compression`, `schema`, `durable`.

    Raises `InputError` (`bad-option`). A manager may be used from several threads if no two of them save.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        schedule: int | Schedule | None = None,
        keep: int | Policy | Iterable[Policy] | None = None,
        max_in_flight: int = 1,
        when_full: Literal["wait", "skip"] = "wait",
        at_exit: Literal["wait", "abort"] = "wait",
        on_commit: Callable[[Number, SaveReport], Any] | None = None,
        on_error: Callable[[Number, BaseException], Any] | None = None,
        copy_to: str | os.PathLike[str] | CopyTo | None = None,
        coordinator: Coordinator | None = None,
        per_process: bool = False,
        mode: Literal["ckptfmt", "flax"] = "ckptfmt",
        prefix: str = PREFIX,
        keep_every_n_steps: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        one_of("when_full", when_full, "wait", "skip")
        one_of("at_exit", at_exit, "wait", "abort")
        one_of("mode", mode, "ckptfmt", "flax")
        if type(max_in_flight) is not int or max_in_flight < 1:
            raise fault("bad-option", "max_in_flight=", found=max_in_flight, expected="1 or more")
        for name in options:
            if name in _TAKEN or name not in inspect.signature(save).parameters:
                raise fault("bad-option", f"neither CheckpointManager nor save has an option {name!r}")
        import_all(options)
        self._group = coordinator or Alone()
        self._savers: Coordinator = Alone() if per_process else self._group  # who save one checkpoint together
        self._background: Coordinator | None = None  # the same, for the thread that saves in the background
        self._acts = self._savers.rank == 0
        own = f"process-{self._group.rank:05d}" if per_process else ""
        self._is_flax = mode == "flax"
        names: Names = FixedNames()
        if self._is_flax:
            names = FlaxNames(prefix)
            keep = [FlaxKeep(names, 1 if keep is None else keep, keep_every_n_steps)]  # type: ignore[arg-type]
        self._run = run_at(place_of(directory, own), names, storage_options)
        self._policies = policies_asked(keep)
        self._copier = None if copy_to is None else self._new_copier(copy_to, own, options.get("durable", True))
        self._schedule = schedule_asked(schedule)
        self._options = {**options, "storage_options": storage_options}
        self._skips = when_full == "skip"
        self._finishes = at_exit == "wait"
        self._on_commit, self._on_error = on_commit, on_error
        self._worker = Worker(max_in_flight, finishes_at_exit=self._finishes)
        self._buffers: list[snapshot.Buffers] = []  # of snapshots whose saves are over
        self._saved: Number | None = None  # the last step that was committed here
        self._saved_at = time.monotonic()
        self._last: Number | None = None  # the last step saved or in flight, as far as is known
        self._told = set()
        self._preemption = Preemption()
        self._is_preempted = self._saved_preempted = False

    def _new_copier(self, asked: str | os.PathLike[str] | CopyTo, own: str, durable: bool) -> Copier:
        asked = asked if isinstance(asked, CopyTo) else CopyTo(asked)
        second = run_at(place_of(asked.directory, own), self._run.names, asked.storage_options)
        if second.path == self._run.path:
            raise fault("bad-option", "copy_to= is the directory of the run itself", path=second.path)
        copier = Copier(self._run, second, asked, durable=durable, tidy=self._tidy)
        self._policies = (*self._policies, Waiting(copier))
        return copier

    # ---- when to save

    def should_save(self, step: Number) -> bool:
        """Whether `step` is due: by the schedule, or because a preemption came and nothing was saved since; never if
        that step or a later one is there. Raises a failure of a save in the background."""
        decision = self._decide("should_save", step, lambda: {})
        return self._is_wanted(decision) and (self._last is None or self._key(step) > self._key(self._last))

    def _decide(self, call: str, step: Number, asked: Callable[[], dict[str, Any]]) -> Decision:
        """Agree with the other processes on a call at a step. `asked`: what all must ask for alike."""

        def vote() -> Vote:
            self._warn()
            self._raise_failure()
            checked = self._checked(step)
            options = {"step": checked, **asked()}
            if self._last is None:
                self._last = self._newest()
                self._wake()
            elapsed = time.monotonic() - self._saved_at
            is_due = self._schedule.due(checked, elapsed=elapsed, is_first=self._last is None)
            return Vote(options, is_due, self._preemption.received, self._worker.is_full)

        decision = decide(self._group, f"{call}() of a manager", vote)
        self._is_preempted |= decision.is_preempted
        return decision

    def _is_wanted(self, decision: Decision) -> bool:
        return decision.is_due or self._is_urgent

    @property
    def _is_urgent(self) -> bool:
        """Whether a preemption came and nothing was saved since."""
        return self._is_preempted and not self._saved_preempted

    def on_preemption(self, *signals: int) -> Preemption:
        """Watch for signals, SIGTERM if none is named, until `close`: once one has come, to any of the processes, the
        next step is due, and `preempted` holds. Main thread only."""
        self._preemption.install(signals or (signal.SIGTERM,))
        return self._preemption

    @property
    def preempted(self) -> bool:
        """Whether a preemption had come, to any of the processes, at the last `save` or `should_save`. Not sooner, so
        that a loop which ends by it has been asked to save."""
        return self._is_preempted

    # ---- saving

    def save(
        self,
        step: Number,
        tree: Tree,
        *,
        metrics: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        block: bool = True,
        overwrite: Overwrite = False,
        force: bool = False,
    ) -> bool:
        """Save `tree` as `step` if it is due, or if `force`; gives whether it is saved, or being saved.

        `metrics`: names and numbers. `metadata`: a dict of plain values. `block=False` copies the arrays and returns:
        the rest happens in the background, in the order of the calls. `overwrite=False` refuses a step that exists, or
        that is older than one that exists; True replaces the step atomically; "later" also deletes all later steps,
        after the new one is committed.

        Raises what `ckptfmt.save` raises, and `ExistsError`; first of all a failure of an earlier save in the
        background, after which nothing of this one was done.
        """

        def asked() -> dict[str, Any]:
            one_of("overwrite", overwrite, False, True, "later")
            return {"block=": bool(block), "overwrite=": overwrite, "force=": bool(force), "when_full=": self._skips}

        decision = self._decide("save", step, asked)
        if not (self._is_wanted(decision) or force):
            return False
        may_skip = self._skips and not (block or force or self._is_urgent)
        if may_skip and decision.is_full:
            return False
        step = self._checked(step)
        if self._is_flax and overwrite:
            overwrite = "later"
        last, self._last = self._last, None  # not known, if this is interrupted
        self._save(step, tree, lambda: metadata_for(step, metrics, metadata), block, overwrite)
        self._last = step if overwrite == "later" else self._later(step, last)
        self._saved_at = time.monotonic()
        self._saved_preempted = self._is_preempted
        return True

    def _save(self, step: Number, tree: Tree, asked: Callable[[], Tree], block: bool, overwrite: Overwrite) -> None:
        def ready() -> Tree:
            metadata = asked()
            if not overwrite:
                self._refuse_older(step)
            if block:
                self._worker.wait()
                self._raise_failure()
            else:
                self._worker.wait_for_room()
            return metadata

        metadata = together(self._group, True, ready, f"save of step {step}")
        if block and self._savers.size > 1:  # who talk on the thread that calls
            self._commit(self._savers, step, tree, metadata, overwrite)
        elif block:
            settle()
            self._worker.run(
                Job(step, lambda job: self._commit(self._savers, step, tree, metadata, overwrite, job=job))
            )
        else:
            self._save_in_background(step, tree, metadata, overwrite)

    def _save_in_background(self, step: Number, tree: Tree, metadata: Tree, overwrite: Overwrite) -> None:
        if self._background is None:
            self._background = self._savers.split()
        savers = self._background
        try:
            buffers = self._buffers.pop()
        except IndexError:
            buffers = snapshot.Buffers()

        def take() -> snapshot.Snapshot:
            try:
                return buffers.take(tree, self._options.get("skip"))
            except CkptError as error:
                error.path = error.path or self._run.path_of(step)
                raise

        taken = together(self._savers, True, take, f"snapshot of step {step}")
        assert taken is not None

        def run(_: Job) -> None:
            try:
                self._commit(savers, step, taken.tree, metadata, overwrite, views=taken.copied_views)
            finally:
                self._buffers.append(buffers)

        self._worker.submit(Job(step, run))

    def _newest(self) -> Number | None:
        """The last step that is committed or in flight. Lists no second directory but the first time."""
        there = list(self._worker.steps)  # before the directory is looked at, as one may be committed in between
        latest = self._run.latest()
        self._tell_damage()
        there += [] if latest is None else [latest.step]
        there += [] if self._copier is None else [step.step for step in self._copier.known()]
        return max(there, key=self._key, default=None)

    def _later(self, step: Number, other: Number | None) -> Number:
        return step if other is None else max(step, other, key=self._key)

    def _refuse_older(self, step: Number) -> None:
        last = self._newest()
        if last is not None:
            self._check_later(step, last)

    def _check_later(self, step: Number, last: Number) -> None:
        if self._key(last) >= self._key(step):
            raise fault(
                "exists",
                f"step {step} is not later than the last step {last}",
                path=self._run.path_of(step),
                found=step,
                expected=f"later than {last}, or overwrite=True",
            )

    def _commit(
        self,
        savers: Coordinator,
        step: Number,
        tree: Tree,
        metadata: Tree,
        overwrite: Overwrite,
        *,
        views: tuple[tuple[str, ...], ...] | None = None,
        job: Job | None = None,
    ) -> None:
        """Save, tell, and delete what is not kept. `views` are those of a snapshot. Without one, the tree is the
        caller's: once he does not wait for the job any more it may change, and nothing is committed."""
        try:
            if not overwrite and self._saved is not None and self._key(self._saved) >= self._key(step):
                together(savers, self._acts, lambda: self._refuse_late(step), f"order of step {step}")
            with contextlib.ExitStack() as held:
                together(
                    savers, self._acts, lambda: held.enter_context(self._run.saving(step)), f"begin of step {step}"
                )
                if not overwrite:
                    together(savers, self._acts, lambda: self._run.set_aside(step), f"place of step {step}")
                together_with = None if savers.size == 1 else savers
                path = self._run.path_of(step)
                report = save(
                    path,
                    tree,
                    overwrite=bool(overwrite),
                    metadata=metadata,
                    coordinator=together_with,
                    **(self._options if job is None else self._options_for(job)),
                )
            self._saved = step if overwrite == "later" else self._later(step, self._saved)
            if overwrite == "later":
                together(savers, self._acts, lambda: self._rewind(step), f"going back to step {step}")
            report = report if views is None else dataclasses.replace(report, copied_views=views)
            together(savers, True, lambda: self._committed(step, report), f"end of step {step}")
            self._wake()
        except DroppedError:
            raise
        except BaseException as error:
            if self._on_error is not None:
                self._on_error(step, error)
            raise

    def _committed(self, step: Number, report: SaveReport) -> None:
        if self._on_commit is not None:
            self._on_commit(step, report)
        if self._acts:
            retention.prune(self._run, self._policies)

    def _options_for(self, job: Job) -> dict[str, Any]:
        """The options of a save that ends when its job is dropped."""
        asked = self._options.get("progress")

        def progress(done: int, total: int) -> None:
            job.check()
            if asked is not None:
                asked(done, total)

        return {**self._options, "progress": progress, "before_commit": job.check}

    def _refuse_late(self, step: Number) -> None:
        """A signal handler may have saved a later step since this one was begun."""
        latest = self._run.latest()
        if latest is not None:
            self._check_later(step, latest.step)

    def _rewind(self, step: Number) -> None:
        if self._copier is not None:
            self._copier.rewind(step)
        retention.rewind(self._run, step)

    def wait(self) -> None:
        """Until all saves are committed; raises a failure of one in the background."""
        self._worker.wait()
        self._warn()
        together(self._group, True, self._raise_failure, "wait() of a manager")

    def _take_failure(self) -> BaseException | None:
        failure = self._worker.take_failure()
        if failure is not None:
            self._last = None  # it may be the step that failed
        return failure

    def _raise_failure(self) -> None:
        failure = self._take_failure()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Wait for what is in flight or abort it, as chosen, and for copies; give signals back. Raises a failure of a
        save in the background, and what keeps a copy from being made. The manager can still be used."""
        self._preemption.uninstall()
        if self._finishes:
            self._worker.wait()
        else:
            self._worker.give_up()
            self._last = None
        if self._copier is not None and self._copier.finishes_at_exit:
            self._wake()  # there may be copies that an earlier process was to make
        failures = [self._take_failure(), None if self._copier is None else self._copier.close()]
        self._warn()
        for failure in failures:
            if failure is not None:
                raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except BaseException as failure:
            if error is None:
                raise
            error.add_note(f"a save in the background failed, too: {failure}")

    # ---- what to keep

    def plan(self) -> Plan:
        """What `prune` would keep and delete now, and why. Changes nothing."""
        plan: Plan = self._worker.run(Job(None, lambda _: retention.plan(self._run.scan().steps, self._policies)))
        return plan

    def prune(self) -> Plan | None:
        """Delete now what no policy keeps, and what crashes have left; gives what was done (None where
        another process did it)."""

        return together(self._group, self._acts, self._tidy, "prune() of a manager")

    def gc(self) -> list[str] | None:
        """Remove temporaries of saves and deletions that died; gives their names (None where another
        process did it)."""

        def act(_: Job) -> list[str]:
            return self._run.sweep(self._run.scan().leftovers)

        return together(self._group, self._acts, lambda: self._worker.run(Job(None, act)), "gc() of a manager")

    # ---- the second directory

    def wait_for_copies(self, timeout: float | None = None) -> bool:
        """Until the second directory has what it is to have, or for `timeout` seconds; gives whether it has. Looks at
        both directories first: also what an earlier process left is copied. Does not wait for saves in the background,
        and raises nothing. Where another process of the group copies, it looks, and waits for nothing."""
        if self._copier is None:
            return True
        if self._acts:
            self._copier.wake()
            return self._copier.wait(timeout)
        try:
            return self._copier.has_all()
        except CkptError:
            return False

    def uncopied(self) -> list[Number]:
        """The steps in the first directory that are still to be copied to the second, or to be looked at."""
        copier = self._copier
        return [] if copier is None else [step.step for step in self._run.scan().steps if copier.is_waiting(step)]

    def _wake(self) -> None:
        if self._copier is not None and self._acts:
            self._copier.wake()

    def _tidy(self) -> Plan:
        plan: Plan = self._worker.run(Job(None, lambda _: retention.prune(self._run, self._policies)))
        return plan

    def _warn(self) -> None:
        """Say what went wrong with copies."""
        for text in [] if self._copier is None else self._copier.take_report():
            warn(text, CopyWarning)

    def __repr__(self) -> str:
        return f"<CheckpointManager {self._run.path!r}: keeps {', '.join(map(str, self._policies))}>"
