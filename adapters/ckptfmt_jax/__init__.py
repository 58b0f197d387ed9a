"""JAX's adapter: pytrees of `jax.Array`, on one device or sharded over a mesh, and what builds them anew from a
checkpoint of any framework.

`save` takes any pytree. `load` returns dicts, lists and tuples as they were; NamedTuples, dataclasses, flax states and
other registered nodes come back `like=` a template, which may be the result of `jax.eval_shape`. docs/jax.md has more.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Unpack

import ckptfmt
from ckptfmt.calls import takes
from ckptfmt.errors import fault
from ckptfmt.format.dtypes import Array
from ckptfmt.format.node import Restore
from ckptfmt.frameworks.adapter import Slot, Tagged, Template, register
from ckptfmt.frameworks.sources import Source
from ckptfmt.on_demand import exports
from ckptfmt.options import FillOptions
from ckptfmt.packages import required_by

with required_by("ckptfmt_jax"):
    import jax

    from . import arrays, keys, nodes, templates

if TYPE_CHECKING:
    from ckptfmt import Checkpoint, OpenOptions, SaveOptions, SaveReport
    from ckptfmt.storage import Place

    from .coordinator import JaxCoordinator

__all__ = ["ADAPTER", "JaxAdapter", "JaxCoordinator", "load", "open", "save"]


class JaxAdapter:
    """`jax.Array`, typed random keys, and the nodes of JAX's pytree registry."""

    framework = "jax"
    on_host = False  # true of CPU devices alone
    restores: Mapping[str, Restore] = MappingProxyType({keys.TAG: keys.restored})

    def lower(self, value: Any) -> Source | Tagged | None:
        """Describe what is stored of a value of JAX. Raises `unsupported-leaf` for arrays without elements to be had:
        traced or deleted ones."""
        if keys.is_key(value):
            return keys.lowered(value)
        if isinstance(value, jax.Array):
            return arrays.source(value)
        return None if isinstance(value, jax.ShapeDtypeStruct) else nodes.lowered(value)

    def wrap(self, array: Array) -> jax.Array:
        """Return an array on the default device; on a CPU it keeps the memory, if that is aligned."""
        return arrays.copied(array) if arrays.is_quickly_copied(array) else jax.device_put(array)

    def supports(self, dtype: str) -> bool:
        """Tell whether JAX has a dtype: 64-bit ones only where `jax_enable_x64` is set."""
        return arrays.supports(dtype, jax.config.jax_enable_x64)

    def slot(self, leaf: Any) -> Slot | None:
        """Return a slot that cannot be written, as arrays of JAX never change."""
        return Slot(leaf.shape, leaf.dtype, (), writable=False) if isinstance(leaf, jax.Array) else None

    def template(self, leaf: Any) -> Template | None:
        """Describe a `jax.Array` or `jax.ShapeDtypeStruct`; raises `framework-dtype`, and `bad-option` for a sharding
        that cannot be had."""
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            return None
        if not self.supports(leaf.dtype.name):
            raise fault(
                "framework-dtype",
                "the template asks for a dtype that JAX lacks, or has only with jax_enable_x64",
                found=leaf.dtype.name,
                expected="a dtype of JAX",
            )
        return Template(leaf.shape, leaf.dtype, templates.builder(leaf))


class JaxLoadOptions(FillOptions, total=False):
    """The options of `load`; see `ckptfmt.load`."""

    into: Any


ADAPTER = JaxAdapter()
register(ADAPTER)
__getattr__ = exports(__name__, {"JaxCoordinator": "coordinator"})  # which programs of one process do without


@takes("ckptfmt.save_options.SaveOptions")
def save(path: Place, tree: Any, **options: Unpack[SaveOptions]) -> SaveReport:
    """Save a pytree as one checkpoint: all of it, or nothing. `options` are those of `ckptfmt.save`.

    Each element of a sharded array is stored once. In a cluster of `jax.distributed`, all processes call this together
    and each stores the shards that it holds, in layout "packed"; with `coordinator=None` a process saves what it holds
    whole by itself, else `shards-missing` is raised. Raises what `ckptfmt.save` raises.
    """
    if "coordinator" not in options:
        from .coordinator import coordinator  # here, as loading needs none

        options["coordinator"] = coordinator()
    return ckptfmt.save(path, tree, **options)


@takes("ckptfmt.options.OpenOptions")
def open(path: Place, **options: Unpack[OpenOptions]) -> Checkpoint:
    """Open a checkpoint, whose slices and whole tensors are arrays of JAX on the default device. `options` and errors
    are those of `ckptfmt.open`."""
    return ckptfmt.open(path, **_for_jax(options))


@takes(JaxLoadOptions)
def load(path: Place, like: Any = None, *, sharding: Any = None, **options: Unpack[JaxLoadOptions]) -> Any:
    """Load a checkpoint as a tree of JAX arrays. `options` are those of `ckptfmt.load`.

    - `like`: a pytree of arrays or of `jax.ShapeDtypeStruct`, such as `jax.eval_shape` returns: the containers, static
      fields, shapes, dtypes, weak types and shardings of what is loaded. An array is put where its template lies, and
      each device's part is read once; a template without a sharding goes to the default device. Without `like`, the
      tree is dicts, lists and tuples, with every array on the default device.
    - `sharding`: shardings for `like`: one for all arrays, or a pytree of them that is a prefix of `like`, in which
      None keeps the template's own.

    Raises `MismatchError` (`mismatch`, `framework-dtype`), naming the tensors, where the checkpoint differs from
    `like`, or JAX lacks a dtype; `cast=True` converts instead. Raises what `ckptfmt.load` raises.
    """
    if sharding is not None:
        if like is None:
            raise fault("bad-option", "sharding= says where the arrays of like= go, and there is none", path=path)
        like = templates.placed(like, sharding)
    return ckptfmt.load(path, **{**_for_jax(options), "like": like})


def _for_jax(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the adapter; raises `bad-option` for another."""
    if "framework" in options:
        raise fault("bad-option", "framework= is JAX here", advice="Use ckptfmt.load for another framework")
    return {**options, "framework": ADAPTER}
