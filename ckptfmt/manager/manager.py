"""`CheckpointManager`: the checkpoints of a training run."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, Self

from ..errors import MissingError, fault, os_fault
from ..parallel.coordinator import Alone, Coordinator, all_gather
from ..reader import Checkpoint, load, open_checkpoint
from ..tree import Tree
from ..verification import VerifyReport, verify
from ..writer import SaveReport, save
from . import retention, snapshot
from .agreement import Vote, decide, in_common, together
from .asynchronous import Job, Worker
from .flax_rules import PREFIX, FlaxKeep, FlaxNames
from .leases import lease
from .policies import Best, Mode, Policy, policies_asked
from .preemption import Preemption
from .retention import Plan
from .schedule import Schedule, schedule_asked
from .steps import FixedNames, Names, Number, RunDirectory, Step, metadata_for

Which = Any  # a step, or "latest" or "best"
Overwrite = bool | Literal["later"]

_TAKEN = ("path", "tree", "overwrite", "metadata", "coordinator")  # arguments of `save` that the manager gives itself


class FallbackWarning(UserWarning):
    """A damaged checkpoint was passed over, and an older one restored."""


class CheckpointManager:
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

    `coordinator`: the group of processes that share the run (`ckptfmt.parallel`). All make the same calls and save
    together, each what it holds; rank 0 deletes. With `per_process` each saves alone, into a directory of its own,
    `process-00003` say, below `directory`.

    `mode="flax"`: names, order, `keep`, `keep_every_n_steps` and `overwrite` of `flax.training.checkpoints`.
    `options`: further arguments of `ckptfmt.save`, such as `layout`, `compression`, `schema`, `durable`.

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
        coordinator: Coordinator | None = None,
        per_process: bool = False,
        mode: Literal["ckptfmt", "flax"] = "ckptfmt",
        prefix: str = PREFIX,
        keep_every_n_steps: int | None = None,
        **options: Any,
    ) -> None:
        _one_of("when_full", when_full, "wait", "skip")
        _one_of("at_exit", at_exit, "wait", "abort")
        _one_of("mode", mode, "ckptfmt", "flax")
        if type(max_in_flight) is not int or max_in_flight < 1:
            raise fault("bad-option", "max_in_flight=", found=max_in_flight, expected="1 or more")
        for name in options:
            if name in _TAKEN or name not in inspect.signature(save).parameters:
                raise fault("bad-option", f"neither CheckpointManager nor save has an option {name!r}")
        self._group = coordinator or Alone()
        self._savers: Coordinator = Alone() if per_process else self._group  # who save one checkpoint together
        self._background: Coordinator | None = None  # the same, for the thread that saves in the background
        self._acts = self._savers.rank == 0
        directory = os.path.join(directory, f"process-{self._group.rank:05d}") if per_process else directory
        self._is_flax = mode == "flax"
        names: Names = FixedNames()
        if self._is_flax:
            names = FlaxNames(prefix)
            keep = [FlaxKeep(names, 1 if keep is None else keep, keep_every_n_steps)]  # type: ignore[arg-type]
        self._run = RunDirectory(directory, names)
        self._policies = policies_asked(keep)
        self._schedule = schedule_asked(schedule)
        self._options = options
        self._skips = when_full == "skip"
        self._finishes = at_exit == "wait"
        self._on_commit, self._on_error = on_commit, on_error
        self._worker = Worker(max_in_flight, finish_at_exit=self._finishes)
        self._buffers: list[list[Any]] = []  # of snapshots whose saves are over
        self._saving = threading.Lock()
        self._saved_at = time.monotonic()
        self._last: Number | None = None  # the last step saved or in flight, as far as is known
        self._preemption = Preemption()
        self._is_preempted = self._saved_preempted = False

    @property
    def directory(self) -> str:
        return self._run.path

    # ---- when to save

    def should_save(self, step: Number) -> bool:
        """Whether `step` is due: by the schedule, or because a preemption came and nothing was saved since; never if
        that step or a later one is there. Raises a failure of a save in the background."""
        step = self._run.names.checked(step)
        is_due = self._is_due(step)
        return is_due and (self._last is None or self._key(step) > self._key(self._last))

    def _is_due(self, step: Number) -> bool:
        failure = self._take_failure()
        if self._last is None:
            latest = self._run.latest()
            self._last = None if latest is None else latest.step
        elapsed = time.monotonic() - self._saved_at
        vote = Vote(
            step,
            self._schedule.due(step, elapsed=elapsed, is_first=self._last is None),
            self._preemption.received,
            None if failure is None else str(failure),
        )
        decision = decide(self._group, vote, failure)
        self._is_preempted |= decision.is_preempted
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
        step = self._run.names.checked(step)
        _one_of("overwrite", overwrite, False, True, "later")
        if not (self._is_due(step) or force):
            return False
        may_skip = self._skips and not (block or force or self._is_urgent)
        if may_skip and all_gather(self._group, self._worker.is_full)[0]:
            return False
        if self._is_flax and overwrite:
            overwrite = "later"
        stored = metadata_for(step, metrics, metadata)
        self._save(step, tree, stored, block, overwrite)
        is_last = self._last is None or overwrite == "later" or self._key(step) > self._key(self._last)
        self._last = step if is_last else self._last
        self._saved_at = time.monotonic()
        self._saved_preempted = self._is_preempted
        return True

    def _save(self, step: Number, tree: Tree, metadata: Tree, block: bool, overwrite: Overwrite) -> None:
        def ready() -> None:
            if not overwrite:
                self._refuse_older(step)
            if block:
                self._worker.wait()
                self._raise_failure()
            else:
                self._worker.wait_for_room()

        together(self._group, True, ready)
        if block:
            self._commit(self._savers, step, tree, metadata, overwrite, None)
            return
        if self._background is None:
            self._background = self._savers.split()
        savers, buffers = self._background, self._buffers.pop() if self._buffers else []
        taken = together(self._savers, True, lambda: snapshot.take(tree, buffers))
        assert taken is not None

        def run() -> None:
            try:
                self._commit(savers, step, taken.tree, metadata, overwrite, taken.copied_views)
            finally:
                self._buffers.append(buffers)

        self._worker.submit(Job(step, run))

    def _refuse_older(self, step: Number) -> None:
        there = list(self._worker.steps)  # before the directory is looked at, as one may be committed in between
        latest = self._run.latest()
        there += [] if latest is None else [latest.step]
        last = max(there, key=self._key, default=None)
        if last is not None and self._key(last) >= self._key(step):
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
        views: tuple[tuple[str, ...], ...] | None,
    ) -> None:
        """Save, tell, and delete what is not kept. `views` are those of a snapshot."""
        try:
            with self._saving, contextlib.ExitStack() as held:
                together(savers, self._acts, lambda: held.enter_context(self._made_directory()))
                together_with = None if savers.size == 1 else savers
                path = self._run.path_of(step)
                report = save(
                    path,
                    tree,
                    overwrite=bool(overwrite),
                    metadata=metadata,
                    coordinator=together_with,
                    **self._options,
                )
                held.close()
                if overwrite == "later":
                    together(savers, self._acts, lambda: retention.rewind(self._run, step))
                if self._on_commit is not None:
                    self._on_commit(step, report if views is None else dataclasses.replace(report, copied_views=views))
                together(savers, self._acts, lambda: retention.prune(self._run, self._policies))
        except BaseException as error:
            if self._on_error is not None:
                self._on_error(step, error)
            raise

    def _made_directory(self) -> contextlib.AbstractContextManager[None]:
        """Make the run directory; a lease on it, while which its temporaries are left alone."""
        try:
            os.makedirs(self._run.path, exist_ok=True)
        except OSError as error:
            raise os_fault(error, "cannot make the run directory", self._run.path) from error
        return lease(self._run.path)

    def wait(self) -> None:
        """Until all saves are committed; raises a failure of one in the background."""
        self._worker.wait()
        together(self._group, True, self._raise_failure)

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
        """Wait for what is in flight or abort it, as chosen, and give signals back; raises a failure of a save in the
        background. The manager can still be used."""
        self._preemption.uninstall()
        if self._finishes:
            self._worker.wait()
        else:
            self._worker.give_up()
            self._last = None
        self._raise_failure()

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
        return retention.plan(self._run.scan().steps, self._policies)

    def prune(self) -> Plan | None:
        """Delete now what no policy keeps, and what crashes have left; gives what was done (None where
        another process did it)."""

        def act() -> Plan:
            with self._saving:
                return retention.prune(self._run, self._policies)

        return together(self._group, self._acts, act)

    def gc(self) -> list[str] | None:
        """Remove temporaries of saves and deletions that died; gives their names (None where another
        process did it)."""
        return together(self._group, self._acts, lambda: retention.sweep(self._run))

    # ---- finding

    def steps(self) -> list[Step]:
        """The committed steps, in order."""
        return self._run.scan().steps

    def latest(self) -> Step | None:
        """The last committed step."""
        return self._run.latest()

    def best(self, metric: str | None = None, mode: Mode | None = None) -> Step | None:
        """The best committed step by a metric: of the first `Best` among the policies, where none is named. None if no
        step has the metric as a number."""
        return self._best(self.steps(), metric, mode)

    def _best(self, steps: list[Step], metric: str | None, mode: Mode | None) -> Step | None:
        policy = next((p for p in self._policies if isinstance(p, Best) and metric in (None, p.metric)), None)
        if policy is None and metric is None:
            raise fault("bad-option", "no policy says what is best", expected="best(metric, mode)", found=None)
        by = Best(metric or policy.metric, 1, mode or (policy.mode if policy else "min"))  # type: ignore[union-attr]
        ranked = by.ranked(steps)
        return ranked[0] if ranked and by.value(ranked[0])[0] else None

    # ---- reading

    @contextlib.contextmanager
    def lease(self, which: Which = "latest") -> Iterator[Step]:
        """A step that nobody deletes while the block runs: a number, "latest" or "best". Raises `not-found`."""
        while True:
            step = self._found(which)
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(lease(step.path))
                except MissingError:
                    if isinstance(which, str) and self._group.size == 1:
                        continue  # pruned between finding and holding: there is a newer one
                    raise
                yield step
                return

    @contextlib.contextmanager
    def open(self, which: Which = "latest") -> Iterator[Checkpoint]:
        """`ckptfmt.open` of a step under a lease."""
        with self.lease(which) as step, open_checkpoint(step.path) as checkpoint:
            yield checkpoint

    def restore(self, which: Which = "latest", *, fallback: bool = False, **options: Any) -> Tree:
        """`ckptfmt.load` of a step under a lease; `options` are those of `load`: select, into, mmap, ....

        `fallback=True` checks every byte first, and walks back from `which` to the newest checkpoint that is whole,
        with a `FallbackWarning` for each that is not. Raises `not-found`, and what `load` raises.
        """
        with contextlib.ExitStack() as stack:
            step = stack.enter_context(self.lease(which))
            while fallback and not self._is_whole(step):
                older = [s for s in self.steps() if self._key(s.step) < self._key(step.step)]
                if not older:
                    raise fault("not-found", f"no whole checkpoint at or before {which!r}", path=self._run.path)
                warnings.warn(
                    f"{step.path} is damaged; going back to step {older[-1].step}", FallbackWarning, stacklevel=2
                )
                stack.close()
                step = stack.enter_context(self.lease(older[-1].step))
            return load(step.path, **options)

    def _is_whole(self, step: Step) -> bool:
        return all(all_gather(self._group, _has_all_values(verify(step.path))))

    def _found(self, which: Which) -> Step:
        """The step that all processes mean by `which`."""
        if isinstance(which, str):
            _one_of("which", which, "latest", "best")
        if which == "latest" and self._group.size == 1:
            found = self._run.latest()
        elif isinstance(which, str):
            there = self.steps()
            shared = in_common(self._group, [step.step for step in there])
            there = [step for step in there if step.step in shared]
            chosen = self._best(there, None, None) if which == "best" else (there[-1] if there else None)
            (number, *_) = all_gather(self._group, None if chosen is None else chosen.step)
            found = next((step for step in there if step.step == number), None)
        else:
            found = self._run.find(self._run.names.checked(which))
        if found is None:
            raise fault("not-found", f"the run has no committed checkpoint {which!r}", path=self._run.path)
        return found

    def _key(self, step: Number) -> Any:
        return self._run.names.key(step)

    def __repr__(self) -> str:
        return f"<CheckpointManager {self._run.path!r}: keeps {', '.join(map(str, self._policies))}>"


def _has_all_values(report: VerifyReport) -> bool:
    """Whether no value is damaged; bytes of the frame are in no value. [FRM-004]"""
    return all(damage.where == "frame" for damage in report.damage)


def _one_of(name: str, value: object, *allowed: object) -> None:
    if value not in allowed or (isinstance(value, int) and not isinstance(value, bool)):
        raise fault("bad-option", f"{name}=", found=value, expected=" or ".join(map(repr, allowed)))
