"""The half of a manager that finds and reads: in the run's directory, and in the second one if it has one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from ..api import load as load_checkpoint
from ..checkpoint import Checkpoint
from ..errors import MissingError, StorageError, fault
from ..format.tree import Tree
from ..parallel.coordinator import Alone, Coordinator, Rounds
from ..warning import warn
from .agreement import in_common, together
from .copies import Copier
from .policies import Best, Mode, Policy
from .run import DamagedStep, RunDirectory
from .steps import Number, Step

Which = Any  # a step, or "latest" or "best"


class FallbackWarning(UserWarning):
    """A checkpoint that is damaged or cannot be read was passed over, and its copy or an older one taken."""


class Finder:
    """Finds the steps of a run; of a step that lies in both directories, that in the first."""

    _run: RunDirectory
    _copier: Copier | None
    _group: Coordinator
    _policies: tuple[Policy, ...]
    _told: set[tuple[str, str]]  # paths and codes of what is damaged, of which the program was told

    @property
    def directory(self) -> str:
        return self._run.path

    # ---- finding

    def steps(self) -> list[Step]:
        """The committed steps, in order. What is named like a step and is none, or cannot be read, is passed over, with
        a `FallbackWarning`, the first time; see `damaged`."""
        here = self._run.scan().steps
        steps = here if self._copier is None else self._joined(here, self._copier.there())
        self._tell_damage()
        return steps

    def damaged(self) -> list[DamagedStep]:
        """What is named like a step and is none, or cannot be read, in order, and what is wrong with it. It may be
        mended (`ckptfmt.repair`): nothing deletes it."""
        self._run.scan()
        return self._run.damaged

    def latest(self) -> Step | None:
        """The last committed step that can be read; passes over what cannot, as `steps` does. Raises `StorageError` if
        there are steps, and none can be read: to begin anew would be worse."""
        steps = [step for step in [self._run.latest()] if step is not None]
        if self._copier is not None:
            steps = self._joined(steps, self._copier.there())
        if not steps:
            for _, _, error in reversed(self._run.damaged):
                if isinstance(error, StorageError):
                    raise error
        self._tell_damage()
        return steps[-1] if steps else None

    def _tell_damage(self) -> None:
        """Warn of what was passed over, once for each."""
        for _, path, error in self._run.damaged:
            if (path, error.code) not in self._told:
                self._told.add((path, error.code))
                warn(f"passed over: {error}", FallbackWarning)

    def best(self, metric: str | None = None, mode: Mode | None = None) -> Step | None:
        """The best committed step by a metric: of the first `Best` among the policies, where none is named. None if no
        step has the metric as a number."""
        return self._best(self.steps(), metric, mode)

    def _best(self, steps: list[Step], metric: str | None, mode: Mode | None) -> Step | None:
        policy = next((p for p in self._policies if isinstance(p, Best) and metric in (None, p.metric)), None)
        if policy is None and metric is None:
            raise fault(
                "bad-option",
                "no policy says what is best",
                path=self._run.path,
                found=[str(policy) for policy in self._policies],
                expected="keep=[Best(metric), ...], or best(metric, mode) and the step that it gives",
            )
        by = Best(metric or policy.metric, 1, mode or (policy.mode if policy else "min"))  # type: ignore[union-attr]
        ranked = by.ranked(steps)
        return ranked[0] if ranked and by.value(ranked[0])[0] else None

    def _joined(self, here: list[Step], there: list[Step]) -> list[Step]:
        steps = {step.step: step for step in (*there, *here)}
        return sorted(steps.values(), key=lambda step: self._key(step.step))

    # ---- reading

    @contextlib.contextmanager
    def lease(self, which: Which = "latest") -> Iterator[Step]:
        """A step that nobody deletes while the block runs: a number, or "latest" or "best", for which all processes
        ask together. Raises `not-found`."""
        with self._lease(which, self._group if isinstance(which, str) else Alone()) as step:
            yield step

    @contextlib.contextmanager
    def _lease(self, which: Which, group: Coordinator) -> Iterator[Step]:
        while True:
            step = self._found(which, group)
            with contextlib.ExitStack() as stack:
                try:
                    _hold(stack, step, group)
                except MissingError:
                    if isinstance(which, str) and group.size == 1:
                        continue  # pruned between finding and holding: there is a newer one
                    raise
                yield step
                return

    @contextlib.contextmanager
    def open(self, which: Which = "latest") -> Iterator[Checkpoint]:
        """`ckptfmt.open` of a step under a lease."""
        with self.lease(which) as step, step.run.opened(step) as checkpoint:
            yield checkpoint

    def restore(
        self,
        which: Which = "latest",
        *,
        fallback: bool = False,
        load: Callable[..., Tree] = load_checkpoint,
        **options: Any,
    ) -> Tree:
        """`ckptfmt.load` of a step under a lease; `options` are those of `load`: select, into, mmap, .... `load` is
        what to call instead: `ckptfmt_torch.load`, say, which fills modules and optimizers.

        `fallback=True` checks every byte first, and walks back from `which` to the newest checkpoint that is whole,
        with a `FallbackWarning` for each that is not. Raises `not-found`, and what `load` raises; for a step that is
        damaged, without `fallback`, what is wrong with it.
        """
        if fallback and not isinstance(which, str):
            which = self._readable(self._checked(which))
        with contextlib.ExitStack() as stack:
            step = stack.enter_context(self._lease(which, self._group))
            while fallback and not self._is_whole(step):
                other = self._fallback(step)
                if other is None:
                    raise fault("not-found", f"no whole checkpoint at or before {which!r}", path=self._run.path)
                where = f"back to step {other.step}" if other.step != step.step else f"to its copy {other.path}"
                warn(f"{step.path} is damaged; going {where}", FallbackWarning)
                stack.close()
                _hold(stack, other, self._group)
                step = other
            return together(self._group, True, lambda: step.run.load(step, load, options), f"load of step {step.step}")

    def _is_whole(self, step: Step) -> bool:
        """Whether all processes find it whole."""
        return all(_said(self._group, lambda: step.run.is_whole(step), f"check of step {step.step}"))

    def _readable(self, number: Number) -> Number:
        """A step, or where that is none, or cannot be read, the one before it."""
        self._run.find(number)
        if all(damaged.step != number for damaged in self._run.damaged):
            return number
        older = [step.step for step in self.steps() if self._key(step.step) <= self._key(number)]
        return older[-1] if older else number

    def _fallback(self, step: Step) -> Step | None:
        """What all processes have instead of a step: its copy, else the step before it."""
        if self._copier is not None:
            found: list[Step] = []

            def look() -> bool:
                assert self._copier is not None
                there = self._copier.there() if step.run is self._run else []
                found.extend(other for other in there if other.step == step.step)
                return bool(found)

            if all(_said(self._group, look, f"copy of step {step.step}")):
                return found[0]
        older: list[Step] = []

        def look_back() -> list[Number]:
            older.extend(found for found in self.steps() if self._key(found.step) < self._key(step.step))
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
        number = self._checked(which)
        found = self._run.find(number)
        if found is None and self._copier is not None:
            found = next((step for step in self._copier.there() if step.step == number), None)
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

    def _checked(self, step: Any) -> Number:
        """The step as a number that processes can tell each other; raises `bad-option`."""
        if isinstance(step, int) and not -(1 << 63) <= step < 1 << 64:
            found = f"a number of {step.bit_length()} bits"
            raise fault("bad-option", "a step is too large", path=self._run.path, found=found, expected="below 2^64")
        return self._run.names.checked(step)

    def _key(self, step: Number) -> Any:
        return self._run.names.key(step)


def _hold(stack: contextlib.ExitStack, step: Step, group: Coordinator) -> None:
    together(group, True, lambda: stack.enter_context(step.run.lease(step)), f"lease of step {step.step}")


def _said(group: Coordinator, work: Callable[[], Any], call: str) -> list[Any]:
    """What `work` gives in each process."""
    said: list[Any] = Rounds(group).round(call, work, lambda values: [values] * len(values))
    return said


def one_of(name: str, value: object, *allowed: object) -> None:
    """Refuse an option that is none of these; 0 and 1 are no bools. Raises `bad-option`."""
    if value not in allowed or (isinstance(value, int) and not isinstance(value, bool)):
        raise fault("bad-option", f"{name}=", found=value, expected=" or ".join(map(repr, allowed)))
