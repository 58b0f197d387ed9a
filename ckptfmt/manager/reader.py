"""Reading a run: its steps are found, listed and restored, in its directory and in a second one if it has one.

A manager reads by a `RunReader`; `open_run` gives one without a manager.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Unpack

from ..api import load as load_checkpoint
from ..calls import refuse_others, takes
from ..checkpoint import Checkpoint
from ..errors import CkptError, LinkedError, MissingError, StorageError, fault
from ..format.tree import Tree
from ..options import OpenOptions
from ..parallel.coordinator import Alone, Coordinator, Rounds
from ..warning import warn
from .agreement import in_common, together
from .copies import CopyTo, steps_there
from .flax_rules import PREFIX, FlaxNames
from .options import RESTORE, RestoreOptions, RunOptions, one_of, options_of
from .peer_replicas import Peers
from .policies import Best, Mode, Policy
from .replica_folder import Memory
from .replicas import FromReplica, Replicas, replicas_asked
from .run import DamagedStep, RunDirectory, place_of, run_at
from .steps import FixedNames, Given, Number, Step, StepNames
from .summary import steps_as_html

Which = Given | Literal["latest", "best"]  # a step, or which of them


class FallbackWarning(UserWarning):
    """A checkpoint that is damaged or cannot be read was passed over, and its copy or an older one taken."""


@takes(name="ckptfmt.manager.open_run")
def open_run(
    directory: str | os.PathLike[str],
    *,
    best: Best | None = None,
    second: str | os.PathLike[str] | CopyTo | None = None,
    replicas: Memory | Peers | Sequence[Memory | Peers] | None = None,
    coordinator: Coordinator | None = None,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
) -> RunReader:
    """Open a run for reading: nothing is saved, deleted, or copied, and no directory is made. One that does not exist
    has no steps.

        run = open_run("runs/7", best=Best("loss"))
        tree = run.restore("best")

    `directory`: that of a `CheckpointManager`, of one of its processes (`per_process`), or a second one, to which it
    copies; a path or URL, for which `storage_options` are those of `ckptfmt.open`. `best`: what "best" means, for
    `best()` and `restore("best")`. `second`: where steps are found that are not in `directory`, as with `copy_to=` of a
    manager. `replicas`: where its newest steps are read first, as with `replicas=` of a manager. `coordinator`: a group
    of processes that restore together, each the same step. `follow_links`: as in `ckptfmt.open`, for all steps, as in a
    run that was downloaded into a cache of Hugging Face.

    Raises `InputError` (`bad-option`).
    """
    asked: RunOptions = {"best": best, "second": second, "replicas": replicas, "coordinator": coordinator}
    return _opened(FixedNames(), directory, {**asked, "storage_options": storage_options, "follow_links": follow_links})


@takes(RunOptions, name="ckptfmt.manager.open_flax_run")
def open_flax_run(
    directory: str | os.PathLike[str], *, prefix: str = PREFIX, **options: Unpack[RunOptions]
) -> RunReader:
    """Open a run of a `FlaxCheckpointManager`, or of `flax.training.checkpoints`, for reading. `prefix`: what its names
    begin with. `options` are those of `open_run`.

    What flax itself wrote is read by way of a temporary checkpoint beside it, which is removed again. Raises
    `InputError` (`bad-option`).
    """
    return _opened(FlaxNames(prefix), directory, options)


def _opened(names: StepNames, directory: str | os.PathLike[str], options: RunOptions) -> RunReader:
    best, second = options.get("best"), options.get("second")
    if best is not None and not isinstance(best, Best):
        raise fault("bad-option", "best=", found=type(best).__name__, expected="Best(metric)")
    runs = [run_at(place_of(directory, ""), names, options.get("storage_options"))]
    if second is not None:
        asked = second if isinstance(second, CopyTo) else CopyTo(second)
        runs.append(run_at(place_of(asked.directory, ""), names, asked.storage_options))
    for run in runs:
        run.follows_links = bool(options.get("follow_links"))
    there = None if second is None else partial(steps_there, *runs)
    group = options.get("coordinator") or Alone()
    replicas = Replicas(runs[0], replicas_asked(options.get("replicas"), {}), "", group)
    return RunReader(runs[0], second=there, group=group, policies=() if best is None else (best,), replicas=replicas)


class RunReader:
    """Reads a run: finds its steps, lists them, and restores them; of a step that lies in both directories, that in the
    first. Changes nothing; on a store it leaves a lease beside a step while it reads it, where it may.

    `open_run` makes one. It may be used from several threads.
    """

    @takes()
    def __init__(
        self,
        run: RunDirectory,
        *,
        second: Callable[[], list[Step]] | None,
        group: Coordinator,
        policies: Sequence[Policy],
        replicas: Replicas,
    ) -> None:
        """`second` lists the second directory; the first `Best` of the policies says what is best."""
        self._run, self._second, self._group, self._policies = run, second, group, policies
        self._replicas = replicas
        self._restored_from: str | None = None

    @property
    def directory(self) -> str:
        """Where the run lies: an absolute path, or a URL."""
        return self._run.path

    def __repr__(self) -> str:
        best = "".join(f": {policy}" for policy in self._policies)
        return f"<{type(self).__name__} {self._run.path!r}{best}>"

    def _repr_html_(self) -> str:
        return steps_as_html(type(self).__name__, self._run)

    @property
    def restored_from(self) -> str | None:
        """Path of the checkpoint that the last `restore` read here: in the run's directory, the second one, or a
        replica. None before the first."""
        return self._restored_from

    # ---- finding

    def steps(self) -> list[Step]:
        """List the committed steps, in order. What is named like a step and is none, or cannot be read, is passed over,
        with a `FallbackWarning`, the first time; see `damaged`."""
        here = self._run.scan().steps
        steps = here if self._second is None else self._joined(here, self._second())
        tell_damage(self._run)
        return self._with_newer(steps)

    def _with_newer(self, steps: list[Step]) -> list[Step]:
        """Steps in order, and those that only replicas have."""
        return [*steps, *self._replicas.newer(steps[-1] if steps else None, self._run.damaged)]

    def damaged(self) -> list[DamagedStep]:
        """List what is named like a step and is none, or cannot be read, in order, and what is wrong with it. It may be
        mended (`ckptfmt.repair`): nothing deletes it."""
        self._run.scan()
        return self._run.damaged

    def latest(self) -> Step | None:
        """Find the last committed step that can be read; passes over what cannot, as `steps` does. Raises
        `StorageError` if there are steps, and none can be read: to begin anew would be worse."""
        steps = [step for step in [self._run.latest()] if step is not None]
        if self._second is not None:
            steps = self._joined(steps, self._second())
        steps = self._with_newer(steps)
        if not steps:
            for _, _, error in reversed(self._run.damaged):
                if isinstance(error, StorageError):
                    raise error
        tell_damage(self._run)
        return steps[-1] if steps else None

    @takes()
    def best(self, metric: str | None = None, mode: Mode | None = None) -> Step | None:
        """Find the best committed step by a `metric`, of which `mode` says what is best, "min" or "max": of the first
        `Best` among the policies, where none is named. None if no step has the metric as a number."""
        return self._best(self.steps(), metric, mode)

    def _best(self, steps: list[Step], metric: str | None, mode: Mode | None) -> Step | None:
        policy = next((p for p in self._policies if isinstance(p, Best) and metric in (None, p.metric)), None)
        if policy is None and metric is None:
            raise fault(
                "bad-option",
                "no policy says what is best",
                path=self._run.path,
                found=[str(policy) for policy in self._policies],
                expected="keep=[Best(metric), ...], or best(metric, mode) and the step that it returns",
            )
        by = Best(metric or policy.metric, 1, mode or (policy.mode if policy else "min"))  # type: ignore[union-attr]
        ranked = by.ranked(steps)
        return ranked[0] if ranked and by.value(ranked[0])[0] else None

    def _joined(self, here: list[Step], there: list[Step]) -> list[Step]:
        steps = {step.step: step for step in (*there, *here)}
        return sorted(steps.values(), key=lambda step: self._run.key(step.step))

    # ---- reading

    @contextlib.contextmanager
    @takes()
    def lease(self, which: Which = "latest") -> Iterator[Step]:
        """Hold a step, which nobody deletes while the block runs: a number, or "latest" or "best", for which all
        processes ask together. Raises `not-found`."""
        with self._lease(which, self._group if isinstance(which, str) else Alone()) as step:
            yield step

    @contextlib.contextmanager
    def _lease(self, which: Which, group: Coordinator) -> Iterator[Step]:
        while True:
            step = self._found(which, group)
            try:
                held = _HeldStep(step, group)
            except MissingError:
                if isinstance(which, str) and group.size == 1:
                    continue  # pruned between finding and holding: there is a newer one
                raise
            with held:
                yield step
            return

    @contextlib.contextmanager
    @takes(OpenOptions, name="open() of a run")
    def open(self, which: Which = "latest", **options: Unpack[OpenOptions]) -> Iterator[Checkpoint]:
        """Open a step, as `ckptfmt.open` does, under a lease, which lasts while the block runs. Raises `not-found`, and
        what `open` raises."""
        with self.lease(which) as step, step.run.opened(step, **options) as checkpoint:
            yield checkpoint

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
        with a `FallbackWarning` for each that is not. From then on these count as damaged here.

        Raises `not-found`, `bad-option`, and what `load` raises; for a step that is damaged, without `fallback`, what
        is wrong with it.
        """
        has = options_of(load)
        if has is not None:
            refuse_others(RESTORE, options, has | {"which", "fallback", "load"})
        links: OpenOptions = {"follow_links": options["follow_links"]} if "follow_links" in options else {}
        if fallback and not isinstance(which, str):
            which = self._readable(self._run.checked(which))
        with contextlib.ExitStack() as stack:
            while True:
                step = stack.enter_context(self._lease(which, self._group))
                done, is_done = self._from_replica(step, load, options)
                if is_done or not self._replicas.is_one(step):
                    break
                stack.close()  # it was passed over: what is the newest now?
            if is_done:
                assert done is not None
                return done.tree
            passed: list[tuple[Step, CkptError]] = []
            first = step
            while fallback and (error := self._fault_of(step, links)) is not None:
                passed.append((step, error))
                other = self._fallback(step)
                if other is None:
                    raise fault("not-found", f"no whole checkpoint at or before {which!r}", path=self._run.path)
                where = f"back to step {other.step}" if other.step != step.step else f"to its copy {other.path}"
                warn(f"{step.path} is damaged; going {where}", FallbackWarning)
                stack.close()
                stack.enter_context(_HeldStep(other, self._group))
                step = other
            for damaged, error in passed:  # only now: where none is whole there is nothing to go on from
                if not isinstance(error, LinkedError):  # which options may allow
                    damaged.run.pass_over(damaged, error)

            def read() -> Tree:
                if done is not None and step.step == first.step:
                    return done.tree
                self._restored_from = step.path
                return step.run.load(step, load, {**options})

            return together(self._group, True, read, f"load of step {step.step}")

    def _from_replica(
        self, step: Step, load: Callable[..., Tree], options: Mapping[str, Any]
    ) -> tuple[FromReplica | None, bool]:
        """What a replica of a step gives here, if there is one that is whole, and whether all processes have that."""
        if not self._replicas.are_asked:
            return None, False
        found: list[FromReplica] = []

        def look() -> bool:
            found.extend(tree for tree in [self._replicas.load(step, load, {**options})] if tree is not None)
            self._restored_from = found[0].path if found else self._restored_from
            return bool(found)

        is_done = all(_said(self._group, look, f"replica of step {step.step}"))
        return (found[0] if found else None), is_done

    def _fault_of(self, step: Step, options: OpenOptions) -> CkptError | None:
        """What is wrong with a step here or in another process; None if all find it whole."""
        found: list[CkptError] = []

        def look() -> str:
            found.extend(error for error in [step.run.fault_of(step, **options)] if error is not None)
            return found[0].code if found else ""

        codes = [code for code in _said(self._group, look, f"check of step {step.step}") if code]
        if not codes:
            return None
        return found[0] if found else fault(codes[0], "another process finds it damaged", path=step.path)

    def _readable(self, number: Number) -> Number:
        """A step, or where that is none, or cannot be read, the one before it."""
        self._run.find(number)
        if all(damaged.step != number for damaged in self._run.damaged):
            return number
        older = [step.step for step in self.steps() if self._run.key(step.step) <= self._run.key(number)]
        return older[-1] if older else number

    def _fallback(self, step: Step) -> Step | None:
        """What all processes have instead of a step: its copy, else the step before it."""
        second = self._second
        if second is not None:
            found: list[Step] = []

            def look() -> bool:
                there = second() if step.run is self._run else []
                found.extend(other for other in there if other.step == step.step)
                return bool(found)

            if all(_said(self._group, look, f"copy of step {step.step}")):
                return found[0]
        older: list[Step] = []

        def look_back() -> list[Number]:
            older.extend(found for found in self.steps() if self._run.key(found.step) < self._run.key(step.step))
            return [found.step for found in older]

        shared = in_common(self._group, look_back, f"steps before {step.step}")
        return next((found for found in reversed(older) if found.step in shared), None)

    def _found(self, which: Which, group: Coordinator) -> Step:
        """The step that all processes of the group mean by `which`."""
        if isinstance(which, str) and which == "latest" and group.size == 1:
            return self._there(which, self.latest())
        there: list[Step] = []

        def look() -> list[Number]:
            there.extend(self._candidates(which))
            return [step.step for step in there]

        is_large = isinstance(which, int) and which.bit_length() > 64  # it is refused then, and not for its digits
        name = "a step" if is_large else repr(which)
        shared = in_common(group, look, f"search for {name} of a manager")
        there = [step for step in there if step.step in shared]
        if not isinstance(which, str):
            return self._there(which, there[0] if there else None)

        def choose() -> Number | None:
            chosen = self._best(there, None, None) if which == "best" else (there[-1] if there else None)
            return None if chosen is None else chosen.step

        number = _said(group, choose, f"choice of {which!r}")[0]
        return self._there(which, next((step for step in there if step.step == number), None))

    def _candidates(self, which: Which) -> list[Step]:
        if isinstance(which, str):
            one_of("which", which, "latest", "best")
            return self.steps()
        number = self._run.checked(which)
        found = self._run.find(number)
        if found is None and self._second is not None:
            found = next((step for step in self._second() if step.step == number), None)
        if found is None and self._replicas.are_asked:
            found = next((step for step in self.steps() if step.step == number), None)
        return [] if found is None else [found]

    def _there(self, which: Which, found: Step | None) -> Step:
        if found is None:
            for damaged in self._run.damaged:
                if damaged.step == which:
                    raise damaged.error
            names = [str(step.step) for step in self.steps()]
            few = [*names[:2], "…", *names[-2:]] if len(names) > 5 else names
            raise fault(
                "not-found",
                f"the run has no committed checkpoint {which!r}",
                path=self._run.path,
                found=f"steps {', '.join(few)}" if names else "no steps",
                expected=which,
            )
        return found


def tell_damage(run: RunDirectory) -> None:
    """Warn of what was passed over, once for each."""
    for error in run.untold():
        warn(f"passed over: {error}", FallbackWarning)


class _HeldStep:
    """The lease of a step, which has begun in each process of a group. No `ExitStack`: one that is left open and so
    outlives the interpreter is no more able to end."""

    def __init__(self, step: Step, group: Coordinator) -> None:
        self._lease: Any = step.run.lease(step)
        self._has_begun = False
        try:
            together(group, True, self._begin, f"lease of step {step.step}")
        except BaseException:
            self.__exit__()
            raise

    def _begin(self) -> None:
        self._lease.__enter__()
        self._has_begun = True

    def __enter__(self) -> None:
        """It has begun."""

    def __exit__(self, *_: object) -> None:
        if self._has_begun:
            self._has_begun = False
            self._lease.__exit__(None, None, None)


def _said(group: Coordinator, work: Callable[[], Any], call: str) -> list[Any]:
    """What `work` gives in each process."""
    said: list[Any] = Rounds(group).round(call, work, lambda values: [values] * len(values))
    return said
