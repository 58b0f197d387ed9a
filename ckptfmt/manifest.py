"""The manifest (SPEC.md section 7): the msgpack document, parsed once and checked whole."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from . import tree
from .arrays import ArraySpec
from .chunk_table import ChunkTable, decode_table
from .codecs import codec_of
from .digests import digest_named
from .dtypes import dtype_named
from .errors import CkptError, fault
from .names import check_names

FORMAT = (1, 0)
KNOWN_FEATURES: frozenset[str] = frozenset()
LAYOUTS = ("file", "packed", "loose")
BLOCK = 4 << 20  # [BLK-003]
MAX_RANK = 64  # [LIM-002]


@dataclass(frozen=True, slots=True)
class Schema:
    """The user's name and version for the parameter layout (SPEC.md section 14)."""

    id: str
    version: str


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its `object` (None: each chunk is one), and the chunk table. `size` and `frame` are those of a pack."""

    object: str | None
    chunks: ChunkTable
    size: int | None = None
    frame: bytes | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """The parsed document. `names` and `specs` have one entry for each tensor; `unknown` keeps keys of later minor
    versions."""

    layout: str
    digest: str
    block: int
    tree: tree.Node
    metadata: tree.Node
    names: tuple[str, ...]
    specs: tuple[ArraySpec, ...]
    part: Part
    generator: str
    schema: Schema | None = None
    requires: tuple[str, ...] = ()
    format: tuple[int, int] = FORMAT
    unknown: dict[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> ChunkTable:
        return self.part.chunks

    def encode(self) -> bytes:
        """The canonical bytes. [MAN-004] [MAN-009]"""
        chains: list[Any] = []
        chain_numbers: dict[Any, int] = {}
        codec_column = []
        for spec in self.specs:
            number = chain_numbers.setdefault(spec.codec, len(chains))
            if number == len(chains):
                chains.append(spec.codec.chain)
            codec_column.append(number)
        document = {
            "format": list(self.format),
            "layout": self.layout,
            "requires": list(self.requires),
            "generator": self.generator,
            "digest": self.digest,
            "block": self.block,
            "schema": self._encode_schema(),
            "metadata": self.metadata,
            "tree": self.tree,
            "codecs": chains,
            "tensors": {
                "name": list(self.names),
                "dtype": [spec.dtype.name for spec in self.specs],
                "shape": [spec.shape for spec in self.specs],
                "grid": [spec.grid for spec in self.specs],
                "codec": codec_column,
            },
            "parts": [
                {
                    "object": self.part.object,
                    "size": self.part.size,
                    "frame": self.part.frame,
                    "chunks": self.part.chunks.encode(),
                }
            ],
            **self.unknown,
        }
        return bytes(msgpack.packb(document))

    def _encode_schema(self) -> dict[str, Any] | None:
        if self.schema is None:
            return None
        return {
            "id": self.schema.id,
            "version": self.schema.version,
            "fingerprint": fingerprint(self.names, self.specs),
        }


def fingerprint(names: Sequence[str], specs: Sequence[ArraySpec]) -> bytes:
    """sha256 over names, dtypes and shapes. [SCH-002]"""
    return fingerprint_of((name, spec.dtype.name, spec.shape) for name, spec in zip(names, specs, strict=True))


def fingerprint_of(rows: Iterable[tuple[str, str, Sequence[int]]]) -> bytes:
    """The same of (name, dtype, shape)."""
    ordered = sorted([name, dtype, list(shape)] for name, dtype, shape in rows)
    return hashlib.sha256(msgpack.packb(ordered)).digest()


def decode(raw: bytes) -> Manifest:
    """Parse and check a manifest; raises `bad-manifest`, `bad-extent` or one of the `unknown-…` codes."""
    document = unpack(raw)
    match document:
        case {"format": [int(major), int(minor)], "layout": str(layout), "requires": list(requires)} if (
            all(type(r) is str for r in requires) and type(major) is type(minor) is int
        ):
            pass
        case _:
            raise _bad("`format`, `layout` or `requires` is missing or of another type [MAN-002]")
    unknown = [feature for feature in requires if feature not in KNOWN_FEATURES]
    if unknown:
        raise fault(
            "unknown-feature", f"the checkpoint requires {', '.join(map(repr, unknown))} [MAN-006]", found=unknown[0]
        )
    if layout not in LAYOUTS:
        raise _bad(f"there is no layout {layout!r} [LAY-006]")
    if layout == "packed":
        raise fault("unknown-feature", "layout 'packed' is not known to this version", found="packed")
    match document:
        case {
            "generator": str(generator),
            "digest": str(digest_name),
            "block": int(block),
            "schema": schema,
            "metadata": metadata,
            "tree": root,
            "codecs": list(chains),
            "tensors": {
                "name": list(names),
                "dtype": list(dtypes),
                "shape": list(shapes),
                "grid": list(grids),
                "codec": list(codecs),
            },
            "parts": [{"object": (str() | None) as name, "size": None, "frame": None, "chunks": dict(chunks)}],
        }:
            pass
        case _:
            raise _bad("a key is missing or has a value of another type [MAN-002]")
    if len({len(names), len(dtypes), len(shapes), len(grids), len(codecs)}) != 1:
        raise _bad("the columns of `tensors` differ in length [MAN-007]")
    if block % 4096 or not 4096 <= block <= 1 << 30:
        raise _bad(f"block size {block} is not allowed [BLK-003]")
    if not all(type(text) is str for text in (*names, *dtypes)):
        raise _bad("a name or dtype is no string [MAN-002]")
    digest = digest_named(digest_name)
    check_names(names)
    tree.check(root, dtypes)
    tree.check(metadata, ())
    specs = _specs(dtypes, shapes, grids, codecs, chains)
    if name != ("" if layout == "file" else None):
        raise _bad(f"layout {layout!r} has a part in the object {name!r} [CHK-002]")
    part = Part(name, decode_table(chunks, specs, digest, block))
    if (part.chunks.offset is None) != (layout == "loose"):
        raise _bad("`offset` is nil exactly where every chunk is an object [CHK-002]")
    return Manifest(
        layout=layout,
        digest=digest_name,
        block=block,
        tree=root,
        metadata=metadata,
        names=tuple(names),
        specs=specs,
        part=part,
        generator=generator,
        schema=_schema(schema, names, specs),
        format=(major, minor),
        unknown={key: value for key, value in document.items() if key not in _KEYS},  # [MAN-003]
    )


_KEYS = {
    "format",
    "layout",
    "requires",
    "generator",
    "digest",
    "block",
    "schema",
    "metadata",
    "tree",
    "codecs",
    "tensors",
    "parts",
}


def unpack(raw: bytes) -> dict[str, Any]:
    """One msgpack map. [MAN-001]"""
    try:
        document = msgpack.unpackb(raw, raw=False, strict_map_key=True, object_pairs_hook=_map, ext_hook=_no_extension)
    except CkptError:
        raise
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise _bad(f"not one msgpack value: {error} [MAN-001]") from error
    if type(document) is not dict:
        raise _bad(f"a {type(document).__name__}, not a map [MAN-001]")
    return document


def _map(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _bad("a map repeats a key [MAN-001]")
    if not all(type(key) is str for key in found):
        raise _bad("a map has a key that is no string [MAN-001]")
    if any(type(value) is msgpack.Timestamp for value in found.values()):  # which ext_hook does not see
        raise _bad("msgpack extension type -1 [MAN-001]")
    return found


def _no_extension(code: int, _: bytes) -> Any:
    raise _bad(f"msgpack extension type {code} [MAN-001]")


def _bad(message: str) -> CkptError:
    return fault("bad-manifest", message)


def _schema(document: Any, names: list[str], specs: tuple[ArraySpec, ...]) -> Schema | None:
    match document:
        case None:
            return None
        case {"id": str(identity), "version": str(version), "fingerprint": bytes(digest)} if (
            identity and version
        ):  # [SCH-001]
            if digest != fingerprint(names, specs):
                raise _bad("the schema's fingerprint is not that of the tensors [SCH-002]")
            return Schema(identity, version)
    raise _bad("`schema` is neither nil nor a map of id, version and fingerprint [SCH-001]")


def _specs(
    dtypes: list[str], shapes: list[Any], grids: list[Any], codecs: list[Any], chains: list[Any]
) -> tuple[ArraySpec, ...]:
    """One `ArraySpec` for each tensor; tensors that are alike share one."""
    known_codecs = [codec_of(chain) for chain in chains]
    seen: dict[Any, ArraySpec] = {}
    specs = []
    for dtype, shape, grid, codec in zip(dtypes, shapes, grids, codecs, strict=True):
        if type(shape) is not list or type(grid) is not list or type(codec) is not int:
            raise _bad("a shape, grid or codec is of another type [MAN-002]")
        try:
            key = (dtype, tuple(shape), tuple(grid), codec)
            spec = seen.get(key)
        except TypeError:
            raise _bad("a shape or grid is no array of integers [MAN-002]") from None
        if spec is None:
            if not all(type(n) is int and 0 <= n < 1 << 63 for n in (*shape, *grid)):
                raise _bad("a shape or grid is no array of integers [MAN-002]")
            if not 0 <= codec < len(known_codecs):
                raise _bad(f"there is no codec chain {codec!r} [MAN-002]")
            spec = seen[key] = ArraySpec(dtype_named(dtype), tuple(shape), tuple(grid), known_codecs[codec])
            _check_spec(spec)
        specs.append(spec)
    return tuple(specs)


def _check_spec(spec: ArraySpec) -> None:
    if len(spec.shape) > MAX_RANK:
        raise fault(
            "limit-exceeded",
            f"a tensor has {len(spec.shape)} axes",
            found=len(spec.shape),
            expected=f"at most {MAX_RANK}",
        )  # [LIM-002]
    if len(spec.grid) != len(spec.shape):
        raise _bad(f"grid {spec.grid} does not fit shape {spec.shape} [MAN-008]")
    sizes = (math.prod(spec.storage_shape), math.prod(spec.grid))
    if 0 not in spec.shape and max(sizes) * spec.dtype.stored.itemsize >= 1 << 62:
        raise _bad(f"shape {spec.shape} is too large [LIM-004]")
    if any(not 1 <= side <= max(1, n) for side, n in zip(spec.grid, spec.storage_shape, strict=True)):
        raise _bad(f"grid {spec.grid} does not fit shape {spec.shape} [ZARR-002]")
