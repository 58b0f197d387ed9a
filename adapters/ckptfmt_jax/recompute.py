"""Gradient checkpointing for `jax.lax.scan`: of its carries a few are kept, in memory and on a disk, and the others
computed again on the way back."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ckptfmt.calls import count_asked, takes
from ckptfmt.errors import fault
from ckptfmt.recompute.budget import SnapshotBudget, snapshots_in
from ckptfmt.recompute.costs import Costs
from ckptfmt.recompute.plans import best_schedule
from ckptfmt.recompute.schedules import Slots, kind_named, slots_for, usual
from ckptfmt.recompute.snapshots import local_folder

from .arrays import Same
from .itinerary import Itinerary, itinerary
from .keys import is_key
from .sweeps import JaxprStep, Leaves, remainder, sweeps

__all__ = ["scan"]

ScanStep = Callable[[Any, Any], tuple[Any, Any]]


@takes(name="ckptfmt_jax.recompute.scan")
def scan(
    f: ScanStep,
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    *,
    memory: SnapshotBudget = None,
    disk: SnapshotBudget = None,
    folder: str | os.PathLike[str] | None = None,
    schedule: str | None = None,
    period: int | None = None,
    costs: Costs | None = None,
    segment: int | None = None,
) -> tuple[Any, Any]:
    """Do what `jax.lax.scan` does, whose gradient takes the memory of a few carries, and as few steps done again as
    that allows.

        carry, ys = scan(f, carry, xs, memory=20)

    - `f`, `init`, `xs`, `length`, `reverse`, and what comes back: as with `jax.lax.scan`. There are gradients by the
      carry, by `xs`, and by all that `f` closes over. Integers and random keys, typed or raw, may be anywhere.
    - `memory`, `disk`: how many carries are kept at a time, the first one among them, or bytes ("512MiB"), or
      "unlimited". Those on the disk are checkpoints of this format in `folder`, written in the background by callbacks
      on the host, and read ahead; a folder without `disk` is one without limit. Without a budget it is `jax.lax.scan`.
    - `schedule`, `period`: as in `ckptfmt.recompute.gradient`; "auto" is the one that takes the least time by `costs`.
    - `segment`: this many steps are one for the schedule. What derivatives need of the steps of one segment is held at
      a time, as in a `lax.scan` under `jax.checkpoint`; so a third less is computed.

    Under jit the whole of it is compiled at once, and the step three times however long it is. Without a gradient it is
    `jax.lax.scan`, and nothing is kept. `vmap`, and forward derivatives of the gradient, are for memory alone.

    Raises `InputError` (`bad-option`) and `UnsupportedError` (`missing-package`), and what `jax.lax.scan` raises for
    what it cannot do. An error of the disk ends the computation as `jax.errors.JaxRuntimeError`, which has its text;
    there is no gradient then.
    """
    budget = _ScanBudget(memory, disk, folder, schedule, period, costs, segment)
    if (memory, disk, folder) == (None, None, None):
        budget.check_empty()
        last, ys = lax.scan(f, init, xs, length, reverse)
        return last, ys
    budget.check()
    steps, reverse = _steps_of(xs, length), bool(reverse)
    xs = jax.tree.map(jnp.asarray, xs)
    jaxpr, outputs, carry = _traced(f, init, xs, steps, reverse)
    leaves, structure = jax.tree.flatten(carry)
    slots = budget.slots(leaves)
    if not steps:
        last, ys = lax.scan(f, init, xs, steps, reverse)
        return last, ys
    step = JaxprStep(jaxpr.jaxpr, len(leaves), reverse, segment or 1)
    last, ys = _kept(step, list(jaxpr.consts), leaves, jax.tree.leaves(xs), steps, budget, slots)
    return structure.unflatten(last), jax.tree.structure(outputs[1]).unflatten(ys)


def _kept(
    step: JaxprStep, consts: Leaves, carry: Leaves, xs: Leaves, steps: int, budget: _ScanBudget, slots: Slots
) -> tuple[Leaves, Leaves]:
    """Go over whole segments with snapshots, and then over the steps that are left, which are fewer than a segment."""
    count, left = divmod(steps, step.segment)
    if not count:
        return remainder(step, left)(consts, carry, xs)
    rest: Leaves = xs
    if step.segment > 1:
        parts = (
            (slice(left, steps), slice(0, left)) if step.reverse else (slice(steps - left), slice(steps - left, None))
        )
        xs, rest = ([leaf[part] for leaf in xs] for part in parts)
        xs = [leaf.reshape(count, step.segment, *leaf.shape[1:]) for leaf in xs]
    rows = budget.itinerary(count, slots)
    carry, ys = sweeps(step, count, Same(rows), local_folder(budget.folder) if rows.fetched else None).call(
        consts, carry, xs
    )
    if step.segment > 1:
        ys = [leaf.reshape(steps - left, *leaf.shape[2:]) for leaf in ys]
    if left:
        carry, others = remainder(step, left)(consts, carry, rest)
        pairs = zip(others, ys, strict=True) if step.reverse else zip(ys, others, strict=True)
        ys = [jnp.concatenate(pair) for pair in pairs]
    return carry, ys


@dataclass(frozen=True, slots=True)
class _ScanBudget:
    """What a scan was asked to keep, and how."""

    memory: SnapshotBudget
    disk: SnapshotBudget
    folder: str | os.PathLike[str] | None
    schedule: str | None
    period: int | None
    costs: Costs | None
    segment: int | None

    def check_empty(self) -> None:
        """Refuse what goes with no budget; raises `bad-option`."""
        for name in ("schedule", "period", "costs", "segment"):
            if getattr(self, name) is not None:
                raise fault("bad-option", f"{name}= without a budget", expected="memory=, disk= or folder=, too")

    def check(self) -> None:
        """Refuse what no carry is needed to refuse; raises `bad-option`."""
        for name in ("period", "segment"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, count_asked(f"{name}=", value))
        if self.schedule not in (None, "auto"):
            kind_named(str(self.schedule))

    def slots(self, carry: Sequence[Any]) -> Slots:
        """The snapshots that the budgets are enough for; raises `bad-option`."""
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in carry)
        disk = "unlimited" if self.disk is None and self.folder is not None else self.disk
        slots = Slots(snapshots_in("memory", self.memory, size), snapshots_in("disk", disk, size), self.period)
        if not slots.memory and not slots.disk:
            advice = "Say how many are held at a time, in memory= or disk="
            raise fault("bad-option", "no snapshots can be held", found=0, expected="1 or more", advice=advice)
        if slots.disk:
            if self.folder is None:
                raise fault("bad-option", "folder=", expected="where snapshots on the disk go")
            local_folder(self.folder)
        return slots

    def itinerary(self, steps: int, slots: Slots) -> Itinerary:
        name = usual(slots, is_online=False) if self.schedule is None else self.schedule
        costs = self.costs or Costs()
        if name == "auto":
            if self.costs is None:
                raise fault("bad-option", 'schedule="auto"', expected="costs=, too, which recompute.measure gives")
            name = best_schedule(steps, slots, costs)
            slots = slots_for(name, slots)
        return itinerary(name, steps, slots, costs)


def _steps_of(xs: Any, length: int | None) -> int:
    """How many steps there are; raises what `lax.scan` raises."""

    def count(xs: Any) -> Any:
        return lax.scan(lambda carry, _: (carry, jnp.int8(0)), jnp.int8(0), xs, length)[1]

    steps: int = jax.eval_shape(count, xs).shape[0]
    return steps


def _strong(leaf: Any) -> Any:
    """An array without a weak type."""
    array = jnp.asarray(leaf)
    return array if is_key(array) or not array.weak_type else lax.convert_element_type(array, array.dtype)


def _traced(f: ScanStep, init: Any, xs: Any, steps: int, reverse: bool) -> tuple[Any, Any, Any]:
    """The step with all that it closes over as constants, the shapes that it gives, and the carry, which is promoted
    as `lax.scan` does it. Raises what that raises."""

    carry = jax.tree.map(_strong, init)

    def once(carry: Any) -> tuple[Any, Any]:
        given = jax.eval_shape(lambda carry, xs: (carry, jax.tree.map(_first, xs)), carry, xs)
        jaxpr, outputs = jax.make_jaxpr(f, return_shape=True)(*given)
        return jaxpr, outputs

    jaxpr, outputs = once(carry)
    if not _goes_on(outputs, carry):
        last, _ = jax.eval_shape(lambda carry, xs: lax.scan(f, carry, xs, steps, reverse), init, xs)
        carry = jax.tree.map(lambda leaf, shape: leaf.astype(shape.dtype), carry, last)
        jaxpr, outputs = once(carry)
    return jaxpr, outputs, carry


def _first(leaf: Any) -> Any:
    return leaf[0] if len(leaf) else jnp.zeros(leaf.shape[1:], leaf.dtype)


def _shaped(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _goes_on(outputs: Any, carry: Any) -> bool:
    """Whether what a step gives is a carry like the one that it took, and a y."""
    if not isinstance(outputs, tuple) or len(outputs) != 2:
        return False
    found, shapes = jax.tree.map(_shaped, outputs[0]), jax.tree.map(_shaped, carry)
    if jax.tree.structure(found) != jax.tree.structure(shapes):
        return False
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(shapes), strict=True)
    return all((one.shape, one.dtype) == (other.shape, other.dtype) for one, other in pairs)
