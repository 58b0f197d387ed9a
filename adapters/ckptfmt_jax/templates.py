"""From templates to arrays: where the array goes, and which regions its devices need."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util
from jax.sharding import AbstractMesh, NamedSharding, Sharding

from ckptfmt.errors import CkptError, fault
from ckptfmt.format.dtypes import Array
from ckptfmt.format.grid import Shape
from ckptfmt.format.memory import aligned
from ckptfmt.frameworks.adapter import Blank, SlotPart
from ckptfmt.frameworks.sources import Region, shifted, whole

Spans = tuple[tuple[int, int], ...]  # start and stop along each axis


@dataclass(frozen=True, slots=True)
class Builder:
    """Begins an array, in memory that JAX can take over. Without a `sharding` it goes to the default device, and is
    free to leave it."""

    sharding: Sharding | None
    weak_type: bool

    def __call__(self, shape: Shape, dtype: np.dtype[Any]) -> Blank:
        if self.sharding is None:
            array = _array(whole(shape), dtype)
            return Blank((SlotPart(whole(shape), array),), lambda: self._finished(jax.device_put(array)))
        return self._in_shards(self.sharding, shape, dtype)

    def _in_shards(self, sharding: Sharding, shape: Shape, dtype: np.dtype[Any]) -> Blank:
        """The parts that the devices of this process hold, each read once, however many devices hold it.

        Parts that together are one box are read as that box: columns that were read one by one would read the blocks,
        in which their rows lie, again for each.
        """
        indices = sharding.addressable_devices_indices_map(shape).values()
        wanted = {_spans(index, shape) for index in indices}
        box = tuple((min(low for low, _ in axis), max(high for _, high in axis)) for axis in zip(*wanted, strict=True))
        held: dict[Spans, Array]
        if sum(map(_size, wanted)) == _size(box):
            whole_box, origin = _array(_region(box), dtype), [low for low, _ in box]
            parts = [SlotPart(_region(box), whole_box)]
            boxes: dict[Spans, Any] = {spans: (*shifted(_region(spans), origin), ...) for spans in wanted}
            held = {spans: whole_box[index] for spans, index in boxes.items()}
        else:
            held = {spans: _array(_region(spans), dtype) for spans in wanted}
            parts = [SlotPart(_region(spans), array) for spans, array in held.items()]
        make = jax.make_array_from_callback
        return Blank(
            tuple(parts),
            lambda: self._finished(make(shape, sharding, lambda index: held[_spans(index, shape)], dtype=dtype)),
        )

    def _finished(self, array: jax.Array) -> jax.Array:
        return _weak(array) if self.weak_type else array


def _array(region: Region, dtype: np.dtype[Any]) -> Array:
    return aligned(tuple(axis.stop - axis.start for axis in region), dtype)


def _spans(index: tuple[slice, ...], shape: Shape) -> Spans:
    """An index of JAX, whose slices may lack start and stop, as (start, stop) for each axis."""
    return tuple(axis.indices(n)[:2] for axis, n in zip(index, shape, strict=True))


def _region(spans: Spans) -> Region:
    return tuple(slice(*span) for span in spans)


def _size(spans: Spans) -> int:
    return math.prod(high - low for low, high in spans)


def builder(leaf: Any) -> Builder:
    """What makes arrays like a leaf; raises `bad-option` for a sharding that cannot be had."""
    sharding = leaf.sharding
    if isinstance(leaf, jax.Array) and not leaf.committed:
        sharding = None
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, AbstractMesh):
        sharding = _on_current_mesh(sharding)
    if sharding is not None:
        try:
            sharding.shard_shape(leaf.shape)
        except (IndexError, ValueError) as error:
            raise _unfit(leaf.shape, error) from error
    return Builder(sharding, leaf.weak_type)


def _on_current_mesh(sharding: NamedSharding) -> NamedSharding:
    """The sharding over devices that is meant by one of `jax.eval_shape`, which knows the mesh but no devices."""
    mesh = jax.sharding.get_mesh()
    if not set(sharding.mesh.axis_names) <= set(mesh.axis_names):
        raise fault(
            "bad-option",
            f"{sharding} names no devices; load inside jax.set_mesh(mesh), or give sharding=",
            found=f"mesh {mesh.axis_names}",
            expected=f"mesh {sharding.mesh.axis_names}",
        )
    return NamedSharding(mesh, sharding.spec, memory_kind=sharding.memory_kind)


def placed(like: Any, sharding: Any) -> Any:
    """`like` with the shardings of a prefix tree; None there keeps what a leaf has. Raises `bad-option`."""

    def place(prefix: Any, one: Sharding | None, part: Any) -> Any:
        if one is None:
            return part
        return tree_util.tree_map_with_path(lambda path, leaf: _described(leaf, one, prefix + path), part)

    return tree_util.tree_map_with_path(place, sharding, like, is_leaf=lambda node: node is None)


def _described(leaf: Any, sharding: Sharding, path: Any) -> Any:
    if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return leaf
    try:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding, weak_type=leaf.weak_type)
    except ValueError as error:
        raise _unfit(leaf.shape, error, tree_util.keystr(path, simple=True, separator="/")) from error


def _unfit(shape: Shape, error: Exception, tensor: str | None = None) -> CkptError:
    return fault("bad-option", f"a sharding does not fit the shape {shape}: {error}", tensor=tensor)


def _weak(array: jax.Array) -> jax.Array:
    """The same array with a weak type, which decides what it is promoted to and whether functions are compiled anew.
    JAX offers no cast to one, but `full_like` keeps that of its first argument."""
    zero = jnp.asarray(array.dtype.type(0).item())
    return jnp.vectorize(lambda value: jax.lax.full_like(zero, value))(array) if zero.dtype == array.dtype else array
