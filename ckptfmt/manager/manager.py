"""`CheckpointManager`: the checkpoints of a training run."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from ..api import load as load_checkpoint
from ..calls import takes
from ..checkpoint import Checkpoint
from ..errors import CkptError, fault
from ..format.tree import Tree
from ..options import OpenOptions
from ..parallel.coordinator import Alone, Coordinator
from ..warning import warn
from .agreement import Decision, Vote, decide, together
from .copies import Copier, CopyTo, CopyWarning
from .former import takes_former
from .history import HistoryWarning, patches_asked
from .imports import import_all
from .options import Background, By, RestoreOptions, StepOptions, background_asked, one_of
from .peer_replicas import Peers
from .policies import Mode, Policy, policies_asked
from .preemption import Preemption
from .reader import RunReader, Which, tell_damage
from .replica_folder import Memory
from .replicas import Replicas, ReplicaWarning, replicas_asked
from .retention import RetentionPlan
from .run import DamagedStep, place_of, run_at
from .saving import OnCommit, OnError, Overwrite, SaveOrder, Saver
from .schedule import Schedule, schedule_asked
from .sharing import SharingWarning, check_sharing
from .steps import FixedNames, Given, Number, Step, StepNames, metadata_for
from .summary import steps_as_html
from .tracking import TrackingWarning


class CheckpointManager:
    """The checkpoints of a training run, one for each step, in one directory.

        with CheckpointManager("runs/7", schedule=1000, keep=[Last(3), Best("loss")]) as manager:
            for step in range(first, steps):
                ...
                manager.save(step, tree, metrics={"loss": loss}, block=False)

    `directory` is made at the first save. It may be a URL; a relative path is that of the working directory of now.

    `schedule`: None (every step that is offered), an int (multiples of it) or a `Schedule`. `keep`: None keeps all, an
    int the last so many, else a policy or several, joined as a union; the newest step is always kept, and so is what is
    being read. Saving comes first, deleting after.

    `background`: how `save(block=False)` does it, see `Background`; "process" is `Background(by="process")`.
    `on_commit(step, report)` and `on_error(step, error)` are called for each save, from the manager's thread, or with
    many processes from the one that saves. `LogTo(...)` as `on_commit` logs saves to TensorBoard and others.

    `copy_to`: a second directory, or a `CopyTo`: committed checkpoints are copied there in the background, and are
    found there where they are not in the first.

    `replicas`: a `Memory`, or a `Peers` where processes of many machines save together, or several: there the newest
    steps are written first, in the background, too, and restored from, verified; what is damaged there is told, and the
    next place taken, at last the directory itself.

    `coordinator`: the group of processes that share the run (`ckptfmt.parallel`). All make the same calls and save
    together, each what it holds; rank 0 deletes. With `per_process` each saves alone, into a directory of its own,
    `process-00003` say, below `directory`.

    `share`: whether each step shares what has not changed with the newest one before it (`share_with` of
    `ckptfmt.save`); the layout is "packed" then, or "loose". Where nothing can be shared all is written, with a
    `SharingWarning`, once.

    `history`: "patches" turns the steps that are kept beside the last ones, of the first `Last` in `keep`, into patches
    of whole ones before them, in the background, where that makes them smaller; they are found, listed and restored as
    ever. Not with `share`, nor on a store. What cannot become one stays whole, with a `HistoryWarning`.

    `options` are those of `ckptfmt.save` for every step: `layout`, `compression`, `schema`, `durable`, `digest`,
    `progress`, `skip`, `extra`, `check`, `statistics`, `on_nan`, `max_bytes_in_flight`, `storage_options`. With
    `on_nan="refuse"` a step with NaNs fails (`has-nan`), and deletes nothing.

    Raises `InputError` (`bad-option`). A manager may be used from several threads if no two of them save. To read a run
    alone there is `open_run`; for the rules of flax `FlaxCheckpointManager`.
    """

    _names: StepNames = FixedNames()

    @takes_former
    @takes(StepOptions)
    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        schedule: int | Schedule | None = None,
        keep: int | Policy | Iterable[Policy] | None = None,
        background: Background | By | None = None,
        on_commit: OnCommit | None = None,
        on_error: OnError | None = None,
        copy_to: str | os.PathLike[str] | CopyTo | None = None,
        replicas: Memory | Peers | Sequence[Memory | Peers] | None = None,
        coordinator: Coordinator | None = None,
        per_process: bool = False,
        **options: Unpack[StepOptions],
    ) -> None:
        background = background_asked(background)
        check_sharing(options)
        makes_patches = patches_asked(options, os.fspath(directory))
        import_all(options, makes_patches=makes_patches)
        self._group = coordinator or Alone()
        own = f"process-{self._group.rank:05d}" if per_process else ""
        self._run = run_at(place_of(directory, own), self._names, options.get("storage_options"))
        savers = Alone() if per_process else self._group
        self._replicas = Replicas(self._run, replicas_asked(replicas, options), own, savers)
        asked = policies_asked(keep)
        self._saver = Saver(self._run, savers, background, asked, options, on_commit, on_error, self._replicas)
        self._worker = self._saver.worker
        if makes_patches:
            self._saver.make_patches()
        self._copier = self._new_copier(copy_to, own, options.get("durable", True))
        there = None if self._copier is None else self._copier.there
        self._reader = RunReader(
            self._run, second=there, group=self._group, policies=self._saver.policies, replicas=self._replicas
        )
        self._schedule = schedule_asked(schedule)
        self._skips = background.when_full == "skip"
        self._saved_at = time.monotonic()
        self._last: Number | None = None  # the last step saved or in flight, as far as is known
        self._preemption = Preemption()
        self._is_preempted = self._saved_preempted = self._fails = False

    def _new_copier(self, copy_to: str | os.PathLike[str] | CopyTo | None, own: str, durable: bool) -> Copier | None:
        if copy_to is None:
            return None
        asked = copy_to if isinstance(copy_to, CopyTo) else CopyTo(copy_to)
        second = run_at(place_of(asked.directory, own), self._names, asked.storage_options)
        if second.path == self._run.path:
            raise fault("bad-option", "copy_to= is the directory of the run itself", path=second.path)
        copier = Copier(self._run, second, asked, durable=durable, tidy=self._saver.prune)
        self._saver.copied_by(copier)
        return copier

    # ---- when to save

    def should_save(self, step: Given) -> bool:
        """Tell whether `step` is due: by the schedule, or because a preemption came and nothing was saved since; never
        if that step or a later one is there. Raises a failure of a save in the background."""
        decision = self._decide("should_save", step, lambda: {})
        return self._is_wanted(decision) and (self._last is None or self._run.key(step) > self._run.key(self._last))

    def _decide(self, call: str, step: Given, asked: Callable[[], dict[str, Any]]) -> Decision:
        """Agree with the other processes on a call at a step. `asked`: what all must ask for alike."""

        def vote() -> Vote:
            self._warn()
            self._raise_failure()
            checked = self._run.checked(step)
            options = {"step": checked, **asked()}
            if self._last is None:
                self._last = self._newest()
                self._saver.wake()
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
        next step is due, and `preempted` holds. Main thread only, else raises `bad-option`."""
        self._preemption.install(signals or (signal.SIGTERM,))
        return self._preemption

    @property
    def preempted(self) -> bool:
        """Whether a preemption had come, to any of the processes, at the last `save` or `should_save`. Not sooner, so
        that a loop which ends by it has been asked to save."""
        return self._is_preempted

    # ---- saving

    @takes()
    def save(
        self,
        step: Given,
        tree: Tree,
        *,
        metrics: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        block: bool = True,
        overwrite: Overwrite = False,
        force: bool = False,
    ) -> bool:
        """Save `tree` as `step` if it is due, or if `force`; returns whether it is saved, or being saved.

        `metrics`: names and numbers. `metadata`: a dict of plain values. `block=False` copies the arrays and returns:
        the rest happens in the background, in the order of the calls. `overwrite=False` refuses a step that exists, or
        that is older than one that exists; True replaces the step atomically; "later" also deletes all later steps,
        after the new one is committed.

        Raises what `ckptfmt.save` raises, and `ExistsError`; with another process also `no-memory` and `writer-lost`;
        first of all a failure of an earlier save in the background, after which nothing of this one was done.
        """

        def asked() -> dict[str, Any]:
            one_of("overwrite", overwrite, False, True, "later")
            return {"block=": bool(block), "overwrite=": overwrite, "force=": bool(force), "when_full=": self._skips}

        decision = self._decide("save", step, asked)
        if not (self._is_wanted(decision) or force):
            return False
        if decision.is_full and self._skips and not (block or force or self._is_urgent):
            return False
        step = self._run.checked(step)
        last, self._last = self._last, None  # not known, if this is interrupted
        self._save(step, tree, lambda: metadata_for(step, metrics, metadata), block, overwrite)
        self._last = step if overwrite == "later" else self._saver.later(step, last)
        self._saved_at = time.monotonic()
        self._saved_preempted = self._is_preempted
        return True

    def _save(self, step: Number, tree: Tree, asked: Callable[[], Tree], block: bool, overwrite: Overwrite) -> None:
        def ready() -> Tree:
            metadata = asked()
            if not overwrite:
                self._refuse_older(step)
            if block:
                if self._is_urgent:
                    self._worker.put_off()
                self._worker.wait_for_saves()
                self._raise_failure()
            else:
                self._worker.wait_for_room()
            return metadata

        metadata = together(self._group, True, ready, f"save of step {step}")
        self._saver.save(SaveOrder(step, tree, metadata, overwrite), block=block)

    def _newest(self) -> Number | None:
        """The last step that is committed or in flight. Lists no second directory but the first time."""
        there = list(self._worker.steps)  # before the directory is looked at, as one may be committed in between
        latest = self._run.latest()
        tell_damage(self._run)
        there += [] if latest is None else [latest.step]
        there += [] if self._copier is None else [step.step for step in self._copier.known()]
        return max(there, key=self._run.key, default=None)

    def _refuse_older(self, step: Number) -> None:
        last = self._newest()
        if last is not None:
            self._saver.check_later(step, last)

    def wait(self) -> None:
        """Wait until all saves are committed; raises a failure of one in the background, `writer-lost` among them."""
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
        save in the background (also `writer-lost`), and what keeps a copy from being made. The manager can still be
        used."""
        self._preemption.uninstall()
        if self._worker.finishes_at_exit:
            self._worker.wait()
        else:
            self._worker.give_up()
            self._last = None
        self._saver.close(keeps_replicas=self._is_preempted or self._fails)  # as the run may go on soon
        if self._copier is not None and self._copier.finishes_at_exit:
            self._saver.wake_copier()  # there may be copies that an earlier process was to make
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
            self._fails = error is not None
            self.close()
        except BaseException as failure:
            if error is None:
                raise
            error.add_note(f"a save in the background failed, too: {failure}")

    # ---- finding and reading, by the manager's `RunReader`

    @property
    def directory(self) -> str:
        """Where the run lies: an absolute path, or a URL."""
        return self._reader.directory

    @property
    def restored_from(self) -> str | None:
        """Path of the checkpoint that the last `restore` read here: in the run's directory, the second one, or a
        replica. None before the first."""
        return self._reader.restored_from

    def steps(self) -> list[Step]:
        """List the committed steps, in order. What is named like a step and is none, or cannot be read, is passed over,
        with a `FallbackWarning`, the first time; see `damaged`."""
        return self._reader.steps()

    def damaged(self) -> list[DamagedStep]:
        """List what is named like a step and is none, or cannot be read, in order, and what is wrong with it. It may be
        mended (`ckptfmt.repair`): nothing deletes it."""
        return self._reader.damaged()

    def latest(self) -> Step | None:
        """Find the last committed step that can be read; passes over what cannot, as `steps` does. Raises
        `StorageError` if there are steps, and none can be read: to begin anew would be worse."""
        return self._reader.latest()

    @takes()
    def best(self, metric: str | None = None, mode: Mode | None = None) -> Step | None:
        """Find the best committed step by a metric: of the first `Best` among the policies, where none is named. None
        if no step has the metric as a number. Raises `bad-option` if no policy says what is best."""
        return self._reader.best(metric, mode)

    @takes()
    def lease(self, which: Which = "latest") -> contextlib.AbstractContextManager[Step]:
        """Hold a step, which nobody deletes while the block runs: a number, or "latest" or "best", for which all
        processes ask together. Raises `not-found`."""
        return self._reader.lease(which)

    @takes(OpenOptions, name="open() of a run")
    def open(
        self, which: Which = "latest", **options: Unpack[OpenOptions]
    ) -> contextlib.AbstractContextManager[Checkpoint]:
        """Open a step under a lease, which lasts while the block runs: `ckptfmt.open`, whose `options` these are.
        Raises `not-found`, and what `ckptfmt.open` raises."""
        return self._reader.open(which, **options)

    def restore(
        self,
        which: Which = "latest",
        *,
        fallback: bool = False,
        load: Callable[..., Tree] = load_checkpoint,
        **options: Unpack[RestoreOptions],
    ) -> Tree:
        """Restore a step, the latest, the best or that of a number: `ckptfmt.load` of it under a lease. `options` are
        those of `load`: select, into, mmap, follow_links, .... `load` is what to call instead: `ckptfmt_torch.load`,
        say, which fills modules and optimizers, and has options of its own.

        `fallback=True` checks every byte first, and walks back from `which` to the newest checkpoint that is whole,
        with a `FallbackWarning` for each that is not. From then on these count as damaged for this manager: the run
        goes on from the one that was restored.

        Raises `not-found`, `bad-option`, and what `load` raises; for a step that is damaged, without `fallback`, what
        is wrong with it.
        """
        if fallback:
            self._last = None  # it may be passed over
        return self._reader.restore(which, fallback=fallback, load=load, **options)

    # ---- what to keep

    def plan(self) -> RetentionPlan:
        """Tell what `prune` would keep and delete now, and why. Changes nothing."""
        return self._saver.plan()

    def prune(self) -> RetentionPlan | None:
        """Delete now what no policy keeps, and what crashes have left; returns what was done (None where
        another process did it)."""
        return together(self._group, self._saver.acts, self._saver.prune, "prune() of a manager")

    def gc(self) -> list[str] | None:
        """Remove temporaries of saves and deletions that died; returns their names (None where
        another process did it)."""
        return together(self._group, self._saver.acts, self._saver.sweep, "gc() of a manager")

    # ---- the second directory

    @takes()
    def wait_for_copies(self, timeout: float | None = None) -> bool:
        """Wait until the second directory has what it is to have, or for `timeout` seconds; returns whether it has.
        Looks at both directories first: also what an earlier process left is copied. Does not wait for saves in the
        background, and raises nothing. Where another process of the group copies, it looks, and waits for nothing."""
        if self._copier is None:
            return True
        if self._saver.acts:
            self._copier.wake()
            return self._copier.wait(timeout)
        try:
            return self._copier.has_all()
        except CkptError:
            return False

    def uncopied(self) -> list[Number]:
        """List the steps in the first directory that are still to be copied to the second, or to be looked at."""
        copier = self._copier
        return [] if copier is None else [step.step for step in self._run.scan().steps if copier.is_waiting(step)]

    def _warn(self) -> None:
        """Say what went wrong with copies, replicas and trackers, and the first time that a step shared less than it
        could."""
        for text in [] if self._copier is None else self._copier.take_report():
            warn(text, CopyWarning)
        for text in self._replicas.take_report():
            warn(text, ReplicaWarning)
        for text in [] if self._saver.history is None else self._saver.history.take_report():
            warn(text, HistoryWarning)
        if self._saver.unsaid:
            text, self._saver.unsaid = self._saver.unsaid, ""
            warn(text, SharingWarning)
        for text in self._saver.take_report():
            warn(text, TrackingWarning)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._run.path!r}: keeps {', '.join(map(str, self._saver.policies))}>"

    def _repr_html_(self) -> str:
        return steps_as_html(type(self).__name__, self._run, self._saver.policies)
