"""How the steps of a run are saved: on one thread, in the order of the calls. After each, what is not kept goes."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

from ..api import save
from ..calls import keys_of
from ..errors import CkptError, fault
from ..format.tree import Tree
from ..frameworks.adapter import settle
from ..parallel.coordinator import Coordinator, Rounds
from ..writing.options import OnNan, RequestOptions, WatchOptions
from ..writing.writer import SaveReport
from . import retention, snapshot
from .agreement import together
from .asynchronous import DroppedError, Job, Worker
from .copies import Copier, Waiting
from .history import History
from .options import Background, StepOptions
from .policies import Policy
from .replicas import ReplicaOrder, Replicas
from .retention import RetentionPlan
from .run import RunDirectory
from .sharing import saved_with_base, told
from .steps import Number, Step, metrics_in
from .tracking import LogTo, TrackedSave
from .writer_process import WriterProcess

Overwrite = bool | Literal["later"]
OnCommit = Callable[[Number, SaveReport], Any] | LogTo
OnError = Callable[[Number, BaseException], Any]


class SaveOrder(NamedTuple):
    """What is to be saved: a tree, or what was taken of one."""

    step: Number
    tree: Tree
    metadata: Tree
    overwrite: Overwrite
    taken: snapshot.Snapshot | None = None


def write_step(run: RunDirectory, savers: Coordinator, order: SaveOrder, options: Mapping[str, Any]) -> SaveReport:
    """Write and commit the tree of a step, under a lease on the run."""
    step, acts = order.step, savers.rank == 0
    with contextlib.ExitStack() as held:
        together(savers, acts, lambda: held.enter_context(run.saving(step)), f"begin of step {step}")
        replaces = bool(order.overwrite) or _takes_damaged_place(run, savers, step)
        group = None if savers.size == 1 else savers
        fixed = {"overwrite": replaces, "metadata": order.metadata, "coordinator": group}
        return saved_with_base(
            run, savers, options, lambda asked: save(run.path_of(step), order.tree, **fixed, **asked)
        )


def write_replica(place: RunDirectory, savers: Coordinator, order: SaveOrder, options: Mapping[str, Any]) -> SaveReport:
    """Write the tree of a step into a directory of replicas: the same bytes, which need not be flushed, and are neither
    counted nor checked, as those of the step itself are."""
    own = {**options, "durable": False, "progress": None, "check": None, "storage_options": None}
    own["on_nan"] = _refused(options)
    return write_step(place, savers, order._replace(overwrite=True), own)


def _refused(options: Mapping[str, Any]) -> OnNan | None:
    """What of NaNs is asked for that concerns replicas, too: the step itself warns."""
    return "refuse" if options.get("on_nan") == "refuse" else None


def _takes_damaged_place(run: RunDirectory, savers: Coordinator, step: Number) -> bool:
    """Whether something damaged stands where a step is to be, and is to be replaced, as all savers are told."""

    def place() -> bool:
        return savers.rank == 0 and run.set_aside(step)

    return bool(Rounds(savers).round(f"place of step {step}", place, lambda said: [any(said)] * len(said)))


class Saver:
    """Saves, and then deletes what no policy keeps. `savers`: who save one checkpoint together."""

    def __init__(
        self,
        run: RunDirectory,
        savers: Coordinator,
        background: Background,
        policies: tuple[Policy, ...],
        options: StepOptions,
        on_commit: OnCommit | None,
        on_error: OnError | None,
        replicas: Replicas,
    ) -> None:
        self._run, self.savers, self.policies = run, savers, policies
        self.worker = Worker(background.max_in_flight, finishes_at_exit=background.at_exit == "wait")
        self._process = self._writer_process(background, options) if background.by == "process" else None
        self._options: dict[str, Any] = {**options}
        self._on_commit, self._on_error = on_commit, on_error
        self._copier: Copier | None = None
        self._replicas = replicas
        self.acts = savers.rank == 0
        self.history: History | None = None
        self._split: Coordinator | None = None  # the savers, for what is saved in the background
        self._buffers: list[snapshot.SnapshotBuffers] = []  # of snapshots whose saves are over
        self.unsaid: str | None = None  # why a step shared nothing, the first time; "" once that was told
        self._saved: Number | None = None  # the last step that was committed here

    def copied_by(self, copier: Copier) -> None:
        """From now on `copier` copies what is saved, and what waits for that is kept."""
        self._copier = copier
        self.policies = (*self.policies, Waiting(copier))

    def make_patches(self) -> None:
        """From now on steps that are not among the last become patches."""
        durable = self._options.get("durable", True)
        waits = self._is_waiting
        self.history = History(self._run, self.worker, lambda: self.policies, waits, durable=durable)

    def _is_waiting(self, step: Step) -> bool:
        return self._copier is not None and self._copier.is_waiting(step)

    def _writer_process(self, background: Background, options: StepOptions) -> WriterProcess:
        if self.savers.size > 1:
            expected = 'background="thread", or per_process=True'
            raise fault("bad-option", "processes that save together have no other process save", expected=expected)
        if options.get("check") is not None:
            expected = 'background="thread", in which it is called'
            raise fault("bad-option", "check= cannot be called in another process", expected=expected)
        if self._run.path.startswith("memory:"):
            expected = 'background="thread", or another store'
            raise fault("bad-option", "no other process sees this store", path=self._run.path, expected=expected)
        return WriterProcess(self._run, options, background.nice)

    def close(self, *, keeps_replicas: bool) -> None:
        """End the process that writes, unless it is at work, and give its memory back; the next save begins another.
        Replicas go, too, if all is in the run."""
        if self.worker.is_idle:
            self._replicas.leave(keeps=keeps_replicas, acts=self.acts)
        if self._process is not None and self.worker.is_idle:
            self._process.end()
            self._buffers.clear()

    # ---- saving

    def save(self, order: SaveOrder, *, block: bool) -> None:
        """Save now, or copy the tree and save in the background."""
        if not block:
            self._save_in_background(order)
        elif self.savers.size > 1:  # who talk on the thread that calls
            self._commit(self.savers, order)
        else:
            settle()
            self.worker.run(Job(order.step, lambda job: self._commit(self.savers, order, job)))

    def _save_in_background(self, order: SaveOrder) -> None:
        if self._split is None:
            self._split = self.savers.split()
        savers = self._split
        try:
            buffers = self._buffers.pop()
        except IndexError:
            buffers = snapshot.SnapshotBuffers(is_shared=self._process is not None)

        def take() -> snapshot.Snapshot:
            try:
                return buffers.take(order.tree, self._options.get("skip"))
            except CkptError as error:
                error.path = error.path or self._run.path_of(order.step)
                raise

        taken = together(self.savers, True, take, f"snapshot of step {order.step}")
        assert taken is not None
        own = order._replace(tree=None, taken=taken)

        def run(_: Job) -> None:
            try:
                self._commit(savers, own)
            finally:
                self._buffers.append(buffers)

        self.worker.submit(Job(order.step, run))

    def _commit(self, savers: Coordinator, order: SaveOrder, job: Job | None = None) -> None:
        """Save, tell, and delete what is not kept. With a `job` the tree is the caller's: once he does not wait for the
        job any more it may change, and nothing is committed."""
        step = order.step
        try:
            begun = time.monotonic()
            report = self._written(savers, order, self._options if job is None else self._options_for(job))
            seconds = time.monotonic() - begun
            metrics = metrics_in(order.metadata)
            self._run.wrote(report.manifest_sha256, metrics)
            self.unsaid = told(step, report) if self.unsaid is None else self.unsaid
            self._saved = step if order.overwrite == "later" else self.later(step, self._saved)
            if order.overwrite == "later":
                together(savers, self.acts, lambda: self._rewind(step), f"going back to step {step}")
            if order.taken is not None:
                report = dataclasses.replace(report, copied_views=order.taken.copied_views)
            tracked = TrackedSave(step, time.time(), seconds, report.bytes, None, metrics)
            together(savers, True, lambda: self._committed(tracked, report), f"end of step {step}")
            self.wake()
        except DroppedError:
            raise
        except BaseException as error:
            if self._on_error is not None:
                self._on_error(step, error)
            raise

    def _written(self, savers: Coordinator, order: SaveOrder, options: Mapping[str, Any]) -> SaveReport:
        step, run, taken = order.step, self._run, order.taken
        if order.overwrite:
            going = partial(retention.make_independent, run, [step])
            together(savers, self.acts, going, f"what step {step} is the base of")
        elif self._saved is not None and run.key(self._saved) >= run.key(step):
            together(savers, self.acts, lambda: self._refuse_late(step), f"order of step {step}")
        if taken is not None and self._process is None:
            order = order._replace(tree=taken.tree)
        write = partial(self._write_replica, savers=savers, order=order, options=options)
        names = (keys_of(RequestOptions) | keys_of(WatchOptions) | {"paged"}) & options.keys()
        said = {name: options[name] for name in names} | {"metadata": order.metadata, "on_nan": _refused(options)}
        self._replicas.write(savers, ReplicaOrder(step, order.tree, said, write, order.overwrite == "later"))
        if taken is None or self._process is None:
            return write_step(run, savers, order, options)
        with run.saving(step):  # here, as that process does not know what was passed over
            replaces = bool(order.overwrite) or _takes_damaged_place(run, savers, step)
        return self._process.write(step, taken, order.metadata, replaces)

    def _write_replica(
        self, place: RunDirectory, savers: Coordinator, order: SaveOrder, options: Mapping[str, Any]
    ) -> None:
        if order.taken is None or self._process is None:
            write_replica(place, savers, order, options)
        else:
            self._process.write(order.step, order.taken, order.metadata, True, replica=place.path)

    def _options_for(self, job: Job) -> dict[str, Any]:
        """The options of a save that ends when its job is dropped."""
        asked = self._options.get("progress")

        def progress(done: int, total: int) -> None:
            job.check()
            if asked is not None:
                asked(done, total)

        return {**self._options, "progress": progress, "before_commit": job.check}

    def _committed(self, save: TrackedSave, report: SaveReport) -> None:
        call = self._on_commit
        if call is not None and not isinstance(call, LogTo):
            call(save.step, report)
        if self.acts:
            kept = self._pruned().kept
            if isinstance(call, LogTo):
                call.tell(save._replace(kept=len(kept)))

    def _refuse_late(self, step: Number) -> None:
        """A signal handler may have saved a later step since this one was begun."""
        latest = self._run.latest()
        if latest is not None:
            self.check_later(step, latest.step)

    def _rewind(self, step: Number) -> None:
        if self._copier is not None:
            self._copier.rewind(step)
        retention.rewind(self._run, step)

    # ---- the order of steps

    def later(self, step: Number, other: Number | None) -> Number:
        return step if other is None else max(step, other, key=self._run.key)

    def check_later(self, step: Number, last: Number) -> None:
        """Refuse a step that is not later than the last one; raises `exists`."""
        if self._run.key(last) >= self._run.key(step):
            raise fault(
                "exists",
                f"step {step} is not later than the last step {last}",
                path=self._run.path_of(step),
                found=step,
                expected=f"later than {last}, or overwrite=True",
            )

    def take_report(self) -> list[str]:
        """Take what could not be logged and was not said before."""
        return self._on_commit.take_report() if isinstance(self._on_commit, LogTo) else []

    # ---- deleting

    def plan(self) -> RetentionPlan:
        """What `prune` would do."""
        plan: RetentionPlan = self._do(lambda: retention.plan(self._run.scan().steps, self.policies))
        return plan

    def prune(self) -> RetentionPlan:
        """Delete what no policy keeps, and what crashes have left."""
        plan: RetentionPlan = self._do(self._pruned)
        if self.history is not None:
            self.history.wake()
        return plan

    def _pruned(self) -> RetentionPlan:
        remarks = None if self.history is None else self.history.remarks
        return retention.prune(self._run, self.policies, remarks)

    def sweep(self) -> list[str]:
        """Remove what crashes have left."""
        names: list[str] = self._do(lambda: self._run.sweep(self._run.scan().leftovers))
        return names

    def _do(self, work: Callable[[], Any]) -> Any:
        return self.worker.run(Job(None, lambda _: work()))

    def wake(self) -> None:
        """Have copied what is to be copied, and made patches of what is to become one."""
        self.wake_copier()
        if self.history is not None and self.acts:
            self.history.wake()

    def wake_copier(self) -> None:
        """Have copied what is to be copied."""
        if self._copier is not None and self.acts:
            self._copier.wake()
