"""Arrays of JAX as sources of a save: host memory without a copy, memory of devices as it is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ckptfmt.errors import fault
from ckptfmt.format.dtypes import Array, dtype_named, dtype_of
from ckptfmt.format.grid import Shape
from ckptfmt.format.memory import ALIGNMENT
from ckptfmt.frameworks.sources import Region, Shard, Sharded, Source, address_of

SMALL = 64 << 10  # bytes


@cache
def supports(dtype: str, x64: bool) -> bool:
    """Whether JAX keeps elements of a logical dtype as they are; asked of JAX itself. `x64`: the setting under which
    the answer holds."""
    wanted = dtype_named(dtype).numpy
    try:
        return bool(jax.device_put(np.zeros(0, wanted)).dtype == wanted)
    except (TypeError, jax.errors.JaxRuntimeError):
        return False


def is_quickly_copied(array: Array) -> bool:
    """Whether `copied` is the fastest way to a small array: one of whose memory JAX makes a copy in any case, or that
    shares its memory with others."""
    row, owner = dtype_of(array.dtype), array.base
    if array.nbytes > SMALL or row is None or row.bits < 8:  # jax 0.10 has no copies of int1
        return False
    return (isinstance(owner, np.ndarray) and owner.nbytes > array.nbytes + ALIGNMENT) or address_of(
        array
    ) % ALIGNMENT != 0


def copied(array: Array) -> jax.Array:
    """An array on the default device, in a third of the time that `device_put` takes where there is little to copy."""
    return jnp.asarray(array)


def source(array: jax.Array) -> Source:
    """The elements of an array that this process holds; raises `unsupported-leaf` if nobody does."""
    if isinstance(array, jax.core.Tracer):
        raise fault("unsupported-leaf", "an array is traced; call save outside of jit, grad and vmap")
    if array.is_deleted():
        raise fault("unsupported-leaf", "an array was deleted, or donated to a function under jit")
    where = _where(array.sharding)
    if where != "devices":
        return _elements(array, where == "host")
    held = [shard for shard in array.addressable_shards if shard.replica_id == 0]
    shards = tuple(Shard(_start(shard.index), _elements(shard.data, shard.device.platform == "cpu")) for shard in held)
    return Sharded(array.shape, array.dtype, shards, Same(array))


def _start(index: tuple[slice, ...]) -> Shape:
    return tuple(axis.start or 0 for axis in index)


def _elements(array: jax.Array, is_on_host: bool) -> Source:
    """Of an array on one device of this process."""
    row = dtype_of(array.dtype) if is_on_host else None
    if row is not None and row.bits >= 8 and array.size:
        return np.asarray(array).view(Unchanging)  # JAX has other elements packed
    return OnDevice(array)


@lru_cache(maxsize=256)
def _where(sharding: jax.sharding.Sharding) -> Literal["host", "device", "devices"]:
    """Whether the whole of an array is in host memory, or on one other device of this process. JAX takes long to
    tell."""
    if len(sharding.device_set) > 1 or not sharding.is_fully_addressable:
        return "devices"
    return "host" if next(iter(sharding.device_set)).platform == "cpu" else "device"


class Unchanging(np.ndarray[Any, Any]):
    """A view of an array of JAX in host memory. Nobody needs a copy to keep its values: JAX changes no array, and
    donates none to a function under jit of which there is a view."""

    immutable = True


@dataclass(frozen=True, slots=True, eq=False)
class Same:
    """Equal for one and the same object."""

    of: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.of is other.of

    def __hash__(self) -> int:
        return id(self.of)


@dataclass(frozen=True, slots=True, eq=False)
class OnDevice:
    """An array in the memory of one device, of which regions are copied to the host as they are read."""

    array: jax.Array

    @property
    def shape(self) -> Shape:
        shape: Shape = self.array.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.array.dtype
        return dtype

    @property
    def identity(self) -> Same:
        return Same(self.array)

    def __getitem__(self, region: Region, /) -> Array:
        # of another object for the same elements, as JAX keeps the host copy of an array while that lives
        return np.asarray(self.array.addressable_data(0)[region])
