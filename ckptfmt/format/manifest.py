"""The manifest (SPEC.md section 7): the msgpack document, parsed once and checked whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np

from .._version import FORMAT as FORMAT
from ..errors import CkptError, fault
from ..tuples import NamedTuple
from . import tree
from .arrays import ArraySpec, kinds_of
from .chunk_table import ChunkTable, columns, decode_table, encode_table, first_chunks
from .digests import Digest, digest_named, sha256
from .documents import bad, unpack
from .dtypes import Array
from .limits import DEFAULT, uncollected
from .names import check_names, check_paths
from .node import PagedNode
from .spec_columns import STATISTICS, chains_of, decode_codecs, decode_specs, encode_specs

if TYPE_CHECKING:
    from .node import Node
    from .pages import ReadBytes
    from .patch import Patch
    from .placement import Placement
    from .tensor_pages import TensorPages

PAGES, PATCH = "pages", "patch"  # the features of sections 7.1 and 7.4
PAGED_FORMAT = PATCH_FORMAT = (1, 1)  # (major, minor) of what has them
KNOWN_FEATURES = frozenset((PAGES, PATCH))
LAYOUTS = ("file", "packed", "loose")
BLOCK = 4 << 20  # [BLK-003]
OF_RUN = "ckptfmt.run"  # key of metadata under which a manager keeps the step and its metrics
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
KEYS = {"format", "layout", "requires", "placement", "pages", "plain_keys", "patch", STATISTICS, *_TYPES}


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
    root: Node | PagedNode
    metadata: Node
    names: Sequence[str]
    specs: Sequence[ArraySpec]
    parts: Sequence[Part]
    generator: str
    schema: Schema | None = None
    requires: tuple[str, ...] = ()
    format: tuple[int, int] = FORMAT
    placement: Placement | None = None
    unknown: Mapping[str, Any] = MappingProxyType({})
    statistics: Any = None
    patch: Patch | None = None


class Manifest(_ManifestFields):
    """The parsed document. `names` and `specs` have one entry for each tensor; `unknown` keeps keys of later minor
    versions, and `statistics` the value of that key, of any form. Of one that is paged, names, specs, parts and tree
    are read when they are asked for."""

    @property
    def tree(self) -> Node:
        """The tree."""
        return self.root.whole if isinstance(self.root, PagedNode) else self.root

    @cached_property
    def pages(self) -> TensorPages | None:
        """The pages of its tensors, where it has such."""
        pages: TensorPages | None = getattr(self.parts, "pages", None)
        return pages

    @cached_property
    def first_chunks(self) -> tuple[int, ...]:
        """The number of each tensor's first chunk, and of all chunks at the end (see `chunk_table`)."""
        if self.pages is not None and self.specs is self.pages.specs:  # not what is left of those that are damaged
            return self.pages.first_chunks
        return first_chunks(self.specs)

    @property
    def table(self) -> ChunkTable:
        """The only table, of a checkpoint in layout `file` or `loose`."""
        table = self.parts[0].chunks
        assert isinstance(table, ChunkTable)
        return table

    def parts_of(self, numbers: Array) -> Array | None:
        """The parts that hold the chunks with these numbers; None where there is but one part."""
        if self.pages is not None:
            of_all = self.pages.part_of_chunk
            return None if of_all is None else of_all[numbers].astype(np.int64)
        return None if self.placement is None else self.placement.parts_of(numbers)

    @property
    def objects(self) -> list[str]:
        """The packs, and what tells of the chunks in them beside the manifest, of a checkpoint in layout `packed`."""
        if self.pages is not None:
            return [*(one.object or "" for one in self.pages.objects), self.pages.object]
        tables = [part.chunks for part in self.parts]
        references = [table.path for table in tables if isinstance(table, PartReference)]
        return [*(part.object or "" for part in self.parts), *references]

    def check_extents(self, end: int) -> None:
        """Refuse chunks, or pages, that do not lie before byte `end`, where the manifest begins. [CHK-005]
        [PAGE-002]"""
        if self.pages is None:
            self.table.check_extents(end)
        elif sum(self.pages.extent) > end:
            raise fault("bad-extent", "a page reaches beyond the first byte of the manifest [PAGE-002]", offset=end)

    @property
    def tensors(self) -> Iterator[tuple[str, ArraySpec]]:
        """Names and specs."""
        return zip(self.names, self.specs, strict=True)

    def encode(self) -> bytes:
        """The canonical bytes. [MAN-004] [MAN-009]"""
        kinds, column = kinds_of(self.specs)
        chains, codecs = chains_of(kinds)
        tensors = {"name": list(self.names), **encode_specs(self.specs, list(map(codecs.__getitem__, column)))}
        return self.encode_with(self.root, chains, tensors, [self._encode_part(part) for part in self.parts])

    def encode_with(
        self, root: Node, chains: list[Any], tensors: Mapping[str, Any], parts: list[Any], **more: Any
    ) -> bytes:
        """The canonical bytes with these values, and `more` keys before those that are unknown."""
        document = {
            "format": list(self.format),
            "layout": self.layout,
            "requires": list(self.requires),
            "generator": self.generator,
            "digest": self.digest,
            "block": self.block,
            "schema": self._encode_schema(),
            "metadata": self.metadata,
            "tree": root,
            "codecs": chains,
            "tensors": tensors,
            "parts": parts,
            **({} if self.placement is None else {"placement": self.placement.encode(self.first_chunks)}),
            **({} if self.patch is None else {"patch": self.patch.encode(self.specs)}),
            **more,
            **({} if self.statistics is None else {STATISTICS: self.statistics}),
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
    return sha256(msgpack.packb(ordered))


@uncollected()
def decode(
    raw: bytes, memory: int | None = None, read: ReadBytes | None = None, largest: int = DEFAULT.manifest
) -> Manifest:
    """Parse and check a manifest, whose values may take `memory` bytes; `read(offset, length)` gives the bytes of its
    pages, of which none may have more than `largest`. Raises `bad-manifest`, `bad-extent`, `limit-exceeded` or one of
    the `unknown-…` codes."""
    try:
        document = unpack(raw, memory)
    except CkptError:
        _refuse_unknown(_required(raw))
        raise
    version, layout = _head(document)
    check_form(document)
    if PAGES in document["requires"]:
        from .paged_manifest import decode_paged  # here, as it is seldom met

        return decode_paged(document, version, layout, memory, read, largest)
    digest, block = document["digest"], document["block"]
    known_digest = digest_named(digest)
    columns = document["tensors"]
    names = _names(columns)
    specs, patch = decode_specs(columns, decode_codecs(document["codecs"])), None
    if PATCH in document["requires"]:
        from .patch import decode_patch  # here, as it is seldom met

        specs, patch = decode_patch(document, version, layout, specs)
    if len(names) != len(specs):
        raise bad("the columns of `tensors` differ in length [MAN-007]")
    tree.check(document["tree"], columns["dtype"])
    tree.check(document["metadata"], ())
    parts = tuple(_part(part, layout, specs, known_digest, block) for part in document["parts"])
    if not parts or (layout != "packed" and len(parts) > 1):
        raise bad(f"layout {layout!r} has {len(parts)} parts [CHK-002] [LAY-004]")
    placement = _placement(document, layout, specs, len(parts))
    schema, expected = decode_schema(document["schema"])
    if schema is not None and fingerprint(names, specs) != expected:
        raise bad("the schema's fingerprint is not that of the tensors [SCH-002]")
    manifest = decoded_with(document, version, document["tree"], names, specs, parts, schema, placement, patch)
    if layout == "packed":
        _check_objects(manifest)
    return manifest


def decoded_with(
    document: Mapping[str, Any],
    version: tuple[int, int],
    root: Node | PagedNode,
    names: Sequence[str],
    specs: Sequence[ArraySpec],
    parts: Sequence[Part],
    schema: Schema | None,
    placement: Placement | None = None,
    patch: Patch | None = None,
) -> Manifest:
    """The manifest of a document, with what was made of these keys."""
    return Manifest(
        layout=document["layout"],
        digest=document["digest"],
        block=document["block"],
        root=root,
        metadata=document["metadata"],
        names=names,
        specs=specs,
        parts=parts,
        generator=document["generator"],
        schema=schema,
        requires=tuple(document["requires"]),
        format=version,
        placement=placement,
        unknown={key: value for key, value in document.items() if key not in KEYS},  # [MAN-003]
        statistics=document.get(STATISTICS),
        patch=patch,
    )


def _placement(document: Mapping[str, Any], layout: str, specs: Sequence[ArraySpec], parts: int) -> Placement | None:
    if ("placement" in document) != (layout == "packed"):
        raise bad("`placement` stands in layout 'packed', and only there [MAN-002]")
    if layout != "packed":
        return None
    from .placement import decode_placement  # here, as other layouts need none of it

    return decode_placement(document["placement"], first_chunks(specs), parts)


def _head(document: Any) -> tuple[tuple[int, int], str]:
    """The version and the layout, which say how the rest is read."""
    match document:
        case {"format": [int(major), int(minor)], "layout": str(layout), "requires": list(requires)} if (
            all(type(r) is str for r in requires) and type(major) is type(minor) is int
        ):
            pass
        case _:
            raise bad("`format`, `layout` or `requires` is missing or of another type [MAN-002]")
    _refuse_unknown(requires)
    if layout not in LAYOUTS:
        raise bad(f"there is no layout {layout!r} [LAY-006]")
    return (major, minor), layout


def check_form(document: Mapping[str, Any]) -> None:
    """Refuse a document without its keys, or with values of other types; what is in them is not looked at."""
    if not all(key in document and isinstance(document[key], kind) for key, kind in _TYPES.items()):
        raise bad("a key is missing or has a value of another type [MAN-002]")
    block = document["block"]
    if block % 4096 or not 4096 <= block <= 1 << 30:
        raise bad(f"block size {block} is not allowed [BLK-003]")


def _names(columns: Mapping[str, Any]) -> tuple[str, ...]:
    names = columns.get("name")
    if not isinstance(names, list) or not all(type(name) is str for name in names):
        raise bad("a name is no string, or there is no column of them [MAN-002]")
    check_names(names)
    return tuple(names)


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
    raw: bytes, specs: Sequence[ArraySpec], digest: Digest, block: int, memory: int | None = None
) -> ChunkTable:
    """Parse and check a part manifest, whose sha256 is right. [CHK-006]"""
    return decode_table(unpack(raw, memory), specs, digest, block)


def _part(document: Any, layout: str, specs: tuple[ArraySpec, ...], digest: Digest, block: int) -> Part:
    match document:
        case {"object": (str() | None) as name, "size": None, "frame": None, "chunks": dict(chunks)} if (
            layout != "packed" and "path" not in chunks
        ):
            if name != ("" if layout == "file" else None):
                raise bad(f"layout {layout!r} has a part in the object {name!r} [CHK-002]")
            table = decode_table(chunks, specs, digest, block)
            if table.numbers is not None or (table.offset is None) != (layout == "loose"):
                raise bad("the chunk table is not of the kind that this layout has [CHK-002]")
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
                    raise bad(
                        "the reference to a part manifest lacks a key, or has one of another form [MAN-002] [MAN-011]"
                    )
            return Part(name, decode_table(chunks, specs, digest, block), size, frame)
    raise bad("a part lacks a key, or has one of another type or size [MAN-002] [MAN-011]")


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
    check_paths(manifest.objects)
    for number, part in enumerate(manifest.parts):
        if isinstance(part.chunks, ChunkTable):
            check_part(part.chunks, part, number, manifest)


def decode_schema(document: Any) -> tuple[Schema | None, bytes]:
    """The schema, and the fingerprint that it says."""
    match document:
        case None:
            return None, b""
        case {"id": str(identity), "version": str(version), "fingerprint": bytes(digest)} if (
            identity and version
        ):  # [SCH-001]
            return Schema(identity, version), digest
    raise bad("`schema` is neither nil nor a map of id, version and fingerprint [SCH-001]")
