"""What a writer wrote, judged against SPEC.md byte by byte: every statement that binds writers, and for writers that
call themselves canonical the one canonical form.

Apart from the package `ckptfmt`, and stricter than any reader: a reader has to accept legal variants, a judge says
which statement was broken.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from zipfile import BadZipFile

from .build import Built, Checkpoint
from .cases import flatten, read_flat
from .judge_chunks import Unfit, assembled, decoded
from .model import DTYPES, Form, Tensor, Value, bytes_form, earliest, escape, integer, key_value, leaf, meaning
from .packing import Bad, Single, pack, unpack
from .zip_writer import Row, digest, digests

_RECORD = re.compile(
    rb"ckptfmt/(\d+)\.(\d+) (file|loose|packed) manifest=(\d+)\+(\d+) sha256=([0-9a-f]{64}) "
    rb"frame=((?:[0-9a-f]{32}){1,2}) crc32=([0-9a-f]{8})\n"
)
_TOP = (
    *("format", "layout", "requires", "generator", "digest", "block", "schema", "metadata", "tree"),
    *("codecs", "tensors", "parts"),
)
_LARGE = 65536


class Judgement(NamedTuple):
    """What is wrong, one sentence each; tree and metadata as values; the manifest. `complete`: whether every chunk
    could be decoded here."""

    violations: list[str]
    tree: Value
    metadata: Value
    complete: bool
    manifest: dict[str, Any]


def snapshot(path: Path) -> Any:
    """Everything at a path, to be compared."""
    if path.is_symlink():
        return path.readlink()
    return read_flat(path) if path.exists() else None


def judge(path: Path, *, canonical: bool) -> Judgement:
    """Judge the checkpoint at `path`."""
    judged = _judged(read_flat(path), canonical)
    try:
        judged.all()
    except (Unfit, Bad) as error:
        judged.violations.append(str(error))
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, struct.error, BadZipFile) as error:
        judged.violations.append(f"what was written has another form than SPEC.md says: {error!r:.200}")
    return Judgement(judged.violations, judged.tree, judged.metadata, judged.complete, judged.document)


def nodes(path: Path) -> dict[tuple[str, str], Value]:
    """The storage array of every node of a checkpoint that was written rightly, by `tensors` or `stacks`, and its name
    there."""
    judged = _judged(read_flat(path), False)
    judged.all()
    return {("tensors", name): value for name, value in judged.arrays().items()} | judged.stacked()


def _judged(files: dict[str, bytes], canonical: bool) -> Judged:
    from .judge_packed import Packed  # which build on what stands here
    from .judge_paged import Paged, PagedPacked

    line = files.get("", files.get("COMMIT", b"")).rpartition(b"ckptfmt/")[2]
    is_paged, is_packed = _requires(files, line) == ["pages"], any(name.startswith("packs/") for name in files)
    if is_packed:
        return (PagedPacked if is_paged else Packed)(files, canonical)
    return (Paged if is_paged else Judged)(files, canonical)


def _requires(files: dict[str, bytes], line: bytes) -> Any:
    """What a manifest requires, if it can be read."""
    extent = re.search(rb" manifest=(\d+)\+(\d+) ", line)
    if extent is None:
        return None
    start, length = map(int, extent.groups())
    try:
        return unpack(files.get("", files.get("manifest.msgpack", b""))[start : start + length])["requires"]
    except (ValueError, KeyError, TypeError):  # which the judge says
        return None


@dataclass
class Judged:
    """One checkpoint under judgement, in layout `file` or `loose`."""

    files: dict[str, bytes]
    canonical: bool
    violations: list[str] = field(default_factory=list)
    tree: Value = field(default_factory=dict)
    metadata: Value = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    undecoded: set[str] = field(default_factory=set)
    rows: list[Row] = field(default_factory=list)
    extents: list[tuple[int, int]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.undecoded

    def hold(self, condition: object, message: str) -> None:
        if not condition:
            self.violations.append(message)

    def need(self, condition: object, message: str) -> None:
        if not condition:
            raise Unfit(message)

    def all(self) -> None:
        self.commit_record()
        self.manifest()
        self.specs()
        wanted = max(self.least, *map(earliest, (self.tensors, self.document["tree"], self.document["metadata"])))
        self.hold(self.version == wanted, "the version is not the earliest that has what is written [FMT-001]")
        self.chunks()
        self.values()
        self.check_names()
        self.documents()
        if self.layout == "file":
            self.zip()
        self.frame()
        if self.canonical and self.layout != "packed" and not self.violations:
            self.canonical_form()

    def arrays(self) -> dict[str, Value]:
        """The storage array of each tensor that is one below `tensors/`."""
        found = {}
        for name, tensor in zip(self.names, self.tensors, strict=True):
            if name not in self.undecoded:
                shape = list(tensor.storage_shape)
                found[name] = {"type": "tensor", "dtype": tensor.row.storage, "shape": shape, **bytes_form(tensor.data)}
        return found

    def stacked(self) -> dict[tuple[str, str], Value]:
        """The same of stacks."""
        return {}

    # ---- record and manifest

    least: ClassVar[tuple[int, int]] = (1, 0)  # version of what is not paged
    version = (0, 0)  # that of the record
    requires: ClassVar[tuple[str, ...]] = ()

    def commit_record(self) -> None:
        packed = any(name.startswith("packs/") for name in self.files)
        self.layout = "file" if "" in self.files else "packed" if packed else "loose"
        data = self.files.get("", self.files.get("COMMIT"))
        self.need(data is not None, "there is neither a file nor a COMMIT [LAY-002]")
        assert data is not None
        self.record_at = data.rfind(b"ckptfmt/") if self.layout == "file" else 0
        self.line = data[self.record_at :]
        found = _RECORD.fullmatch(self.line)
        self.need(found and len(self.line) <= 255, f"the commit record is {self.line!r} [COM-001]")
        assert found is not None
        crc = zlib.crc32(self.line[: self.line.rindex(b"crc32=")])
        self.hold(int(found[8], 16) == crc, "the record's crc32 is wrong [COM-001]")
        self.version = int(found[1]), int(found[2])
        self.need(found[3].decode() == self.layout, "the record names another layout [LAY-006]")
        self.start, length = int(found[4]), int(found[5])
        self.end = self.start + length
        holder = self.files["" if self.layout == "file" else "manifest.msgpack"]
        self.raw = holder[self.start : self.end]
        whole = self.layout == "file" or (self.start == 0 and length == len(holder))
        self.need(whole and len(self.raw) == length, "the manifest's extent does not fit [COM-002] [COM-003]")
        self.need(hashlib.sha256(self.raw).hexdigest() == found[6].decode(), "the manifest's sha256 is wrong [COM-003]")
        self.frame_digest = bytes.fromhex(found[7].decode())

    def manifest(self) -> None:
        document = unpack(self.raw)
        self.need(isinstance(document, dict), "the manifest is no map [MAN-001]")
        self.document = document
        self.need(set(_TOP) <= set(document), f"keys are missing: {set(_TOP) - set(document)} [MAN-002]")
        is_placed = self.layout == "packed" and not self.requires
        self.hold(("placement" in document) == is_placed, "`placement` is there or not [MAN-002] [PAGE-001]")
        self.hold(document["format"] == [*self.version], "`format` is not that of the record [MAN-005]")
        self.need(document["layout"] == self.layout, "`layout` is not that of the record [LAY-006]")
        self.hold(document["requires"] == [*self.requires], f"`requires` is {document['requires']} [MAN-002]")
        self.block, self.digest = document["block"], document["digest"]
        self.need(self.digest in ("xxh3-128", "sha256", "blake3"), f"digest {self.digest!r} [BLK-002]")
        self.need(self.block % 4096 == 0 and 4096 <= self.block <= 1 << 30, f"block {self.block} [BLK-003]")
        if self.canonical:
            self.hold(pack(document) == self.raw, "the manifest is not in canonical form [MAN-004]")

    def specs(self) -> None:
        columns = self.document["tensors"]
        self.names = columns["name"]
        lengths = {len(columns[key]) for key in ("name", "dtype", "shape", "grid", "codec")}
        self.need(len(lengths) == 1, "columns of other lengths [MAN-007]")
        for dtype, shape, grid, codec in zip(*(columns[k] for k in ("dtype", "shape", "grid", "codec")), strict=True):
            self.need(dtype in DTYPES, f"dtype {dtype!r} [DTYPE-001]")
            chain = self.document["codecs"][codec]
            self.need(chain[0] == {"name": "bytes", "configuration": {"endian": "little"}}, "codec chain [ZARR-006]")
            self.need(len(chain) <= 2, "more than one codec after `bytes` [ZARR-006]")
            tensor = Tensor(dtype, tuple(shape), b"", tuple(grid), chain[1] if len(chain) == 2 else None)
            self.need(len(shape) == len(grid) <= 64, "rank of grid and shape [MAN-008] [LIM-002]")
            sides = zip(grid, tensor.storage_shape, strict=True)
            self.need(all(1 <= side <= max(1, n) for side, n in sides), f"grid {grid} of {shape} [ZARR-002]")
            self.tensors.append(tensor)

    # ---- chunks

    def chunks(self) -> None:
        parts = self.document["parts"]
        self.need(len(parts) == 1, "not exactly one part [CHK-002]")
        part, table = parts[0], parts[0]["chunks"]
        self.hold(part["size"] is None and part["frame"] is None, "`size` or `frame` of a part [MAN-002]")
        self.need(part["object"] == ("" if self.layout == "file" else None), "`object` of the part [CHK-002]")
        self.need(table["tensor"] is None and table["chunk"] is None, "a table with names [CHK-002]")
        self.need((table["offset"] is None) == (self.layout == "loose"), "`offset` of the table [CHK-002]")
        keys = [(i, key) for i, tensor in enumerate(self.tensors) for key in tensor.chunk_keys()]
        lengths = _u64(table["length"])
        offsets = _u64(table["offset"]) if table["offset"] is not None else [0] * len(lengths)
        self.need(len(keys) == len(lengths) == len(offsets), "not one row for each chunk [CHK-004] [ZARR-005]")
        expected = b""
        for (index, position), offset, length in zip(keys, offsets, lengths, strict=True):
            member = member_of(self.names[index], position)
            holder = self.files.get("" if self.layout == "file" else member)
            self.need(holder is not None, f"there is no {member} [LAY-003]")
            assert holder is not None
            self.need(length and offset + length <= len(holder), f"extent of {member} [CHK-005]")
            self.hold(self.layout == "file" or length == len(holder), f"{member} is longer than its chunk [LAY-003]")
            data = holder[offset : offset + length]
            expected += digests(self.digest, data, self.block)
            self.rows.append(Row(index, 0, member, data))
            self.extents.append((offset, offset + length))
        self.hold(expected == table["digest"], "digests of blocks are wrong [BLK-002] [CHK-001]")
        last = 0
        for low, high in sorted(self.extents) if self.layout == "file" else []:
            self.need(low >= last, "chunks overlap [CHK-005]")
            last = high
        self.need(last <= self.start or self.layout != "file", "a chunk lies beyond the manifest [CHK-005]")
        self.decode([position for _, position in keys])

    def decode(self, positions: list[tuple[int, ...]]) -> None:
        """Put the tensors together from their chunks, as far as their codecs can be decoded here."""
        pieces: dict[int, dict[tuple[int, ...], bytes]] = {}
        for row, position in zip(self.rows, positions, strict=True):
            tensor = self.tensors[row.tensor]
            size = math.prod(tensor.chunk_shape) * tensor.row.size
            data = decoded(tensor, row.data)
            if data is None:
                self.undecoded.add(self.names[row.tensor])
                continue
            self.need(len(data) == size, f"{row.member} has {len(data)} bytes, not {size} [ZARR-007] [ZARR-011]")
            pieces.setdefault(row.tensor, {})[position] = data
        for index, tensor in enumerate(self.tensors):
            if self.names[index] in self.undecoded:
                continue
            tensor.data, padding = assembled(tensor, pieces.get(index, {}))
            name = self.names[index]
            self.hold(not padding.strip(b"\0"), f"padding of {name} is not zero [ZARR-004]")
            if tensor.row.per > 1:  # 6-bit floats stand in the low bits of bytes whose high bits mean nothing
                clean = meaning(tensor.dtype, tensor.shape, tensor.data)
                self.hold(clean == tensor.data, f"unused bits of {name} are not zero [DTYPE-004]")
            if tensor.dtype == "bool":
                self.hold(set(tensor.data) <= {0, 1}, f"a bool of {name} is neither 0 nor 1 [DTYPE-005]")

    # ---- the tree

    def values(self) -> None:
        self.paths: dict[int, tuple[Any, ...]] = {}
        self.tree = self.value(self.document["tree"], (), 0, tensors=True)
        self.numbering()
        self.metadata = self.value(self.document["metadata"], (), 0, tensors=False)
        schema = self.document["schema"]
        if schema is not None:
            rows = [[n, t.dtype, list(t.shape)] for n, t in zip(self.names, self.tensors, strict=True)]
            fingerprint = hashlib.sha256(pack(sorted(rows, key=lambda row: str(row[0]).encode()))).digest()
            self.hold(schema["fingerprint"] == fingerprint, "the schema's fingerprint is wrong [SCH-002]")
            self.hold(schema["id"] and schema["version"], "an empty schema [SCH-001]")

    def numbering(self) -> None:
        self.hold(list(self.paths) == list(range(len(self.tensors))), "tensors are numbered otherwise [TREE-016]")

    def value(self, node: Any, path: tuple[Any, ...], depth: int, *, tensors: bool) -> Value:
        """The value of a node [TREE-001]."""
        self.hold(type(node) is not Single, f"a float 32 at {path} [TREE-004]")
        if not isinstance(node, list):
            return leaf(float(node) if isinstance(node, float) else node)[1]
        kind = node[0] if node else None
        if kind in ("dict", "list", "tuple", "tag"):
            self.need(depth < 256, "nested deeper than 256 [TREE-012]")
        match node:
            case ["int", bytes(raw)]:
                value = int.from_bytes(raw, "big", signed=True)
                self.hold(integer(value) == ["int", raw], f"the int {value} is not as short as can be [TREE-002]")
                return leaf(value)[1]
            case ["complex", bytes(raw)] if len(raw) == 16:
                return leaf(complex(*struct.unpack("<dd", raw)))[1]
            case ["scalar", str(dtype), bytes(raw)] if len(raw) == DTYPES[dtype].size:
                return {"type": "scalar", "dtype": dtype, "hex": meaning(dtype, (), raw).hex()}
            case ["tensor", int(index)] if tensors and 0 <= index < len(self.tensors):
                self.paths.setdefault(index, path)
                found = self.tensors[index].value(index)
                return found if self.names[index] not in self.undecoded else {**found, "hex": ""}
            case ["dict", list(keys), list(items)] if len(keys) == len(items):
                typed = [self.key(key) for key in keys]
                self.hold(len(set(map(repr, typed))) == len(typed), f"a dict repeats a key at {path} [TREE-006]")
                pairs = zip(typed, items, strict=True)
                values = [[key_value(k), self.value(i, (*path, k), depth + 1, tensors=tensors)] for k, i in pairs]
                return {"type": "dict", "items": values}
            case ["list" | "tuple", list(items)]:
                inner = [self.value(item, (*path, i), depth + 1, tensors=tensors) for i, item in enumerate(items)]
                return {"type": kind, "items": inner}
            case ["tag", str(name), param, child]:
                shown = self.value(param, path, depth + 1, tensors=False)
                return {
                    "type": "tag",
                    "name": name,
                    "param": shown,
                    "child": self.value(child, path, depth + 1, tensors=tensors),
                }
        raise Unfit(f"no such node: {str(node)[:80]} [TREE-001]")

    def key(self, key: Any) -> Any:
        if type(key) in (str, int):
            return key
        self.need(isinstance(key, list) and key[0] == "int", f"the key {key!r} [TREE-007]")
        return int.from_bytes(key[1], "big", signed=True)

    def check_names(self) -> None:
        for index, path in self.paths.items():
            expected = "/".join(map(escape, path))
            found = self.names[index]
            self.hold(found == expected, f"the tensor at {path} is named {found!r}, not {expected!r} [NAME-001]")

    # ---- node documents and frame

    def documents(self) -> None:
        """[ZARR-001] [ZARR-012] to [ZARR-014]"""
        members, wanted = self.member_bytes(), self.wanted_documents()
        self.texts = {}
        for member, canonical in wanted.items():
            text = members.get(member)
            self.need(text is not None, f"there is no {member} [ZARR-001]")
            assert text is not None
            self.texts[member] = text
            self.hold(json.loads(text) == json.loads(canonical), f"{member} says something else [ZARR-012]")
            if self.canonical:
                self.hold(text == canonical, f"{member} is not in canonical form [PACK-004]")
        known = {*self.texts, *self.places(), "manifest.msgpack", *(() if self.layout == "file" else ("COMMIT",))}
        self.further_members(set(members) ^ known)

    def wanted_documents(self) -> dict[str, bytes]:
        """The canonical text of each node document by its member name."""
        return Built(self.described()).texts()

    def places(self) -> dict[str, int]:
        """Where the payload of each member with chunks has to begin."""
        rows = zip(self.rows, self.extents or [(0, 0)] * len(self.rows), strict=True)
        return {row.member: low for row, (low, _) in rows}

    def further_members(self, found: set[str]) -> None:
        self.hold(not found, f"members that do not belong there: {found} [ZARR-001]")

    def member_bytes(self) -> dict[str, bytes]:
        if self.layout != "file":
            return self.files
        return {member.name: self.files[""][member.payload : member.payload + member.size] for member in self.members()}

    def members(self) -> list[_Member]:
        """The members that the central directory lists. [PACK-007]"""
        data = self.files[""]
        end = self.record_at - 22
        self.need(data[end : end + 4] == b"PK\5\6", "no end record before the commit record [LAY-001]")
        count, size, at, comment = struct.unpack_from("<H2IH", data, end + 10)
        self.need(comment == len(self.line), "the comment is not the commit record [COM-002]")
        self.need(at + size <= end, "the directory does not fit [PACK-007]")
        found = []
        for _ in range(count):
            self.need(data[at : at + 4] == b"PK\1\2", "the directory is broken [PACK-007]")
            fields = struct.unpack_from("<6H3I5H2I", data, at + 4)
            name = data[at + 46 : at + 46 + fields[9]]
            header = fields[15]
            self.need(data[header : header + 4] == b"PK\3\4", f"no local header of {name!r} [PACK-007]")
            local = struct.unpack_from("<5H3I2H", data, header + 4)
            payload = header + 30 + local[8] + local[9]
            extra = data[header + 30 + local[8] : payload]
            found.append(_Member(name.decode(), header, payload, fields[8], fields, local, extra))
            at += 46 + fields[9] + fields[10] + fields[11]
        return found

    def zip(self) -> None:
        """[PACK-001] [PACK-002]"""
        data, found = self.files[""], self.members()
        names = [member.name for member in found]
        self.hold(len(set(names)) == len(names), "a member's name is repeated [PACK-001]")
        offsets = self.places()
        position = 0
        for member in sorted(found, key=lambda member: member.header):
            self.hold(member.header >= position, f"{member.name} overlaps another member [PACK-001]")
            position = member.payload + member.size
            _, flags, method, _, _, crc, packed, size, _, _ = member.local
            content = data[member.payload : position]
            stored = (flags, method, packed, size) == (0, 0, member.size, member.size)
            self.hold(stored, f"{member.name} is not stored, or its header is incomplete [PACK-001]")
            right = crc == member.central[6] == zlib.crc32(content)
            self.hold(right, f"the crc32 of {member.name} is wrong [PACK-001]")
            if member.name in offsets:
                self.hold(offsets[member.name] == member.payload, f"{member.name} lies elsewhere [PACK-007]")
                alignment = 4096 if member.size >= _LARGE else 64
                self.hold(member.payload % alignment == 0, f"{member.name} is not aligned [PACK-002]")
                identity, room, value = struct.unpack_from("<3H", member.extra + bytes(6))
                filled = (identity, room, value) == (0xD935, len(member.extra) - 4, alignment)
                self.hold(filled and not member.extra[6:].strip(b"\0"), f"the extra field of {member.name} [PACK-002]")
            else:
                self.hold(not member.extra, f"{member.name} has an extra field [PACK-002]")
        self.need("manifest.msgpack" in names, "the manifest is no member [PACK-007]")

    def frame(self) -> None:
        """[FRM-001] [FRM-002]"""
        if self.layout == "loose":
            content = b"".join(self.texts[member] for member in sorted(self.texts))
        else:
            data, out, position = self.files[""], [], 0
            for low, high in sorted([*self.extents, *self.besides(), (self.start, self.end)]):
                out.append(data[position:low])
                position = high
            content = b"".join([*out, data[position : self.record_at]])
        self.hold(digest(self.digest, content) == self.frame_digest, "the frame digest is wrong [FRM-001] [FRM-002]")

    def besides(self) -> list[tuple[int, int]]:
        """What else is not of the frame."""
        return []

    def described(self) -> Checkpoint:
        """The checkpoint, to be built anew."""
        described = Checkpoint(
            Form(self.document["tree"], None),
            Form(self.document["metadata"], None),
            layout=self.layout,
            digest=self.digest,
            block=self.block,
            generator=self.document["generator"],
            numbering=self.tensors,
            names=self.names,
        )
        schema = self.document["schema"]
        if schema is not None:
            described.schema = (schema["id"], schema["version"])
        described.version = max(self.least, described.since)
        return described

    def canonical_form(self) -> None:
        """Build the same checkpoint anew, and compare every byte. [MAN-004] [PACK-004] [PACK-005] [PACK-008]"""
        built = self.rebuilt()
        files = flatten(built.file() if self.layout == "file" else built.loose())
        self.hold(
            files == self.files,
            "the bytes are not those of the canonical form [MAN-004] [PACK-004] [PACK-005] [PACK-008]",
        )

    def rebuilt(self) -> Built:
        return _Rebuilt(self.described(), self.rows)


class _Rebuilt(Built):
    """A checkpoint built anew from the stored bytes of another."""

    def __init__(self, described: Checkpoint, rows: list[Row]) -> None:
        super().__init__(described)
        self._rows = rows

    def rows(self) -> list[Row]:
        return self._rows


class _Member(NamedTuple):
    name: str
    header: int
    payload: int
    size: int
    central: tuple[int, ...]
    local: tuple[int, ...]
    extra: bytes


def member_of(name: str, position: tuple[int, ...]) -> str:
    key = "/".join(["c", *map(str, position)])
    return f"tensors/{name}/{key}" if name else f"tensors/{key}"


def _u64(column: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(column) // 8}Q", column))
