"""The manifest (SPEC.md section 7): the msgpack document, parsed once and checked whole."""

from __future__ import annotations

import hashlib
import marshal
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import msgpack

from .._version import FORMAT as FORMAT
from ..errors import CkptError, fault
from . import tree
from .arrays import ArraySpec
from .chunk_table import ChunkTable, columns, decode_table, encode_table, first_chunks
from .codecs import codec_of
from .digests import Digest, digest_named
from .dtypes import dtype_named
from .limits import DEFAULT, Budget, costs_at_most, exceeded, uncollected
from .names import check_names, check_paths
from .node import Node
from .placement import Placement, decode_placement

KNOWN_FEATURES: frozenset[str] = frozenset()
LAYOUTS = ("file", "packed", "loose")
BLOCK = 4 << 20  # [BLK-003]
MAX_RANK = 64  # [LIM-002]
COLUMNS = ("name", "dtype", "shape", "grid", "codec")
_TYPES: Mapping[str, type] = {
    "generator": str,
    "digest": str,
    "block": int,
    "schema": object,
    "metadata": object,
    "tree": object,
    "codecs": list,
    "tensors": dict,
    "parts": list,
}
KEYS = {"format", "layout", "requires", "placement", *_TYPES}


class Schema(NamedTuple):
    """The user's name and version for the parameter layout (SPEC.md section 14)."""

    id: str
    version: str


class PartReference(NamedTuple):
    """Where the chunk table of a part is, if it is not in the manifest. [CHK-006]"""

    path: str
    length: int
    sha256: bytes

    def encode(self) -> dict[str, Any]:
        return {"path": self.path, "length": self.length, "sha256": self.sha256}


class Part(NamedTuple):
    """One part: its `object` (None: each chunk is one), and the chunk table. `size` and `frame` are those of a pack."""

    object: str | None
    chunks: ChunkTable | PartReference
    size: int | None = None
    frame: bytes | None = None


class _ManifestFields(NamedTuple):
    layout: str
    digest: str
    block: int
    tree: Node
    metadata: Node
    names: tuple[str, ...]
    specs: tuple[ArraySpec, ...]
    parts: tuple[Part, ...]
    generator: str
    schema: Schema | None = None
    requires: tuple[str, ...] = ()
    format: tuple[int, int] = FORMAT
    placement: Placement | None = None
    unknown: Mapping[str, Any] = MappingProxyType({})


class Manifest(_ManifestFields):
    """The parsed document. `names` and `specs` have one entry for each tensor; `unknown` keeps keys of later minor
    versions."""

    @cached_property
    def first_chunks(self) -> tuple[int, ...]:
        """The number of each tensor's first chunk, and of all chunks at the end (see `chunk_table`)."""
        return first_chunks(self.specs)

    @property
    def table(self) -> ChunkTable:
        """The only table, of a checkpoint in layout `file` or `loose`."""
        table = self.parts[0].chunks
        assert isinstance(table, ChunkTable)
        return table

    @property
    def tensors(self) -> Iterator[tuple[str, ArraySpec]]:
        """Names and specs."""
        return zip(self.names, self.specs, strict=True)

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
            "parts": [self._encode_part(part) for part in self.parts],
            **({} if self.placement is None else {"placement": self.placement.encode(self.first_chunks)}),
            **self.unknown,
        }
        return bytes(msgpack.packb(document))

    def _encode_part(self, part: Part) -> dict[str, Any]:
        chunks = part.chunks
        if isinstance(chunks, PartReference):
            encoded = chunks.encode()
        else:
            listed = () if chunks.numbers is None else columns(chunks.numbers, self.first_chunks)
            encoded = encode_table(chunks, *listed)
        return {"object": part.object, "size": part.size, "frame": part.frame, "chunks": encoded}

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


@uncollected()
def decode(raw: bytes, memory: int | None = None) -> Manifest:
    """Parse and check a manifest, whose values may take `memory` bytes; raises `bad-manifest`, `bad-extent`,
    `limit-exceeded` or one of the `unknown-…` codes."""
    try:
        document = unpack(raw, memory)
    except CkptError:
        _refuse_unknown(_required(raw))
        raise
    version, layout = _head(document)
    _check_form(document)
    names, dtypes, shapes, grids, codecs = (document["tensors"][column] for column in COLUMNS)
    digest, block, root, metadata = (document[key] for key in ("digest", "block", "tree", "metadata"))
    known_digest = digest_named(digest)
    check_names(names)
    tree.check(root, dtypes)
    tree.check(metadata, ())
    specs = _specs(dtypes, shapes, grids, codecs, document["codecs"])
    parts = tuple(_part(part, layout, specs, known_digest, block) for part in document["parts"])
    if not parts or (layout != "packed" and len(parts) > 1):
        raise _bad(f"layout {layout!r} has {len(parts)} parts [CHK-002] [LAY-004]")
    if ("placement" in document) != (layout == "packed"):
        raise _bad("`placement` stands in layout 'packed', and only there [MAN-002]")
    manifest = Manifest(
        layout=layout,
        digest=digest,
        block=block,
        tree=root,
        metadata=metadata,
        names=tuple(names),
        specs=specs,
        parts=parts,
        generator=document["generator"],
        schema=_schema(document["schema"], names, specs),
        format=version,
        placement=(
            decode_placement(document["placement"], first_chunks(specs), len(parts)) if layout == "packed" else None
        ),
        unknown={key: value for key, value in document.items() if key not in KEYS},  # [MAN-003]
    )
    if layout == "packed":
        _check_objects(manifest)
    return manifest


def _head(document: Any) -> tuple[tuple[int, int], str]:
    """The version and the layout, which say how the rest is read."""
    match document:
        case {"format": [int(major), int(minor)], "layout": str(layout), "requires": list(requires)} if (
            all(type(r) is str for r in requires) and type(major) is type(minor) is int
        ):
            pass
        case _:
            raise _bad("`format`, `layout` or `requires` is missing or of another type [MAN-002]")
    _refuse_unknown(requires)
    if layout not in LAYOUTS:
        raise _bad(f"there is no layout {layout!r} [LAY-006]")
    return (major, minor), layout


def _check_form(document: Mapping[str, Any]) -> None:
    """Refuse a document without its keys, or with values of other types; what is in them is not looked at."""
    is_typed = all(key in document and isinstance(document[key], kind) for key, kind in _TYPES.items())
    tensors = document["tensors"] if is_typed else {}
    if not all(isinstance(tensors.get(column), list) for column in COLUMNS):
        raise _bad("a key is missing or has a value of another type [MAN-002]")
    if len({len(tensors[column]) for column in COLUMNS}) != 1:
        raise _bad("the columns of `tensors` differ in length [MAN-007]")
    block = document["block"]
    if block % 4096 or not 4096 <= block <= 1 << 30:
        raise _bad(f"block size {block} is not allowed [BLK-003]")
    if not all(type(text) is str for text in (*tensors["name"], *tensors["dtype"])):
        raise _bad("a name or dtype is no string [MAN-002]")


def _refuse_unknown(requires: list[str]) -> None:
    """[MAN-006]"""
    unknown = [feature for feature in requires if feature not in KNOWN_FEATURES]
    if unknown:
        named = ", ".join(map(repr, unknown))
        raise fault("unknown-feature", f"the checkpoint requires {named} [MAN-006]", found=unknown[0])


def _required(raw: bytes) -> list[str]:
    """The entries of `requires` in a manifest whose other keys may break rules that a later version has changed; none
    if there is no such list. [MAN-006]"""
    unpacker = msgpack.Unpacker(max_buffer_size=len(raw), max_str_len=len(raw))
    unpacker.feed(raw)
    try:
        for _ in range(unpacker.read_map_header()):
            if unpacker.unpack() == "requires":
                return [entry for entry in unpacker.unpack() if type(entry) is str]
            unpacker.skip()
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        pass
    return []


def decode_part(
    raw: bytes, specs: tuple[ArraySpec, ...], digest: Digest, block: int, memory: int | None = None
) -> ChunkTable:
    """Parse and check a part manifest, whose sha256 is right. [CHK-006]"""
    return decode_table(unpack(raw, memory), specs, digest, block)


def _part(document: Any, layout: str, specs: tuple[ArraySpec, ...], digest: Digest, block: int) -> Part:
    match document:
        case {"object": (str() | None) as name, "size": None, "frame": None, "chunks": dict(chunks)} if (
            layout != "packed" and "path" not in chunks
        ):
            if name != ("" if layout == "file" else None):
                raise _bad(f"layout {layout!r} has a part in the object {name!r} [CHK-002]")
            table = decode_table(chunks, specs, digest, block)
            if table.numbers is not None or (table.offset is None) != (layout == "loose"):
                raise _bad("the chunk table is not of the kind that this layout has [CHK-002]")
            return Part(name, table)
        case {"object": str(name), "size": int(size), "frame": bytes(frame), "chunks": dict(chunks)} if (
            layout == "packed" and type(size) is int and 0 <= size < 1 << 63 and len(frame) == digest.size
        ):
            match chunks:
                case {"path": str(path), "length": int(length), "sha256": bytes(sha256)} if (
                    type(length) is int and 0 <= length < 1 << 63 and len(sha256) == 32
                ):
                    return Part(name, PartReference(path, length, sha256), size, frame)
                case {"path": _}:
                    raise _bad(
                        "the reference to a part manifest lacks a key, or has one of another form [MAN-002] [MAN-011]"
                    )
            return Part(name, decode_table(chunks, specs, digest, block), size, frame)
    raise _bad("a part lacks a key, or has one of another type or size [MAN-002] [MAN-011]")


def check_part(table: ChunkTable, part: Part, number: int, manifest: Manifest) -> None:
    """Refuse the table of a pack that does not agree with its part and with the placement. [CHK-005] [CHK-008]"""
    if table.numbers is None or table.offset is None or part.size is None:
        raise fault("bad-manifest", "the table of a pack lacks a column [CHK-011]")
    placement = manifest.placement
    assert placement is not None
    if (placement.parts_of(table.numbers) != number).any():
        raise fault("bad-manifest", f"part {number} lists a chunk that `placement` puts elsewhere [CHK-008]")
    if placement.chunks_in(number) != len(table.numbers):  # [CHK-004]
        raise fault("bad-manifest", f"part {number} does not list every chunk that `placement` puts there [CHK-008]")
    table.check_extents(part.size)


def _check_objects(manifest: Manifest) -> None:
    """Objects of packs and part manifests have legal paths of their own; tables that stand inline fit. [CHK-007]"""
    references = [part.chunks.path for part in manifest.parts if isinstance(part.chunks, PartReference)]
    objects = [part.object or "" for part in manifest.parts]
    check_paths([*objects, *references])
    for number, part in enumerate(manifest.parts):
        if isinstance(part.chunks, ChunkTable):
            check_part(part.chunks, part, number, manifest)


def unpack(raw: bytes, memory: int | None = None) -> dict[str, Any]:
    """One msgpack map [MAN-001], whose values take at most `memory` bytes [LIM-007]."""
    memory = DEFAULT.values(len(raw)) if memory is None else memory
    hooks: dict[str, Any] = {} if costs_at_most(raw, memory) else _counting(memory)
    try:
        document = msgpack.unpackb(
            raw, **{"raw": False, "strict_map_key": True, "object_pairs_hook": _map, "ext_hook": _no_extension, **hooks}
        )
    except CkptError:
        raise
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        if hooks and "exceeds max_" in str(error):
            raise exceeded(memory) from error
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


def _counting(memory: int) -> dict[str, Any]:
    """Options of msgpack that stop at so much memory."""
    budget = Budget(memory)

    def counted(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        found = _map(pairs)
        budget.take([item for pair in pairs for item in pair], found)
        return found

    # what the items of one container take before they can be counted
    most = {"max_array_len": memory // 72, "max_map_len": memory // 250}
    return {"list_hook": budget.take, "object_pairs_hook": counted, **most}


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
    seen: dict[bytes, ArraySpec] = {}
    specs = []
    for dtype, shape, grid, codec in zip(dtypes, shapes, grids, codecs, strict=True):
        if type(shape) is not list or type(grid) is not list or type(codec) is not int:
            raise _bad("a shape, grid or codec is of another type [MAN-002]")
        try:
            key = marshal.dumps((dtype, shape, grid, codec), 2)  # bytes, whose hashes nobody can choose [LIM-007]
        except ValueError:
            raise _bad("a shape or grid is no array of integers [MAN-002]") from None
        spec = seen.get(key)
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
