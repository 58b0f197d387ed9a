"""What a save is asked for: a tree and options, checked, before anything is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any

import msgpack
import numpy as np

from .._version import __version__
from ..errors import CkptError, fault
from ..format.arrays import COMPRESSED_CHUNK, LOOSE_CHUNK, ArraySpec, grid_for
from ..format.codecs import RAW, Codec, codec_asked
from ..format.digests import DIGEST, Digest, digest_named
from ..format.documents import unpack
from ..format.dtypes import dtype_of
from ..format.manifest import KEYS, Schema
from ..format.names import MAX_LENGTH, Key, Path, are_names_themselves, escape, path_label
from ..format.node import Node
from ..format.spec_columns import MAX_RANK
from ..format.tree import Tree
from ..format.weights import WEIGHTS, check_weights, codec_for
from ..frameworks.sources import KeptTensor, Sharded, Source, are_arrays
from ..patterns import Patterns, selector
from .encoder import EncodedTree, encode

Compression = str | Mapping[str, Any] | None

_JUST_TEXT = frozenset((str,))
_FORM = attrgetter("dtype", "shape")
_Rules = list[tuple[Callable[[Path], bool], Codec]]


@dataclass(frozen=True, slots=True)
class Request:
    """A tree as it will be stored, and how. `names` and `codecs`: one for each of its tensors."""

    encoded: EncodedTree
    names: tuple[str, ...]
    codecs: tuple[Codec, ...]
    metadata: Node
    schema: Schema | None
    digest: Digest
    generator: str


def request(
    tree: Tree,
    *,
    compression: Compression | Mapping[str, Compression] = None,
    schema: Schema | tuple[str, str] | None = None,
    metadata: Tree = None,
    digest: str = DIGEST,
    skip: Patterns = None,
) -> Request:
    """Check what `save` was given; raises `InputError`."""
    encoded = encode(tree, skip=skipped(skip))
    return Request(
        encoded=encoded,
        names=_names(encoded.paths),
        codecs=codecs_for(encoded.paths, encoded.sources, compression),
        metadata=encode(metadata, allow_tensors=False).node,
        schema=_schema(schema),
        digest=_digest(digest),
        generator=f"ckptfmt {__version__}",
    )


def skipped(patterns: Patterns) -> Callable[[Path], bool] | None:
    """Which entries of dicts a save leaves out; raises `bad-option`."""
    if patterns is None:
        return None
    asked = [patterns] if isinstance(patterns, str) else list(patterns)
    if not all(isinstance(pattern, str) for pattern in asked):
        raise fault("bad-option", "skip= has a pattern of another type", found=asked, expected="str")
    return selector(asked)


def whole_specs(asked: Request, layout: str) -> tuple[ArraySpec, ...]:
    """How a process that holds all of every tensor stores them; raises `shards-missing`."""
    sources, codecs = asked.encoded.sources, asked.codecs
    if are_arrays(sources):
        forms = map(_FORM, sources)
        if len(set(map(id, codecs))) == 1:
            return tuple(map(_Specs(codecs[0], layout).__getitem__, forms))
        return tuple(_array_spec(*form, codec, layout) for form, codec in zip(forms, codecs, strict=True))
    specs = []
    for path, source, codec in zip(asked.encoded.paths, sources, codecs, strict=True):
        if isinstance(source, KeptTensor):
            specs.append(source.spec)
            continue
        if isinstance(source, Sharded):
            held = {shard.start: math.prod(shard.source.shape) for shard in source.shards}
            if sum(held.values()) < math.prod(source.shape):
                text = path_label(path)
                raise fault("shards-missing", f"this process holds only a part of {text!r}", tensor=text)
        specs.append(_array_spec(source.dtype, tuple(source.shape), codec, layout))
    return tuple(specs)


class _Specs(dict[tuple[np.dtype[Any], tuple[int, ...]], ArraySpec]):
    """The specs of arrays by dtype and shape, where all have one codec."""

    def __init__(self, codec: Codec, layout: str) -> None:
        self.codec, self.layout = codec, layout

    def __missing__(self, form: tuple[np.dtype[Any], tuple[int, ...]]) -> ArraySpec:
        self[form] = spec = _array_spec(*form, self.codec, self.layout)
        return spec


@lru_cache(maxsize=1 << 14)
def _array_spec(numpy_dtype: np.dtype[Any], shape: tuple[int, ...], codec: Codec, layout: str) -> ArraySpec:
    """Arrays that are alike share one spec, so a checkpoint of many small tensors describes each kind once."""
    dtype = dtype_of(numpy_dtype)
    assert dtype is not None  # encode refused others
    itemsize = dtype.stored.itemsize
    target = COMPRESSED_CHUNK if codec != RAW else LOOSE_CHUNK if layout == "loose" else None
    return ArraySpec(dtype, shape, grid_for(dtype.storage_shape(shape), itemsize, target), codec.for_itemsize(itemsize))


def _check_shape(path: Path, source: Source) -> None:
    """Refuse what no manifest can say."""
    shape = source.shape
    if len(shape) > MAX_RANK:  # [LIM-002]
        raise fault("unsupported-dtype", f"a tensor of {len(shape)} axes", tensor=path_label(path))
    if isinstance(source, np.ndarray):
        return
    is_too_large = 0 not in shape and math.prod(shape) * source.dtype.itemsize >= 1 << 62  # [LIM-004]
    if is_too_large or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape):  # [MAN-002]
        text = path_label(path)
        raise fault("unsupported-dtype", f"a tensor of shape {list(shape)!s:.200}, too large", tensor=text)


def _all(path: Path) -> bool:
    return True


ALL_RAW = (_all, RAW)


def codecs_for(
    paths: list[Path], sources: list[Source], compression: Compression | Mapping[str, Compression]
) -> tuple[Codec, ...]:
    """How tensors are compressed, as the option of `save` says; raises `bad-option`, and `unsupported-dtype` for those
    that no manifest can describe."""
    rules = _rules(compression)
    if not are_arrays(sources):  # which have no more axes, nor more memory, than there may be
        for path, source in zip(paths, sources, strict=True):
            _check_shape(path, source)
    if rules[0] == ALL_RAW:
        return (RAW,) * len(paths)
    chosen = (next(codec for is_selected, codec in rules if is_selected(path)) for path in paths)
    return tuple(
        codec if codec is not WEIGHTS else codec_for(source.dtype, source.shape)
        for source, codec in zip(sources, chosen, strict=True)
    )


class _Escaped(dict[Key, str]):
    """The names of path segments."""

    def __missing__(self, key: Key) -> str:
        self[key] = name = escape(key)
        return name


def _names(paths: list[Path]) -> tuple[str, ...]:
    keys: Any = set(chain.from_iterable(paths))
    segments: Any = paths  # which are their names, as almost always
    if not _JUST_TEXT.issuperset(map(type, keys)) or not are_names_themselves(keys):
        known = _Escaped()
        segments = (map(known.__getitem__, path) for path in paths)
    names = tuple(map("/".join, segments))
    if max(map(len, names), default=0) <= MAX_LENGTH:
        return names
    for name, path in zip(names, paths, strict=True):
        if len(name) > MAX_LENGTH:  # [NAME-006]
            raise fault(
                "name-too-long",
                f"a tensor's name has {len(name)} bytes",
                tensor=path_label(path)[:80],
                found=len(name),
                expected=f"at most {MAX_LENGTH}",
            )
    return names


def extra_keys(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Further keys of a manifest, checked as readers check them; raises `bad-option`. [MAN-001] [MAN-003]"""
    try:
        taken = sorted(unpack(msgpack.packb(dict(extra))).keys() & KEYS)
    except (TypeError, ValueError, OverflowError, CkptError) as error:
        message = error.message if isinstance(error, CkptError) else str(error)
        raise fault("bad-option", f"extra= cannot stand in a manifest: {message}") from error
    if taken:
        raise fault("bad-option", f"extra= has keys that every manifest has: {', '.join(taken)}")
    return dict(extra)


def _rules(compression: Any) -> _Rules:
    """What is compressed, and how; the first that selects a tensor counts."""
    if not isinstance(compression, Mapping) or "name" in compression:
        return [(_all, _asked(compression))]
    for pattern in compression:
        if not isinstance(pattern, str):
            raise fault(
                "bad-option", f"compression= has the pattern {pattern!r}", found=type(pattern).__name__, expected="str"
            )
    return [*((selector(pattern), _asked(option)) for pattern, option in compression.items()), ALL_RAW]


def _asked(option: Any) -> Codec:
    """The codec of a `compression=` value, `WEIGHTS` for the preset."""
    if option != WEIGHTS.name:
        return codec_asked(option)
    check_weights()
    return WEIGHTS


def _schema(schema: Any) -> Schema | None:
    if schema is None:
        return None
    match (schema.id, schema.version) if isinstance(schema, Schema) else schema:
        case (str(identity), str(version)) if identity and version and _is_utf8(identity + version):  # [SCH-001]
            return Schema(identity, version)
    raise fault(
        "bad-option",
        f"schema= is {schema!r}",
        found=type(schema).__name__,
        expected="Schema(id, version) or a pair of non-empty strings",
    )


def _is_utf8(text: str) -> bool:
    """Whether it has no lone surrogates. [TREE-015]"""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _digest(name: str) -> Any:
    try:
        return digest_named(name)
    except CkptError as error:
        if error.expected is None:  # it is known, but its package is missing
            raise fault("missing-package", error.message, advice=error.advice) from error
        raise fault("bad-option", error.message, found=error.found, expected=error.expected) from error
