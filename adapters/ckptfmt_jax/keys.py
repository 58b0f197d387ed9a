"""Typed random keys: stored as their key data, under the name of their generator (SPEC.md section 13)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ckptfmt import UnknownTagWarning
from ckptfmt.errors import fault
from ckptfmt.frameworks.adapter import Tagged
from ckptfmt.warning import warn

TAG = "jax.key"


def is_key(value: Any) -> bool:
    """Whether a value is an array of typed keys, or describes one."""
    if not isinstance(value, (jax.Array, jax.ShapeDtypeStruct)) or isinstance(value.dtype, np.dtype):
        return False  # at once for almost all arrays
    return bool(jnp.issubdtype(value.dtype, jax.dtypes.prng_key))


def lowered(keys: Any) -> Tagged:
    """Keys as their data, a description of keys as one of their data; raises `unsupported-leaf`."""
    if isinstance(keys, jax.core.Tracer) or (isinstance(keys, jax.Array) and keys.is_deleted()):
        raise fault("unsupported-leaf", "an array of random keys is traced or deleted")
    generators = []

    def key_data(traced: jax.Array) -> jax.Array:
        generators.append(jax.random.key_impl(traced))
        return jax.random.key_data(traced)

    described = jax.eval_shape(key_data, jax.ShapeDtypeStruct(keys.shape, keys.dtype))  # key_impl wants an array
    (generator,) = generators
    if not isinstance(generator, str):
        raise fault("unsupported-leaf", f"random keys of a generator without a name, {generator}")
    if isinstance(keys, jax.Array):
        data = jax.random.key_data(keys)
    else:  # the axis that key data have more is not partitioned
        data = jax.ShapeDtypeStruct(described.shape, described.dtype, sharding=keys.sharding)
    return Tagged(TAG, generator, data, lambda child: jax.random.wrap_key_data(child, impl=generator))


def restored(generator: str, data: jax.Array) -> jax.Array:
    """Keys from their data; the data themselves, with a warning, for a generator that this JAX lacks. [TAG-004]"""
    try:
        return jax.random.wrap_key_data(data, impl=generator)
    except (TypeError, ValueError) as error:
        warn(f"keys of {generator!r} were read as their data: {error}", UnknownTagWarning)
        return data
