"""Saving: a tree and options to a draft, the draft to a layout, the whole published at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from . import tree as trees
from ._version import __version__
from .arrays import COMPRESSED_CHUNK, LOOSE_CHUNK, ArraySpec, grid_for
from .codecs import RAW, Codec, codec_asked
from .digests import digest_named
from .dtypes import dtype_of
from .errors import CkptError, fault
from .layouts import Draft, layout_named
from .manifest import BLOCK, MAX_RANK, Schema
from .names import MAX_LENGTH, escape, path_text
from .patterns import matches
from .storage import attempt_for
from .tree import TensorLeaf, Tree

Compression = str | Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class SaveReport:
    """What `save` wrote: `bytes` in all, number of `tensors`, the manifest's sha256 (hex), and the groups of paths
    whose arrays overlap in memory without being the same tensor, which are therefore separate tensors now.
    [TREE-011]"""

    path: str
    layout: str
    bytes: int
    tensors: int
    manifest_sha256: str
    copied_views: tuple[tuple[str, ...], ...]


def save(
    path: str | os.PathLike[str],
    tree: Tree,
    *,
    layout: str = "file",
    overwrite: bool = False,
    compression: Compression | Mapping[str, Compression] = None,
    schema: Schema | tuple[str, str] | None = None,
    metadata: Tree = None,
    durable: bool = True,
    digest: str = "xxh3-128",
    extra: Mapping[str, Any] | None = None,
) -> SaveReport:
    """Save `tree` as one checkpoint at `path`: all of it, or nothing.

    `tree`: nested dict / list / tuple of NumPy arrays (any shape, byte order and strides), NumPy scalars, None, bool,
    int, float, complex, str and bytes. `layout`: "file" or "loose". `overwrite=False` never touches what exists; True
    replaces it atomically. `compression`: None (raw, can be mapped), "zstd", "gzip", "blosc", a map of `name` and its
    options, or rules {pattern: one of these}, of which the first that matches a tensor's path counts. `schema`: id
    and version of the parameter layout. `metadata`: a tree of plain values. `durable`: flush to the disk before
    publishing. `digest`: "xxh3-128", "sha256" or "blake3". `extra`: further keys of the manifest, which other readers
    ignore [MAN-003].

    Raises `InputError` (codes `unsupported-…`, `too-deep`, `bad-option`, `name-…`) before anything is written,
    `ExistsError` (`exists`, `not-replaceable`), `MissingError` (no directory to save into) and `StorageError`
    (`disk-full`, `permission`, `io`). SPEC.md section 11.
    """
    name = os.fspath(path)
    try:
        module = layout_named(layout)
        draft = _draft(tree, layout, compression, schema, metadata, digest, extra)
    except CkptError as error:
        error.path = error.path or name
        raise
    attempt = attempt_for(name, directory=layout != "file", overwrite=overwrite, durable=durable)
    try:
        written = module.write(draft[0], attempt)
        attempt.publish()
    except BaseException:
        attempt.abort()  # [PUB-007]; also for KeyboardInterrupt
        raise
    return SaveReport(name, layout, written.bytes, len(draft[0].names), written.record.sha256.hex(), draft[1])


def _draft(
    tree: Tree, layout: str, compression: Any, schema: Any, metadata: Tree, digest: str, extra: Mapping[str, Any] | None
) -> tuple[Draft, tuple[tuple[str, ...], ...]]:
    encoded = trees.encode(tree)
    rules = _rules(compression)
    draft = Draft(
        arrays=[leaf.array for leaf in encoded.tensors],
        names=_names(encoded.tensors),
        specs=tuple(_spec(leaf, layout, rules) for leaf in encoded.tensors),
        tree=encoded.node,
        metadata=trees.encode(metadata, allow_tensors=False).node,
        schema=_schema(schema),
        digest=_digest(digest),
        block=BLOCK,
        generator=f"ckptfmt {__version__}",
        extra=dict(extra or {}),
    )
    return draft, encoded.copied_views


def _names(tensors: list[TensorLeaf]) -> tuple[str, ...]:
    escaped = lru_cache(maxsize=1 << 16, typed=True)(escape)
    names = tuple(["/".join(map(escaped, leaf.path)) for leaf in tensors])
    for name, leaf in zip(names, tensors, strict=True):
        if len(name) > MAX_LENGTH:  # [NAME-006]
            raise fault(
                "name-too-long",
                f"a tensor's name has {len(name)} bytes",
                tensor=path_text(leaf.path)[:80],
                found=len(name),
                expected=f"at most {MAX_LENGTH}",
            )
    return names


def _rules(compression: Any) -> list[tuple[str, Codec]]:
    if isinstance(compression, Mapping) and "name" not in compression:
        return [(pattern, codec_asked(option)) for pattern, option in compression.items()]
    return [("**", codec_asked(compression))]


def _spec(leaf: TensorLeaf, layout: str, rules: list[tuple[str, Codec]]) -> ArraySpec:
    array = leaf.array
    if array.ndim > MAX_RANK:
        raise fault("unsupported-dtype", f"an array of {array.ndim} axes", tensor=path_text(leaf.path))
    codec = RAW if rules[0] == ("**", RAW) else _codec(path_text(leaf.path), rules)
    return _array_spec(array.dtype, array.shape, codec, layout)


@lru_cache(maxsize=1 << 14)
def _array_spec(numpy_dtype: Any, shape: tuple[int, ...], codec: Codec, layout: str) -> ArraySpec:
    """Arrays that are alike share one spec, so a checkpoint of many small tensors describes each kind once."""
    dtype = dtype_of(numpy_dtype)
    assert dtype is not None  # trees.encode refused others
    itemsize = dtype.stored.itemsize
    target = COMPRESSED_CHUNK if codec != RAW else LOOSE_CHUNK if layout == "loose" else None
    return ArraySpec(dtype, shape, grid_for(dtype.storage_shape(shape), itemsize, target), codec.for_itemsize(itemsize))


def _codec(text: str, rules: list[tuple[str, Codec]]) -> Codec:
    return next((codec for pattern, codec in rules if matches(pattern, text)), RAW)


def _schema(schema: Any) -> Schema | None:
    if schema is None:
        return None
    match (schema.id, schema.version) if isinstance(schema, Schema) else schema:
        case (str(identity), str(version)) if identity and version:  # [SCH-001]
            return Schema(identity, version)
    raise fault(
        "bad-option",
        f"schema= is {schema!r}",
        found=type(schema).__name__,
        expected="Schema(id, version) or a pair of non-empty strings",
    )


def _digest(name: str) -> Any:
    try:
        return digest_named(name)
    except CkptError as error:
        raise fault("bad-option", error.message) from error
