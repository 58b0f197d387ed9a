"""A small writer of checkpoints, apart from the package `ckptfmt`: canonical bytes from a description, and the legal
variants that a reader has to accept as well. SPEC.md sections 5 to 10."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from .model import Encoder, Tensor, Value, earliest, name_of
from .packing import pack
from .pages import Cut, Paging, Stack, has_plain_keys, is_stacked, listed, placed, stacks_of, tensor_pages
from .patching import SAME, WHOLE, XOR, Made, Patching, as_bits, columns, stored
from .zip_writer import Piece, Row, Zip, digest, digests

Files = dict[str, list[Piece]]  # by path in the checkpoint; "" is the file itself
ROOT = "tensors/zarr.json"
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}


@dataclass
class Checkpoint:
    """A checkpoint to be built. What follows `generator` asks for a legal variant of the canonical form.

    `order`: positions of the chunks in the table, in the order in which they lie in the file. `numbering`: tensors in
    order of their index. `edit` changes the manifest before it is packed, `document` the text of a node document by
    its member name. `gap`: bytes of a frame between members; `hole`: zeros before the first chunk. `foreign`: further
    members. `align`: alignment of small and large chunks. `directory`: whether the ZIP's directory tells the truth.
    `dead`: members before the chunks of a part that are none of its own.
    `parts`: in layout `packed`, the part of each row of the table; `inline`: whether the tables stand in the manifest.
    `paged`: what pages hold, if the manifest has such. `patch`: how the tensors, which are the result's, are made.
    """

    tree: Any
    metadata: Any = None
    layout: str = "file"
    digest: str = "sha256"
    block: int = 4096
    schema: tuple[str, str] | None = None
    version: tuple[int, int] = (1, 0)
    generator: str = "conformance"
    order: list[int] | None = None
    numbering: list[Tensor] = field(default_factory=list)
    names: list[str] | None = None
    edit: Callable[[dict[str, Any]], Any] | None = None
    pack: Callable[[Any], bytes] = pack
    document: Callable[[str, bytes], bytes | None] | None = None
    gap: int = 0
    hole: int = 0
    foreign: list[tuple[str, bytes]] = field(default_factory=list)
    align: tuple[int, int] = (64, 4096)
    directory: bool = True
    dead: Callable[[int], list[tuple[str, bytes]]] = lambda _: []
    parts: Callable[[int], int] = lambda _: 0
    inline: bool = True
    paged: Paging | None = None
    patch: Patching | None = None

    def __post_init__(self) -> None:
        if self.paged is not None or self.patch is not None:
            self.version = (1, 1)
        if self.since > (1, 0):
            self.version = max(self.version, self.since)

    @property
    def since(self) -> tuple[int, int]:
        """The version that has its dtypes."""
        return max(map(earliest, (self.tree, self.metadata, self.numbering)))

    def built(self) -> Built:
        if self.patch is not None:
            return BuiltPatch(self)
        return Built(self) if self.paged is None else BuiltPaged(self)

    def build(self) -> Files:
        built = self.built()
        if self.layout == "file":
            return built.file()
        return built.loose() if self.layout == "loose" else built.packed()

    def features(self) -> list[str]:
        """What a reader needs for it."""
        codecs = {f"codec:{tensor.chain['name']}" for tensor in self.built().tensors if tensor.chain}
        further = [] if self.paged is None else ["pages"]
        further += [] if self.patch is None else ["patch"]
        return [f"layout:{self.layout}", f"digest:{self.digest}", *sorted(codecs), *further]

    def values(self) -> tuple[Value, Value]:
        """Tree and metadata as values of the protocol."""
        return Built(self).value, Encoder().encode(self.metadata)[1]


class FilledPack(NamedTuple):
    """A pack that is written: its part but for the table, the chunks in it, and where they lie."""

    part: dict[str, Any]
    rows: list[Row]
    offsets: list[int]


class Built:
    """A checkpoint on its way to bytes."""

    requires: ClassVar[list[str]] = []

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.of = checkpoint
        encoder = Encoder(list(checkpoint.numbering))
        self.node, self.value = encoder.encode(checkpoint.tree)
        self.metadata = Encoder().encode(checkpoint.metadata)[0]
        self.tensors = encoder.tensors
        self.names = checkpoint.names or [name_of(encoder.paths[i]) for i in range(len(self.tensors))]

    def rows(self) -> list[Row]:
        """Every chunk: tensors in order, chunks in C order. [CHK-002]"""
        return [
            Row(index, number, _join(self.root_of(index), name, _key(position)), tensor.chunk(position))
            for index, (name, tensor) in enumerate(zip(self.names, self.tensors, strict=True))
            for number, position in enumerate(tensor.chunk_keys() if self.root_of(index) else ())
        ]

    def root_of(self, index: int) -> str:
        """The hierarchy in which a tensor's node is; "" if it has none."""
        return "tensors"

    def further(self) -> dict[str, Any]:
        """Keys of the manifest after `parts` and `placement`."""
        return {}

    def documents(self) -> Iterator[tuple[str, bytes]]:
        """Node documents: root first, then in C-string order. [ZARR-001] [PACK-004]"""
        texts = self.texts()
        for member in sorted(texts, key=lambda member: (member != ROOT, member)):
            text: bytes | None = texts[member]
            if self.of.document:
                text = self.of.document(member, text or b"")
            if text is not None:
                yield member, text

    def texts(self) -> dict[str, bytes]:
        """The canonical text of each node by its member name."""
        return self.hierarchy(dict(zip(self.names, self.tensors, strict=True)))

    def hierarchy(self, tensors: dict[str, Tensor], top: str = "tensors") -> dict[str, bytes]:
        """Those of arrays, and of the groups above them."""
        nodes: dict[str, Tensor | None] = {"": None}
        for name in tensors:
            for end in range(len(name)):
                if name[end] == "/":
                    nodes[name[:end]] = None
        version = self.of.version if self.of.paged or self.of.patch else self.of.since
        return {
            _join(top, name, "zarr.json"): node_document(
                found, root=version if name == "" and top == "tensors" else None
            )
            for name, found in (nodes | tensors).items()
        }

    def chains(self) -> tuple[list[Any], list[int]]:
        """The codec chains in order of first use, and the number of each tensor's. [MAN-004]"""
        distinct: list[Any] = []
        column = []
        for tensor in self.tensors:
            chain = [BYTES, tensor.chain] if tensor.chain else [BYTES]
            distinct += [] if chain in distinct else [chain]
            column.append(distinct.index(chain))
        return distinct, column

    def manifest(self, parts: list[dict[str, Any]], placement: dict[str, bytes] | None = None) -> bytes:
        distinct, codecs = self.chains()
        shapes = [(list(tensor.shape), list(tensor.chunk_shape)) for tensor in self.tensors]
        tensors = {
            "name": list(self.names),
            "dtype": [tensor.dtype for tensor in self.tensors],
            "shape": [shape for shape, _ in shapes],
            "grid": [grid for _, grid in shapes],
            "codec": codecs,
        }
        placed = {} if placement is None else {"placement": placement}
        return self.document(self.node, distinct, tensors, {"parts": parts, **placed, **self.further()})

    def document(self, tree: Any, chains: list[Any], tensors: dict[str, Any], rest: dict[str, Any]) -> bytes:
        """The bytes of a manifest."""
        document = {
            "format": list(self.of.version),
            "layout": self.of.layout,
            "requires": self.requires,
            "generator": self.of.generator,
            "digest": self.of.digest,
            "block": self.of.block,
            "schema": self.schema(),
            "metadata": self.metadata,
            "tree": tree,
            "codecs": chains,
            "tensors": tensors,
            **rest,
        }
        if self.of.edit:
            self.of.edit(document)
        return self.of.pack(document)

    def schema(self) -> dict[str, Any] | None:
        """[SCH-001] [SCH-002]"""
        if self.of.schema is None:
            return None
        rows = sorted(([n, t.dtype, list(t.shape)] for n, t in zip(self.names, self.tensors, strict=True)), key=_first)
        fingerprint = hashlib.sha256(pack(rows)).digest()
        return {"id": self.of.schema[0], "version": self.of.schema[1], "fingerprint": fingerprint}

    def table(self, rows: list[Row], offsets: list[int] | None, *, named: bool = False) -> dict[str, Any]:
        return {
            "tensor": struct.pack(f"<{len(rows)}I", *(row.tensor for row in rows)) if named else None,
            "chunk": struct.pack(f"<{len(rows)}Q", *(row.chunk for row in rows)) if named else None,
            "offset": None if offsets is None else struct.pack(f"<{len(rows)}Q", *offsets),
            "length": struct.pack(f"<{len(rows)}Q", *(len(row.data) for row in rows)),
            "digest": b"".join(digests(self.of.digest, row.data, self.of.block) for row in rows),
        }

    # ---- layouts

    def file(self) -> Files:
        rows, zip_ = self.rows(), Zip(self.of)
        for member, text in self.documents():
            zip_.add(member, text)
        zip_.skip(self.of.hole)
        offsets = zip_.chunks(rows, self.of.order)
        return self.sealed(
            zip_, self.manifest([{"object": "", "size": None, "frame": None, "chunks": self.table(rows, offsets)}])
        )

    def sealed(self, zip_: Zip, raw: bytes) -> Files:
        """A file that ends with this manifest."""
        offset = zip_.add("manifest.msgpack", raw, framed=False)
        template = record("file", offset, raw, bytes(len(digest(self.of.digest, b""))), self.of.version)
        zip_.finish(len(template))
        line = record("file", offset, raw, zip_.frame_digest(self.of.digest), self.of.version)
        return {"": [*zip_.pieces, line]}

    def loose(self) -> Files:
        rows = self.rows()
        documents = dict(self.documents())
        frame = digest(self.of.digest, b"".join(documents[member] for member in sorted(documents)))
        files = documents | {row.member: row.data for row in rows} | dict(self.of.foreign) | self.listing_loose(rows)
        files["COMMIT"] = record("loose", 0, files["manifest.msgpack"], frame, self.of.version)
        return {member: [data] for member, data in files.items()}

    def listing_loose(self, rows: list[Row]) -> dict[str, bytes]:
        """The manifest, and the pages apart from it."""
        raw = self.manifest([{"object": None, "size": None, "frame": None, "chunks": self.table(rows, None)}])
        return {"manifest.msgpack": raw}

    def packed(self) -> Files:
        """Chunks dealt to packs by `parts`."""
        rows = self.rows()
        of_part = [self.of.parts(i) for i in range(len(rows))]
        files: Files = {}
        packs = []
        for number in range(max(of_part, default=0) + 1):
            own = [row for row, part in zip(rows, of_part, strict=True) if part == number]
            zip_ = Zip(self.of)
            if number == 0:
                for member, text in self.documents():
                    zip_.add(member, text)
            for member, data in self.of.dead(number):
                zip_.add(member, data, aligned=not member.endswith(".json"))
            offsets = zip_.chunks(own, None)
            zip_.finish(0)
            name = f"packs/{number:05}.zip"
            files[name] = zip_.pieces
            part = {"object": name, "size": zip_.position, "frame": zip_.frame_digest(self.of.digest), "chunks": None}
            packs.append(FilledPack(part, own, offsets))
        listing = self.listing_packed(packs, of_part)
        files |= {name: [data] for name, data in listing.items()}
        files["COMMIT"] = [
            record("packed", 0, listing["manifest.msgpack"], digest(self.of.digest, b""), self.of.version)
        ]
        return files

    def listing_packed(self, packs: list[FilledPack], of_part: list[int]) -> dict[str, bytes]:
        """The manifest, and what tells of chunks apart from it: tables with names, inline or as part manifests."""
        files: dict[str, bytes] = {}
        parts = []
        for number, (part, own, offsets) in enumerate(packs):
            table: dict[str, Any] = self.table(own, offsets, named=True)
            if not self.of.inline:
                path, raw = f"parts/{number:05}.msgpack", self.of.pack(table)
                files[path] = raw
                table = {"path": path, "length": len(raw), "sha256": hashlib.sha256(raw).digest()}
            parts.append({**part, "chunks": table})
        rows, count = self.rows(), len(of_part)
        placement = {
            "tensor": struct.pack(f"<{count}I", *(row.tensor for row in rows)),
            "chunk": struct.pack(f"<{count}Q", *(row.chunk for row in rows)),
            "count": struct.pack(f"<{count}Q", *[1] * count),
            "part": struct.pack(f"<{count}I", *of_part),
            "step": struct.pack(f"<{count}I", *[0] * count),
        }
        return files | {"manifest.msgpack": self.manifest(parts, placement)}


class BuiltPatch(Built):
    """A patch. [PATCH-010] [PATCH-015]"""

    requires: ClassVar[list[str]] = ["patch"]

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        assert checkpoint.patch is not None
        self.patching = checkpoint.patch
        base = Built(self.patching.base)  # of a patch: the tensors of its result
        self.sources = base.names
        known = dict(zip(base.names, base.tensors, strict=True))
        self.made = [self.patching.made.get(name, Made(WHOLE)) for name in self.names]
        self.tensors = [stored(tensor, made, known) for tensor, made in zip(self.tensors, self.made, strict=True)]

    def root_of(self, index: int) -> str:
        return {WHOLE: "tensors", SAME: "", XOR: "xor"}[self.made[index].form]

    def further(self) -> dict[str, Any]:
        return {"patch": columns(self.names, self.patching, self.sources)}

    def texts(self) -> dict[str, bytes]:
        arrays = list(zip(self.names, self.tensors, self.made, strict=True))
        found = self.hierarchy({name: tensor for name, tensor, made in arrays if made.form == WHOLE})
        different = {name: tensor for name, tensor, made in arrays if made.form == XOR}
        if different:
            texts = self.hierarchy(different, "xor")
            own = {_join("xor", name, "zarr.json"): tensor for name, tensor in different.items()}
            found |= {member: as_bits(text, own[member]) if member in own else text for member, text in texts.items()}
        return found


class BuiltPaged(Built):
    """One whose manifest is paged. [PAGE-011] [PAGE-012] [STACK-004]"""

    requires: ClassVar[list[str]] = ["pages"]

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        if not checkpoint.numbering:  # [PAGE-005]
            order = sorted(range(len(self.names)), key=self.names.__getitem__)
            encoder = Encoder([self.tensors[number] for number in order])
            self.node, self.value = encoder.encode(checkpoint.tree)
            self.names, self.tensors = [self.names[number] for number in order], encoder.tensors
        self.has_stacks = checkpoint.layout == "file"
        self.stacks = stacks_of(self.tensors) if self.has_stacks else []

    def texts(self) -> dict[str, bytes]:
        arrays = zip(self.names, self.tensors, strict=True)
        found = self.hierarchy(
            {name: tensor for name, tensor in arrays if not (self.has_stacks and is_stacked(tensor))}
        )
        if self.stacks:
            found["stacks/zarr.json"] = node_document(None)
        return found | {f"stacks/{stack.name}/zarr.json": stack_document(stack, self.names) for stack in self.stacks}

    def file(self) -> Files:
        rows, zip_ = self.rows(), Zip(self.of)
        for member, text in self.documents():
            zip_.add(member, text)
        offsets = self.chunks(zip_, rows)
        pages, rest = self.pages(rows, offsets)
        rest["pages"]["offset"] = zip_.add("pages.bin", b"".join(pages), framed=False)
        return self.sealed(zip_, self.root_of_pages(rest))

    def root_of_pages(self, rest: dict[str, Any]) -> bytes:
        """The bytes of the manifest."""
        chains, _ = self.chains()
        return self.document(self.root, chains, rest.pop("tensors"), rest)

    def listing_loose(self, rows: list[Row]) -> dict[str, bytes]:
        pages, rest = self.pages(rows, None)
        return {"pages.bin": b"".join(pages), "manifest.msgpack": self.root_of_pages(rest)}

    def listing_packed(self, packs: list[FilledPack], of_part: list[int]) -> dict[str, bytes]:
        """[PAGE-017]"""
        rows = self.rows()
        lows = {row.member: low for _, own, offsets in packs for row, low in zip(own, offsets, strict=True)}
        pages, rest = self.pages(rows, [lows[row.member] for row in rows], of_part)
        rest["parts"] = [part for part, _, _ in packs]
        return {"pages.bin": b"".join(pages), "manifest.msgpack": self.root_of_pages(rest)}

    def chunks(self, zip_: Zip, rows: list[Row]) -> list[int]:
        """Add the chunks of stacks, then all others; where those of the tensors lie."""
        of_tensor = {row.tensor: row for row in rows}
        offsets: dict[tuple[int, int], int] = {}
        for stack in self.stacks:
            for member, numbers in stack.chunks():
                data = b"".join(of_tensor[number].data for number in numbers)
                size = len(data) // len(numbers)
                zeros = bytes((stack.rows - len(numbers)) * size)
                payload = zip_.add(member, data + zeros, aligned=True, framed=False, tail=len(zeros))
                offsets |= {(number, 0): payload + at * size for at, number in enumerate(numbers)}
        others = [row for row in rows if (row.tensor, 0) not in offsets]
        found = zip_.chunks(others, None)
        offsets |= {(row.tensor, row.chunk): offset for row, offset in zip(others, found, strict=True)}
        return [offsets[row.tensor, row.chunk] for row in rows]

    def pages(
        self, rows: list[Row], offsets: list[int] | None, of_part: list[int] | None = None
    ) -> tuple[list[bytes], dict[str, Any]]:
        """All pages, and the keys of the manifest that are about them."""
        paging = self.of.paged
        assert paging is not None
        tables, numbers = [], []
        for start in range(0, len(self.names), paging.tensors):
            own = [at for at, row in enumerate(rows) if start <= row.tensor < start + paging.tensors]
            tables.append(self.table([rows[at] for at in own], offsets and [offsets[at] for at in own]))
            numbers.append(of_part and struct.pack(f"<{len(own)}I", *(of_part[at] for at in own)))
        of_tensors = tensor_pages(self.names, self.tensors, self.chains()[1], tables, paging.tensors)
        for page, column in zip(of_tensors, numbers, strict=True):
            page |= {} if column is None else {"part": column}
        cut = Cut(self.node, len(of_tensors), paging.size)
        self.root = cut.root
        pages = [*map(self.of.pack, of_tensors), *cut.pages]
        rest = {"parts": [], "pages": placed(0, pages), "plain_keys": has_plain_keys(self.node)}
        return pages, {"tensors": listed(of_tensors), **rest}


def node_document(tensor: Tensor | None, *, root: tuple[int, int] | None = None) -> bytes:
    """The canonical text; that of the `root` says the version. [ZARR-012] to [ZARR-014]"""
    own: dict[str, Any] = {"format": list(root)} if root else {}
    if tensor is None:
        return _json({"zarr_format": 3, "node_type": "group", "attributes": {"ckptfmt": own} if own else {}})
    if tensor.dtype != tensor.row.storage:
        own |= {"dtype": tensor.dtype, "shape": list(tensor.shape)}
    return _array(tensor, tensor.storage_shape, tensor.chunk_shape, own)


def stack_document(stack: Stack, names: list[str]) -> bytes:
    """The canonical text of a stack's node. [STACK-002] [STACK-003]"""
    like = stack.like
    own = {"dtype": like.dtype, "shape": list(like.shape), "names": [names[number] for number in stack.numbers]}
    return _array(like, (len(stack.numbers), *like.storage_shape), (stack.rows, *like.storage_shape), own)


def _array(like: Tensor, shape: tuple[int, ...], chunk: tuple[int, ...], own: dict[str, Any]) -> bytes:
    fill: Any = 0
    if like.row.storage.startswith("complex"):
        fill = [0.0, 0.0]
    elif like.row.storage.startswith("float"):
        fill = 0.0
    elif like.row.storage == "bool":
        fill = False
    return _json(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(shape),
            "data_type": like.row.storage,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": fill,
            "codecs": [BYTES, like.chain] if like.chain else [BYTES],
            "attributes": {"ckptfmt": own} if own else {},
        }
    )


def record(layout: str, offset: int, manifest: bytes, frame: bytes, version: tuple[int, int] = (1, 0)) -> bytes:
    """The commit record. [COM-001]"""
    body = (
        f"ckptfmt/{version[0]}.{version[1]} {layout} manifest={offset}+{len(manifest)} "
        f"sha256={hashlib.sha256(manifest).hexdigest()} frame={frame.hex()} "
    )
    return sealed(body.encode())


def sealed(body: bytes) -> bytes:
    """A record's text up to its crc32, with the crc32."""
    return body + b"crc32=%08x\n" % zlib.crc32(body)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _key(position: tuple[int, ...]) -> str:
    return "/".join(["c", *map(str, position)])


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _first(row: list[Any]) -> bytes:
    return str(row[0]).encode()
