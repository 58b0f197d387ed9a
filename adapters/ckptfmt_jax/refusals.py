"""Transformations that a scan with snapshots cannot go through, told by name where they meet it."""

from __future__ import annotations

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ckptfmt.errors import fault

_ON_DISK = "a scan with snapshots on a disk (disk=, folder=)"


def without_map_or_derivative(tree: Any) -> Any:
    """The same; under `vmap` and `shard_map`, and where it is differentiated, `bad-option` is raised."""
    leaves, structure = jax.tree.flatten(tree)
    if any(varying_axes(jax.typeof(leaf)) for leaf in leaves):
        advice = "Give memory= alone"
        raise fault("bad-option", f"{_ON_DISK} goes under no shard_map", found="shard_map", advice=advice)
    return structure.unflatten(_host_bound(leaves))


def varying_axes(shape: Any) -> tuple[str, ...]:
    """The axes of a mesh along which devices have values of their own, within `shard_map`."""
    return tuple(getattr(getattr(shape, "manual_axis_type", None), "varying", ()))


@jax.custom_batching.custom_vmap  # type: ignore[untyped-decorator]
def _single(leaves: list[Any]) -> list[Any]:
    return leaves


@_single.def_vmap  # type: ignore[untyped-decorator]
def _mapped(*_: Any) -> NoReturn:
    advice = "Put vmap within the step, or give memory= alone"
    raise fault("bad-option", f"{_ON_DISK} goes under no vmap", found="vmap", expected="a single scan", advice=advice)


@jax.custom_jvp  # type: ignore[untyped-decorator]
def _host_bound(leaves: list[Any]) -> list[Any]:
    single: list[Any] = _single(leaves)
    return single


@_host_bound.defjvp  # type: ignore[untyped-decorator]
def _differentiated_twice(*_: Any) -> NoReturn:
    advice = "Use jax.lax.scan, or give memory= alone, of which forward derivatives of the gradient can be had"
    raise fault("bad-option", f"{_ON_DISK} has no second derivative", expected="a first derivative", advice=advice)


def without_second_derivative(tree: Any) -> Any:
    """The same; where its derivative is taken backward, `bad-option` is raised."""
    return jax.tree.map(lambda leaf: _ONCE.bind(leaf) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf, tree)


def _backward_twice(*_: Any) -> NoReturn:
    advice = "Use jax.lax.scan, or take the outer derivative forward: jax.jacfwd(jax.grad(f)), jax.jvp(jax.grad(f), …)"
    message = "a scan with a budget goes back once: its gradient has no backward derivative"
    raise fault("bad-option", message, found="grad of grad", expected="a first derivative", advice=advice)


_ONCE = Primitive("ckptfmt_once")  # the identity
_ONCE.def_impl(lambda leaf: leaf)
_ONCE.def_abstract_eval(lambda leaf: leaf)
mlir.register_lowering(_ONCE, lambda _, leaf: [leaf])
batching.defvectorized(_ONCE)
ad.deflinear2(_ONCE, _backward_twice)
