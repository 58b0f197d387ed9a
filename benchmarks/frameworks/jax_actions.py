"""JAX: our adapter, and Orbax's PyTree checkpointer with its defaults (which flush what it saves to the disk)."""

from __future__ import annotations

from typing import Any

import ckptfmt_jax
import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec

from .place import Action, Call, Place


def _sharding(place: Place) -> Any:
    """Rows over all devices of all processes; the one device of a process that is alone."""
    if place.ranks == 1:
        return jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return NamedSharding(jax.make_mesh((jax.device_count(),), ("rows",)), PartitionSpec("rows"))


def _array(place: Place, name: str) -> jax.Array:
    whole = place.state.array(name)
    return jax.make_array_from_callback(whole.shape, _sharding(place), lambda index: np.ascontiguousarray(whole[index]))


def _tree(place: Place) -> dict[str, jax.Array]:
    tree: dict[str, jax.Array] = place.keep("tree", lambda: {n: _array(place, n) for n in place.state.shapes})
    return tree


def _template(place: Place) -> dict[str, jax.ShapeDtypeStruct]:
    state, sharding = place.state, _sharding(place)
    return {n: jax.ShapeDtypeStruct(shape, state.dtype, sharding=sharding) for n, shape in state.shapes.items()}


def save_jax(path: str, place: Place) -> Call:
    tree = _tree(place)
    return lambda: ckptfmt_jax.save(path, tree, durable=False)


def save_jax_flushed(path: str, place: Place) -> Call:
    tree = _tree(place)
    return lambda: ckptfmt_jax.save(path, tree)


def load_jax(path: str, place: Place) -> Call:
    like = _template(place)
    return lambda: jax.block_until_ready(ckptfmt_jax.load(path, like))


def save_orbax(path: str, place: Place) -> Call:
    tree, checkpointer = _tree(place), place.keep("orbax", ocp.PyTreeCheckpointer)
    return lambda: checkpointer.save(path, tree)


def load_orbax(path: str, place: Place) -> Call:
    like, checkpointer = _template(place), place.keep("orbax", ocp.PyTreeCheckpointer)
    arguments = ocp.checkpoint_utils.construct_restore_args(like)
    return lambda: jax.block_until_ready(checkpointer.restore(path, item=like, restore_args=arguments))


ACTIONS: dict[str, Action] = {
    action.__name__: action for action in (save_jax, save_jax_flushed, load_jax, save_orbax, load_orbax)
}
