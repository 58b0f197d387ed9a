"""The two sweeps of a scan as compiled loops, which follow the rows of a schedule.

The step is compiled three times, for however many steps: with what it gives of each, without, and with its derivative.
Loops that run once or not at all stand where a condition might: XLA changes in place what goes through a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import eval_jaxpr
from jax.custom_derivatives import SymbolicZero
from jax.experimental import io_callback
from jax.sharding import NamedSharding, PartitionSpec

from . import spills
from .arrays import Same
from .itinerary import FIRST, FROM_DISK, FROM_MEMORY, IS_LAST, LAST, NOWHERE, TO_DISK, TO_MEMORY, Itinerary
from .refusals import varying_axes, without_map_or_derivative, without_second_derivative

Leaves = Sequence[Any]
Remainder = Callable[[Leaves, Leaves, Leaves], tuple[Leaves, Leaves]]


def is_differentiable(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


class Raw(NamedTuple):
    """How leaves are kept that may be typed random keys: as their data."""

    generators: tuple[Any, ...]  # None for a leaf that is no key

    def lower(self, leaves: Leaves) -> list[Any]:
        return [
            leaf if generator is None else jax.random.key_data(leaf)
            for leaf, generator in zip(leaves, self.generators, strict=True)
        ]

    def restore(self, leaves: Leaves) -> list[Any]:
        return [
            leaf if generator is None else jax.random.wrap_key_data(leaf, impl=generator)
            for leaf, generator in zip(leaves, self.generators, strict=True)
        ]


def raw(shapes: Iterable[Any]) -> Raw:
    """How leaves of these shapes are kept."""
    generators: list[Any] = []

    def note(leaf: Any) -> None:
        generators.append(jax.random.key_impl(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else None)

    for shape in shapes:
        jax.eval_shape(note, shape)
    return Raw(tuple(generators))


@dataclass(frozen=True, slots=True)
class JaxprStep:
    """A step as a jaxpr, which takes leaves of constants, of a carry, of an x, and gives those of a carry, of a y.
    Of a segment, so many steps are one: its x and y have an axis more."""

    jaxpr: Any
    carried: int
    reverse: bool
    segment: int

    def once(self, consts: Leaves, carry: Leaves, x: Leaves) -> tuple[list[Any], list[Any]]:
        if self.segment > 1:
            return replace(self, segment=1).over(consts, carry, x, self.segment)
        outputs = eval_jaxpr(self.jaxpr, consts, *carry, *x)
        return outputs[: self.carried], outputs[self.carried :]

    def over(self, consts: Leaves, carry: Leaves, xs: Leaves, steps: int) -> tuple[list[Any], list[Any]]:
        """Go over steps by `lax.scan`."""
        last, ys = lax.scan(partial(self.once, consts), list(carry), list(xs), steps, self.reverse)
        return last, ys

    def shapes(self) -> tuple[list[Any], list[Any]]:
        """Of a carry, and of a y."""
        shapes = [jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype) for variable in self.jaxpr.outvars]
        carry, y = shapes[: self.carried], shapes[self.carried :]
        if self.segment > 1:
            y = [jax.ShapeDtypeStruct((self.segment, *shape.shape), shape.dtype) for shape in y]
        return carry, y


_NAME = jax.ShapeDtypeStruct((), np.int32)  # of a run on the disk


@jax.tree_util.register_static
@dataclass(frozen=True, slots=True)
class WantedAdjoints:
    """Of which leaves somebody wants the derivative."""

    consts: tuple[bool, ...]
    xs: tuple[bool, ...]


class Sweeps:
    """One scan: its step, how many, and the rows that it follows. `call(consts, carry, xs)` gives the last carry and
    the ys, all of them lists of leaves."""

    def __init__(self, step: JaxprStep, steps: int, rows: Itinerary, folder: str | None) -> None:
        self._step, self._steps, self._rows, self._folder = step, steps, rows, folder
        self._on_disk = bool(rows.fetched)
        carry, y = step.shapes()
        self._moving = tuple(is_differentiable(shape) for shape in carry)
        self._form, self._y_form, self._carry_shapes = raw(carry), raw(y), carry
        self._kept_shapes = jax.eval_shape(self._form.lower, carry)
        self._forward = jax.jit(self._forward_sweep)
        self._backward = jax.jit(self._backward_sweep, static_argnums=0)
        self.call = jax.custom_vjp(self._plain)
        self.call.defvjp(self._forward_rule, self._backward_rule, symbolic_zeros=True)

    # ---- the rules of the derivative

    def _plain(self, consts: Leaves, carry: Leaves, xs: Leaves) -> tuple[list[Any], list[Any]]:
        """Where nobody wants a derivative."""

        return self._step.over(consts, carry, xs, self._steps)

    def _forward_rule(self, consts: Leaves, carry: Leaves, xs: Leaves) -> Any:
        wanted = WantedAdjoints(_wanted(consts), _wanted(xs))
        given = tuple([leaf.value for leaf in leaves] for leaves in (consts, carry, xs))
        if self._on_disk:
            given = without_map_or_derivative(given)
        last, ys, kept = without_second_derivative(self._forward(*given))
        if self._on_disk:
            spills.given_up_with(kept[-1])
        return (last, ys), (wanted, given[0], given[2], kept)

    def _backward_rule(self, residuals: Any, adjoints: Any) -> Any:
        wanted, consts, xs, kept = residuals
        after, ys = ([_known(leaf) for leaf in leaves] for leaves in adjoints)
        pairs = zip(after, self._carry_shapes, self._moving, strict=True)
        after = [jnp.zeros(shape.shape, shape.dtype) if leaf is None else leaf for leaf, shape, moves in pairs if moves]
        if self._on_disk:
            xs, kept, after, ys = without_map_or_derivative((xs, kept, after, ys))
        found = without_second_derivative(self._backward(wanted, consts, xs, kept, after, ys))
        if self._on_disk and not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(found)):
            jax.block_until_ready(found)  # while `kept` is held, with which the run lives
        return found

    # ---- a step

    def _place(self, number: Any) -> Any:
        """Where the x of a step stands."""
        return self._steps - 1 - number if self._step.reverse else number

    # ---- forward

    def _forward_sweep(self, consts: Leaves, carry: Leaves, xs: Leaves) -> Any:
        """The last carry, the ys, and what the way back needs: snapshots, the state in hand, the run on the disk."""
        rows, steps = self._rows, self._steps

        def step(number: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
            carry, recorded = state
            place = self._place(number)
            carry, y = self._step.once(consts, carry, _at(xs, place))
            return carry, _put(recorded, place, self._y_form.lower(y))

        def advance(first: Any, last: Any, state: tuple[Any, Any]) -> Any:
            return lax.fori_loop(first, last, step, state)

        name = self._begun((consts, carry, xs)) if self._on_disk else jnp.int32(0)
        _, y = jax.eval_shape(self._step.once, consts, carry, _at(xs, 0))
        recorded = [_room(steps, leaf) for leaf in jax.eval_shape(self._y_form.lower, y)]
        slots = [_room(rows.slots, leaf) for leaf in jax.eval_shape(self._form.lower, carry)]
        follow = partial(self._follow, advance, slice(0, rows.turn))
        name, in_hand, slots, recorded = lax.fori_loop(0, rows.turn, follow, (name, list(carry), slots, recorded))
        last, recorded = advance(rows.in_hand, steps, (in_hand, recorded))
        return last, self._y_form.restore(recorded), (slots, self._form.lower(in_hand), name)

    def _follow(self, advance: Any, among: slice, index: Any, state: Any) -> Any:
        """Carry out one row. `among`: the rows that it may be."""
        there = (self._rows.rows[among] != NOWHERE).any(axis=0)
        row = jnp.asarray(self._rows.rows)[index]
        name, carry, slots, recorded = state
        if there[FROM_MEMORY]:
            held = row[FROM_MEMORY]
            carry = _if(held >= 0, lambda _: self._form.restore(_at(slots, held)), carry)
        if there[FROM_DISK]:
            carry = _if(row[FROM_DISK] >= 0, partial(self._fetched, name, row), carry)
        if there[TO_MEMORY]:
            free = row[TO_MEMORY]
            slots = _if(free >= 0, lambda slots: _put(slots, free, self._form.lower(carry)), slots)
        if there[TO_DISK]:
            name = _if(row[TO_DISK] >= 0, partial(self._stored, row, carry), name)
        carry, recorded = advance(row[FIRST], row[LAST], (carry, recorded))
        return name, carry, slots, recorded

    # ---- the disk

    def _begun(self, given: Any) -> Any:
        """The name of a new run. It hangs on all that is given: in a loop, each time has a run of its own."""

        def call(_: Any) -> Any:
            return np.int32(spills.begin(str(self._folder), self._rows.fetched))

        _, nothing = lax.optimization_barrier((given, jnp.int32(0)))
        return io_callback(call, _NAME, nothing, ordered=True)

    def _stored(self, row: Any, carry: Leaves, name: Any) -> Any:
        """The name of the run: a callback whose result nobody needs may be left out where a loop is differentiated."""

        def call(name: Any, number: Any, *arrays: Any) -> Any:
            spills.store(int(name), int(number), list(arrays))
            return np.int32(name)

        return io_callback(call, _NAME, name, row[TO_DISK], *self._form.lower(carry), ordered=True)

    def _ended(self, name: Any, found: Any) -> Any:
        """What was found, once the run is removed."""

        def call(name: Any) -> Any:
            spills.end(int(name))
            return np.int32(name)

        return lax.optimization_barrier((found, io_callback(call, _NAME, name, ordered=True)))[0]

    def _fetched(self, name: Any, row: Any, carry: Leaves) -> list[Any]:
        def call(name: Any, number: Any, last: Any) -> list[Any]:
            return spills.fetch(int(name), int(number), last=bool(last))

        arrays = io_callback(call, self._kept_shapes, name, row[FROM_DISK], row[IS_LAST], ordered=True)
        return self._form.restore(arrays)

    # ---- back

    def _backward_sweep(
        self, wanted: WantedAdjoints, consts: Leaves, xs: Leaves, kept: Any, after: Leaves, ys: Leaves
    ) -> tuple[list[Any], list[Any], list[Any]]:
        rows, steps = self._rows, self._steps
        slots, in_hand, name = kept

        def step(number: Any, carry: Leaves) -> list[Any]:
            return self._step.once(consts, carry, _at(xs, self._place(number)))[0]

        def advance(first: Any, last: Any, state: tuple[Any, Any]) -> Any:
            return lax.fori_loop(first, last, step, state[0]), state[1]

        follow = partial(self._follow, advance, slice(rows.turn, None))
        before = jnp.asarray(rows.before)

        def step_back(turn: Any, state: Any) -> Any:
            name, carry, slots, after, sums, by_x = state
            number = steps - 1 - turn
            state = (name, carry, slots, ())
            name, carry, slots, _ = lax.fori_loop(before[number + 1], before[number], follow, state)
            place = self._place(number)
            found = self._adjoint(wanted, consts, carry, _at(xs, place), after, _at(ys, place))
            sums = [old + new for old, new in zip(sums, found[0], strict=True)]
            return name, carry, slots, found[1], sums, _put(by_x, place, found[2])

        sums = [jnp.zeros_like(leaf) for leaf in _chosen(consts, wanted.consts)]
        by_x = [jnp.zeros_like(leaf) for leaf in _chosen(xs, wanted.xs)]
        start = (name, self._form.restore(in_hand), slots, list(after), sums, by_x)
        name, _, _, after, sums, by_x = lax.fori_loop(0, steps, step_back, start)
        if self._on_disk:
            after, sums, by_x = self._ended(name, (after, sums, by_x))
        return _spread(sums, wanted.consts), _spread(after, self._moving), _spread(by_x, wanted.xs)

    def _adjoint(
        self, wanted: WantedAdjoints, consts: Leaves, carry: Leaves, x: Leaves, after: Leaves, y_after: Leaves
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """Adjoints of constants, carry and x of one step, as far as they are wanted."""
        there = [leaf is not None for leaf in y_after]

        def outputs(consts_: Leaves, carry_: Leaves, x_: Leaves) -> tuple[list[Any], list[Any]]:
            carry_, y = self._step.once(
                _merged(consts, consts_, wanted.consts),
                _merged(carry, carry_, self._moving),
                _merged(x, x_, wanted.xs),
            )
            return _chosen(carry_, self._moving), _chosen(y, there)

        moving = (_chosen(consts, wanted.consts), _chosen(carry, self._moving), _chosen(x, wanted.xs))
        _, back = jax.vjp(outputs, *moving)
        return back((list(after), _chosen(y_after, there)))  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def sweeps(step: JaxprStep, steps: int, rows: Same, folder: str | None) -> Sweeps:
    """The same for the same, so that nothing is compiled twice."""
    return Sweeps(step, steps, rows.of, folder)


@lru_cache(maxsize=64)
def remainder(step: JaxprStep, steps: int) -> Remainder:
    """Single steps that are left over, of which only the first carry is kept."""
    checkpoint: Any = jax.checkpoint
    compiled: Remainder = jax.jit(checkpoint(partial(replace(step, segment=1).over, steps=steps)))
    return compiled


def _wanted(leaves: Leaves) -> tuple[bool, ...]:
    return tuple(leaf.perturbed and is_differentiable(leaf.value) for leaf in leaves)


def _known(leaf: Any) -> Any:
    """An adjoint; None for one that is nothing."""
    is_nothing = isinstance(leaf, SymbolicZero) or leaf.dtype == jax.dtypes.float0
    return None if is_nothing else leaf


def _room(count: int, like: Any) -> Any:
    """Room for so many; over a mesh of explicit axes, split as they are."""
    sharding = like.sharding
    if isinstance(sharding, NamedSharding):
        sharding = NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))
    room = jnp.zeros((count, *like.shape), like.dtype, device=sharding)
    varying = varying_axes(like)
    return lax.pcast(room, varying, to="varying") if varying else room


def _at(leaves: Leaves, place: Any) -> list[Any]:
    """An element of each; None stays."""
    return [None if leaf is None else lax.dynamic_index_in_dim(leaf, place, keepdims=False) for leaf in leaves]


def _put(leaves: Leaves, place: Any, elements: Leaves) -> list[Any]:
    pairs = zip(leaves, elements, strict=True)
    return [lax.dynamic_update_index_in_dim(leaf, element, place, 0) for leaf, element in pairs]


def _if(condition: Any, change: Callable[[Any], Any], value: Any) -> Any:
    return lax.fori_loop(0, condition.astype(jnp.int32), lambda _, value: change(value), value)


def _chosen(leaves: Leaves, flags: Iterable[bool]) -> list[Any]:
    return [leaf for leaf, flag in zip(leaves, flags, strict=True) if flag]


def _spread(found: Iterable[Any], flags: Iterable[bool]) -> list[Any]:
    """What was found for those that are flagged, and None for the others."""
    each = iter(found)
    return [next(each) if flag else None for flag in flags]


def _merged(leaves: Leaves, others: Iterable[Any], flags: Iterable[bool]) -> list[Any]:
    """The others in the places that are flagged."""
    each = iter(others)
    return [next(each) if flag else leaf for leaf, flag in zip(leaves, flags, strict=True)]
