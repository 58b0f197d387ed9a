"""What Orbax can hold, and how it is made to write one array after another."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import Any

import numpy as np

from ..errors import fault
from ..format.dtypes import Array
from ..format.names import Path, path_label, path_text
from ..format.tree import Tree
from ..packages import install, package
from .fit import CORE, KeptMetadata, ShapedTree, keys_of
from .source import Loss, is_tensor, said

WRITING = "writing a directory of Orbax"
TREE_METADATA = "orbax.tree_metadata"  # metadata: what is said of a tree that is saved
# beside NumPy's own, those that TensorStore has in Zarr 2
DTYPES = frozenset({"bfloat16", "float4_e2m1fn", "int4", "int2", "float8_e3m4", "float8_e4m3b11fnuz", "float8_e4m3fn"})
DTYPES |= {"float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"}
PYTHON = (np.int64, np.float64, np.complex128)  # come back as Python's numbers


def folder(name: str) -> str:
    """Below which an array of that name lies in OCDBT, as TensorStore makes it of the name."""
    return "" if name in ("", "/") else name if name.endswith("/") else f"{name}/"


def fits(value: Any) -> bool:
    """Whether Orbax takes a plain value of a type that it has, and gives the same back."""
    if isinstance(value, np.generic):
        is_number = isinstance(value, np.number) and value.dtype.name in CORE
        return is_number and value.dtype not in PYTHON and not (value.dtype == np.uint64 and int(value) >= 1 << 63)
    return type(value) is not int or -(1 << 63) <= value < 1 << 64


def kept(metadata: Tree, tree: Tree) -> KeptMetadata:
    """Of metadata what is said of the tree, if JSON can say it."""
    found = keys_of(metadata, {TREE_METADATA})
    said = (found.value or {}).get(TREE_METADATA)
    if said is None or (isinstance(said, dict) and _is_json(said)):
        return found
    return KeptMetadata(None, (*found.lost, f"{TREE_METADATA!r} is left out: it is no dict that JSON can say"))


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and _is_json(item) for key, item in value.items())
    return all(map(_is_json, value)) if type(value) is list else type(value) in (type(None), bool, int, float, str)


def shaped(tree: Tree) -> ShapedTree:
    """A tree as Orbax gives it back; raises `name-collision` where it would store two leaves under one name, and
    `unsupported-leaf` for a tree with nothing in it."""
    losses: list[Loss] = []
    tree = _sequences(tree, (), losses)
    if tree is None or (isinstance(tree, dict | list | tuple) and not tree):
        raise fault("unsupported-leaf", "Orbax does not save a tree that is empty")
    stored: dict[tuple[bool, str], Path] = {}
    for path, leaf in _leaves(tree, ()):
        name = ".".join(map(path_text, ((key,) for key in path)))
        place = (isinstance(leaf, str), name if isinstance(leaf, str) else folder(name))
        if place in stored:
            message = f"Orbax would store this and {path_label(stored[place])!r} under the one name {name!r}"
            raise fault("name-collision", message, tensor=path_label(path))
        stored[place] = path
    pointers = {tuple(name.split("/")): path for (is_text, name), path in stored.items() if is_text}
    for parts, path in pointers.items():
        if any(parts[:end] in pointers for end in range(1, len(parts))):
            message = "Orbax has one file for all strings, where this would lie below another one"
            raise fault("name-collision", message, tensor=path_label(path))
    return ShapedTree(tree, tuple(losses))


def _sequences(tree: Tree, path: Path, losses: list[Loss]) -> Tree:
    """The same tree with lists for tuples, and without arrays that have no elements."""
    if is_tensor(tree) and 0 in tree.shape:
        losses.append(Loss("value", path_label(path), "an array without elements, which Orbax refuses, becomes None"))
        return None
    if isinstance(tree, dict):
        return {key: _sequences(item, (*path, key), losses) for key, item in tree.items()}
    if type(tree) is tuple and tree:
        losses.append(Loss("nesting", path_label(path), "a tuple becomes a list"))
    if type(tree) is list or (type(tree) is tuple and tree):
        return [_sequences(item, (*path, i), losses) for i, item in enumerate(tree)]
    return tree


def _leaves(tree: Tree, path: Path) -> Any:
    if isinstance(tree, dict | list):
        for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _leaves(item, (*path, key))
    elif tree is not None and type(tree) is not tuple:
        yield path, tree


def random_key(generator: Any, data: Array) -> Any:
    """A typed random key of jax."""
    return package("jax", WRITING).random.wrap_key_data(np.asarray(data), impl=generator)


def save(path: str, tree: Tree, about: Any) -> None:
    """Save a tree, with what is said `about` it."""
    try:
        ocp: Any = import_module("orbax.checkpoint")
    except ImportError as error:
        message = f"{WRITING} requires the package orbax-checkpoint"
        advice = f"Install it: {install('orbax-checkpoint')}"
        raise fault("missing-package", f"{message}: {said(error)}", advice=advice) from error
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(type_handler_registry=_handlers(ocp))) as checkpointer:
        checkpointer.save(path, args=ocp.args.PyTreeSave(tree, custom_metadata=about))


def _handlers(ocp: Any) -> Any:
    """What writes each kind of leaf. Orbax itself would copy all arrays, and compress all at once."""
    known = ocp.type_handlers

    class OneByOne(known.NumpyHandler):  # type: ignore[misc,name-defined]
        async def _background_serialize(self, values: Any, infos: Any, args: Any = None) -> None:
            for one in zip(values, infos, args, strict=True):
                await super()._background_serialize(*([item] for item in one))

    kinds = (int, float, str, np.number, package("jax", WRITING).Array)
    others = [(kind, known.get_type_handler(kind)) for kind in kinds]
    may_keep = "deepcopy_host_arrays" in signature(known.NumpyHandler).parameters  # from 0.12.6 on
    arrays = OneByOne(deepcopy_host_arrays=False) if may_keep else OneByOne()
    return known.create_type_handler_registry((np.ndarray, arrays), *others)
