"""Mutations: how the input of a case is made from that of a valid one. The steps are those of case.schema.json.

A step changes bytes where it says, and nothing else; `reseal` then makes the digests, sizes and the commit record fit
again, so that the fault stands alone and no reader can pass by noticing a digest.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgpack

from .build import record, sealed
from .model import DTYPES, name_of, storage_shape
from .packing import Literal, pack
from .patching import SAME, XOR
from .zip_writer import digest, digests

Flat = dict[str, bytes]  # a checkpoint's objects; "" is the file itself
MANIFEST, PAGES = "manifest.msgpack", "pages.bin"
_RECORD = re.compile(rb"ckptfmt/(\d+)\.(\d+) .*manifest=(\d+)\+(\d+) ")


@dataclass
class Mutation:
    """A checkpoint under mutation. `links` are the symbolic links that were made of objects: path to target."""

    files: Flat
    links: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.files = dict(self.files)
        self.is_file = "" in self.files
        self.home = "" if self.is_file else MANIFEST
        self.home_of_pages = "" if self.is_file else PAGES
        line = self.files["" if self.is_file else "COMMIT"]
        at = line.rindex(b"ckptfmt/") if self.is_file else 0
        found = _RECORD.match(line, at)
        assert found is not None, "the base is no checkpoint"
        major, minor, self.start, length = map(int, found.groups())
        self.version = major, minor
        self.end = self.start + length
        self.record_at = at
        self.document: dict[str, Any] = msgpack.unpackb(self.manifest, strict_map_key=False)
        self.original: dict[str, Any] = msgpack.unpackb(self.manifest, strict_map_key=False)
        self.is_paged = "pages" in self.original.get("requires", [])
        self.pages: dict[str, Any] = self.original["pages"] if self.is_paged else {"offset": 0, "length": b""}
        self.page_lengths = _column(self.pages["length"], "Q")
        self.is_repaged = False  # whether pages have changed since their digests were made
        of_tensors = len(self.original["tensors"]["first"]) if self.is_paged else 0
        self._pages_of_base = [self.page(number) for number in range(of_tensors)]

    @property
    def manifest(self) -> bytes:
        return self.files[self.home][self.start : self.end]

    def apply(self, steps: list[dict[str, Any]]) -> None:
        for step in steps:
            arguments = {key: value for key, value in step.items() if key != "do"}
            getattr(self, step["do"])(**arguments)

    # ---- steps

    def flip_bit(self, at: dict[str, Any], bit: int) -> None:
        name, offset = self._place(at)
        data = bytearray(self.files[name])
        data[offset] ^= 1 << bit
        self.files[name] = bytes(data)

    def overwrite(self, at: dict[str, Any], hex: str) -> None:
        name, offset = self._place(at)
        self._splice(name, offset, len(hex) // 2, bytes.fromhex(hex))

    def insert(self, at: dict[str, Any], hex: str) -> None:
        name, offset = self._place(at)
        self._splice(name, offset, 0, bytes.fromhex(hex))

    def truncate(self, at: dict[str, Any]) -> None:
        name, offset = self._place(at)
        self._splice(name, offset, len(self.files[name]) - offset, b"")

    def append(self, hex: str, object: str = "") -> None:
        """Bytes after the last of an object."""
        self.files[object] += bytes.fromhex(hex)

    def replace_record(self, hex: str) -> None:
        """Other bytes in place of the commit record; in a file the ZIP's comment is as long."""
        line = bytes.fromhex(hex)
        if self.is_file:
            self._replace_line(line)
        else:
            self.files["COMMIT"] = line

    def remove_object(self, object: str) -> None:
        """An object, or all objects below a directory."""
        self.files = {k: v for k, v in self.files.items() if k != object and not k.startswith(f"{object}/")}

    def add_object(self, object: str, hex: str) -> None:
        """A new object, or new contents for one that is there."""
        self.files[object] = bytes.fromhex(hex)

    def link_object(self, object: str, target: str) -> None:
        """Make an object, or a directory of them, a symbolic link to `target`, which is a copy of it outside the
        checkpoint."""
        self.links[object] = target

    def edit_manifest(self, pointer: str, msgpack: str, page: int | None = None) -> None:
        """Replace, add or (with empty bytes) remove one item of the manifest, or of a page of it; `-` at the end of a
        pointer appends to an array."""
        document = self.document if page is None else self.page(page)
        *way, last = [key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:]]
        holder: Any = document
        for key in way:
            holder = holder[int(key)] if isinstance(holder, list) else holder[key]
        if isinstance(holder, list) and last == "-":
            holder.append(Literal(bytes.fromhex(msgpack)))
        elif not msgpack:
            del holder[int(last) if isinstance(holder, list) else last]
        else:
            holder[int(last) if isinstance(holder, list) else last] = Literal(bytes.fromhex(msgpack))
        self.replace_manifest(pack(document).hex(), page)

    def edit_bin(self, pointer: str, offset: int, hex: str, page: int | None = None) -> None:
        """Other bytes within a bin of the manifest, or of a page of it."""
        holder: Any = self.document if page is None else self.page(page)
        for key in pointer.split("/")[1:]:
            holder = holder[int(key)] if isinstance(holder, list) else holder[key]
        new = bytes.fromhex(hex)
        self.edit_manifest(pointer, pack(holder[:offset] + new + holder[offset + len(new) :]).hex(), page)

    def replace_manifest(self, hex: str, page: int | None = None) -> None:
        """Other bytes in place of the whole manifest, or of a page of it."""
        new = bytes.fromhex(hex)
        if page is None:
            self._replace_manifest(new)
            return
        start, length = self._page_place(page)
        data = self.files[self.home_of_pages]
        self.files[self.home_of_pages] = data[:start] + new + data[start + length :]
        self.page_lengths[page] = len(new)
        self.is_repaged = True
        moved = len(new) - length if self.is_file else 0
        self.start, self.end, self.record_at = self.start + moved, self.end + moved, self.record_at + moved

    def page(self, number: int) -> Any:
        """What stands in a page."""
        start, length = self._page_place(number)
        return msgpack.unpackb(self.files[self.home_of_pages][start : start + length], strict_map_key=False)

    def _page_place(self, number: int) -> tuple[int, int]:
        """Offset and length of a page, as it is now."""
        start: int = self.pages["offset"]
        return start + sum(self.page_lengths[:number]), self.page_lengths[number]

    def reseal(self, digests: bool = False, **fields: Any) -> None:
        """Make everything fit again: with `digests` those of the blocks, then lengths and digests of pages that were
        changed, ZIP headers, frame, and the record, in which `fields` (`version`, `layout`, `offset`, `length`,
        `sha256`, `frame`, `text`) stand as given."""
        if digests:
            self._redigest()
        if self.is_repaged:
            self._repage()
        if self.is_file:
            self._rezip()
        raw = self.manifest
        if "text" in fields:
            line = sealed(fields["text"].encode())
        else:
            line = record(str(self.original["layout"]), self.start, raw, self._frame(), self.version)
            line = _with_fields(line, fields)
        self.replace_record(line.hex())

    def _replace_line(self, line: bytes) -> None:
        data = self.files[""]
        end = data.rindex(b"PK\5\6", 0, self.record_at)
        self.files[""] = data[: end + 20] + struct.pack("<H", len(line)) + data[end + 22 : self.record_at] + line

    # ---- places

    def _place(self, at: dict[str, Any]) -> tuple[str, int]:
        """(object, offset) of a place."""
        region, offset = at.get("region", "object"), at["offset"]
        name, low, high = at.get("object", ""), 0, 0
        if region == "manifest":
            name, low, high = self.home, self.start, self.end
        elif region == "record":
            name, low = ("", self.record_at) if self.is_file else ("COMMIT", 0)
            high = len(self.files[name])
        elif region == "directory":
            low, high = self.end, self.record_at
        elif region == "object":
            high = len(self.files[name])
        elif "page" in region:
            low, length = self._page_place(region["page"])
            name, high = self.home_of_pages, low + length
        else:
            name, low, high = self._chunk(region["tensor"], region["chunk"])
        return name, (high if offset < 0 else low) + offset - at.get("before", 0)

    def _splice(self, name: str, offset: int, count: int, new: bytes) -> None:
        data = self.files[name]
        self.files[name] = data[:offset] + new + data[offset + count :]
        moved = len(new) - count
        if name == self.home and self.start <= offset <= self.end:
            self.end += moved
        if name == "" and offset <= self.record_at:
            self.record_at += moved

    def _replace_manifest(self, raw: bytes) -> None:
        moved = len(raw) - (self.end - self.start)
        data = self.files[self.home]
        self.files[self.home] = data[: self.start] + raw + data[self.end :]
        self.end += moved
        self.record_at += moved if self.is_file else 0

    def _chunk(self, path: list[Any], chunk: int) -> tuple[str, int, int]:
        """(object, start, end) of a chunk, by the manifest of the base. The base's tables stand inline."""
        name = name_of(tuple(key if isinstance(key, str) else int(key["int"]) for key in path))
        tensor = self._names().index(name)
        return next((o, low, high) for t, c, o, low, high in self._extents() if (t, c) == (tensor, chunk))

    def _extents(self) -> list[tuple[int, int, str, int, int]]:
        """(tensor, chunk, object, start, end) of every row of every table."""
        if self.is_paged:
            return list(self._paged_extents())
        names, found = self._chunk_names(), []
        for part in self.original["parts"]:
            table = part["chunks"]
            lengths = _column(table["length"], "Q")
            offsets = _column(table["offset"], "Q") if table["offset"] is not None else [0] * len(lengths)
            keys = names if table["tensor"] is None else _keys(table)
            for (tensor, chunk, member), low, length in zip(keys, offsets, lengths, strict=True):
                holder = part["object"] if part["object"] is not None else member
                found.append((tensor, chunk, holder, low, low + length))
        return found

    def _names(self) -> list[str]:
        if not self.is_paged:
            return list(self.original["tensors"]["name"])
        return [name for page in self._pages_of_base for name in page["name"].decode().split("\n")[:-1]]

    def _paged_extents(self) -> Iterator[tuple[int, int, str, int, int]]:
        """The same of a paged manifest."""
        tensor = -1
        for page in self._pages_of_base:
            table, kinds = page["chunks"], page["kinds"]
            lengths = _column(table["length"], "Q")
            offsets = [0] * len(lengths) if table["offset"] is None else _column(table["offset"], "Q")
            parts = _column(page["part"], "I") if "part" in page else [-1] * len(lengths)
            rows = zip(offsets, lengths, parts, strict=True)
            names = page["name"].decode().split("\n")
            for name, kind in zip(names, _column(page["kind"], "I"), strict=False):
                tensor += 1
                for chunk, key in enumerate(_chunk_keys(*(kinds[key][kind] for key in ("dtype", "shape", "grid")))):
                    offset, length, part = next(rows)
                    alone = "" if self.is_file else f"tensors/{name}/{key}" if name else f"tensors/{key}"
                    holder = alone if part < 0 else self.original["parts"][part]["object"]
                    yield tensor, chunk, holder, offset, offset + length

    def _chunk_names(self) -> list[tuple[int, int, str]]:
        """(tensor, chunk, member) in the order of CHK-002."""
        tensors, found = self.original["tensors"], []
        columns = zip(tensors["name"], tensors["dtype"], tensors["shape"], tensors["grid"], strict=True)
        is_patch = "patch" in self.original.get("requires", [])
        forms = self.original["patch"]["form"] if is_patch else bytes(len(tensors["name"]))
        for index, (name, dtype, shape, grid) in enumerate(columns):
            if forms[index] == SAME:
                continue
            root = "xor" if forms[index] == XOR else "tensors"
            for number, key in enumerate(_chunk_keys(dtype, shape, grid)):
                found.append((index, number, f"{root}/{name}/{key}" if name else f"{root}/{key}"))
        return found

    # ---- resealing

    def _redigest(self) -> None:
        """Give every chunk the digests of the bytes that it has now; in layout `loose` its length, too."""
        extents = iter(self._extents())
        for number, page in enumerate(self._pages_of_base):
            rows = [next(extents) for _ in range(len(page["chunks"]["length"]) // 8)]
            chunks = [self.files[name][low:high] for *_, name, low, high in rows]
            blocks = [digests(self.original["digest"], data, self.original["block"]) for data in chunks]
            self.edit_manifest("/chunks/digest", pack(b"".join(blocks)).hex(), number)
        parts = [] if self.is_paged else zip(self.document["parts"], self.original["parts"], strict=True)
        for part, original in parts:
            rows = [next(extents) for _ in range(len(original["chunks"]["length"]) // 8)]
            chunks = [self.files[name][low : None if part["object"] is None else high] for *_, name, low, high in rows]
            blocks = [digests(self.original["digest"], data, self.original["block"]) for data in chunks]
            part["chunks"]["length"] = struct.pack(f"<{len(chunks)}Q", *map(len, chunks))
            part["chunks"]["digest"] = b"".join(blocks)
        self._replace_manifest(pack(self.document))

    def _repage(self) -> None:
        """Lengths and digests of the pages that are there now."""
        data = self.files[self.home_of_pages]
        pages = [data[start : start + length] for start, length in map(self._page_place, self._numbers())]
        placed = self.document["pages"]
        placed["length"] = struct.pack(f"<{len(pages)}Q", *map(len, pages))
        placed["sha256"] = b"".join(hashlib.sha256(page).digest() for page in pages)
        self.is_repaged = False
        self._replace_manifest(pack(self.document))

    def _numbers(self) -> range:
        return range(len(self.page_lengths))

    def _rezip(self) -> None:
        """Sizes, crc32 and places in the ZIP's headers and directory, as they are now."""
        data = bytearray(self.files[""])
        end = data.rindex(b"PK\5\6", 0, self.record_at)
        at = self.end
        while data[at : at + 4] == b"PK\1\2":
            name, extra = struct.unpack_from("<2H", data, at + 28)
            (header,) = struct.unpack_from("<I", data, at + 42)
            local_name, local_extra = struct.unpack_from("<2H", data, header + 26)
            payload = header + 30 + local_name + local_extra
            (size,) = struct.unpack_from("<I", data, at + 24)
            if bytes(data[at + 46 : at + 46 + name]) == MANIFEST.encode():
                header = self.start - 30 - name
                payload, size = self.start, self.end - self.start
                data[at + 42 : at + 46] = struct.pack("<I", header)
            elif bytes(data[at + 46 : at + 46 + name]) == b"pages.bin":
                size = sum(self.page_lengths)
            new = struct.pack("<3I", zlib.crc32(bytes(data[payload : payload + size])), size, size)
            data[at + 16 : at + 28] = new
            data[header + 14 : header + 26] = new
            at += 46 + name + extra
        data[end + 12 : end + 20] = struct.pack("<2I", at - self.end, self.end)
        self.files[""] = bytes(data)

    def _frame(self) -> bytes:
        """[FRM-001] [FRM-002]"""
        name = str(self.original.get("digest", "xxh3-128"))  # version 0.9 knew no other [FMT-005]
        if not self.is_file:
            documents = sorted(member for member in self.files if member.endswith("/zarr.json"))
            if self.original["layout"] == "packed":
                return digest(name, b"")
            return digest(name, b"".join(self.files[member] for member in documents))
        data, out, position = self.files[""], [], 0
        taken = [(low, high) for *_, low, high in self._extents()]
        if self.is_paged:
            taken.append((self.pages["offset"], self.pages["offset"] + sum(self.page_lengths)))
        for low, high in sorted([*taken, (self.start, self.end)]):
            out.append(data[position:low])
            position = high
        return digest(name, b"".join([*out, data[position : self.record_at]]))


def _with_fields(line: bytes, fields: dict[str, Any]) -> bytes:
    """A record with other fields, and a crc32 that fits them."""
    text = line.decode()
    if "version" in fields:
        text = re.sub(r"^ckptfmt/\S+", f"ckptfmt/{fields['version']}", text)
    if "layout" in fields:
        text = re.sub(r" (file|loose|packed) ", f" {fields['layout']} ", text)
    for key, form in (("offset", r"(?<=manifest=)\d+"), ("length", r"(?<=\+)\d+(?= sha256)")):
        if key in fields:
            text = re.sub(form, str(fields[key]), text)
    for key in ("sha256", "frame"):
        if key in fields:
            text = re.sub(rf"(?<={key}=)[0-9a-f]+", fields[key], text)
    return sealed(text[: text.index("crc32=")].encode())


def _counts(dtype: str, shape: list[int], grid: list[int]) -> list[int]:
    """Of chunks along each axis."""
    stored = storage_shape(DTYPES[dtype], tuple(shape))
    return [-(-n // side) for n, side in zip(stored, grid, strict=True)]


def _chunk_keys(dtype: str, shape: list[int], grid: list[int]) -> Iterator[str]:
    """The key of each chunk, in C order."""
    positions = itertools.product(*map(range, _counts(dtype, shape, grid)))
    return ("/".join(["c", *map(str, position)]) for position in positions)


def _column(data: bytes, code: str) -> list[int]:
    return list(struct.unpack(f"<{len(data) // struct.calcsize('<' + code)}{code}", data))


def _keys(table: dict[str, Any]) -> list[tuple[int, int, str]]:
    return [(t, c, "") for t, c in zip(_column(table["tensor"], "I"), _column(table["chunk"], "Q"), strict=True)]
