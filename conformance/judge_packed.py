"""What a writer wrote in layout `packed`, judged: parts, placement, packs and frames. SPEC.md sections 7 to 9."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from dataclasses import dataclass, field
from typing import Any

from .judge import Judged, member_of
from .packing import unpack
from .zip_writer import Row, digest, digests


@dataclass
class Packed(Judged):
    """The statements that are not those of a `file` or `loose` checkpoint; its bytes are not canonical [LAY-005]."""

    part_extents: list[list[tuple[int, int]]] = field(default_factory=list)

    def chunks(self) -> None:
        """[CHK-001] to [CHK-008]"""
        keys = [(i, number) for i, tensor in enumerate(self.tensors) for number, _ in enumerate(tensor.chunk_keys())]
        positions = [position for tensor in self.tensors for position in tensor.chunk_keys()]
        found: dict[tuple[int, int], tuple[int, bytes]] = {}
        objects = [part["object"] for part in self.document["parts"]]
        self.need(objects and len(set(objects)) == len(objects), "parts without an object of their own [LAY-004]")
        for number, part in enumerate(self.document["parts"]):
            pack = self.files.get(part["object"])
            self.need(pack is not None and len(pack) == part["size"], f"size of {part['object']} [LAY-004]")
            assert pack is not None
            found |= self.part(self.table(part["chunks"]), number, pack)
        self.need(sorted(found) == keys, "chunks are not listed exactly once over all parts [CHK-004]")
        self.need({key: part for key, (part, _) in found.items()} == self.placed(), "`placement` disagrees [CHK-008]")
        for (tensor, number), position in zip(keys, positions, strict=True):
            member = member_of(self.names[tensor], position)
            self.rows.append(Row(tensor, number, member, found[tensor, number][1]))
        self.decode(positions)

    def table(self, chunks: dict[str, Any]) -> dict[str, Any]:
        """A chunk table, from its part manifest if it has one. [CHK-006]"""
        if "path" not in chunks:
            return chunks
        raw = self.files.get(chunks["path"], b"")
        right = len(raw) == chunks["length"] and hashlib.sha256(raw).digest() == chunks["sha256"]
        self.need(right, f"{chunks['path']} has another length or sha256 [CHK-006]")
        found: dict[str, Any] = unpack(raw)
        return found

    def part(self, table: dict[str, Any], number: int, pack: bytes) -> dict[tuple[int, int], tuple[int, bytes]]:
        """The chunks of a part: (tensor, chunk) to its number and the stored bytes."""
        columns = [
            _column(table[key], code) for key, code in zip(("tensor", "chunk", "offset", "length"), "IQQQ", strict=True)
        ]
        self.need(len({len(column) for column in columns}) == 1, "columns of other lengths [CHK-001]")
        rows = list(zip(*columns, strict=True))
        keys = [(tensor, chunk) for tensor, chunk, _, _ in rows]
        self.hold(keys == sorted(set(keys)), f"the rows of part {number} are not sorted [CHK-003]")
        extents = [(offset, offset + length) for _, _, offset, length in rows]
        self.part_extents.append(sorted(extents))
        last = 0
        for low, high in sorted(extents):
            self.need(last <= low < high <= len(pack), f"an extent of part {number} [CHK-005]")
            last = high
        data = [pack[low:high] for low, high in extents]
        expected = b"".join(digests(self.digest, one, self.block) for one in data)
        self.hold(expected == table["digest"], f"digests of part {number} are wrong [BLK-002] [CHK-001]")
        return {key: (number, one) for key, one in zip(keys, data, strict=True)}

    def placed(self) -> dict[tuple[int, int], int]:
        """What `placement` says: the part of each chunk. [CHK-008]"""
        placement = self.document["placement"]
        keys = ("tensor", "chunk", "count", "part", "step")
        columns = [_column(placement[key], code) for key, code in zip(keys, "IQQII", strict=True)]
        found: dict[tuple[int, int], int] = {}
        for tensor, chunk, count, part, step in zip(*columns, strict=True):
            self.hold(count >= 1, "an empty row of `placement` [CHK-008]")
            found |= {(tensor, chunk + i): part + i * step for i in range(count)}
        self.hold(list(found) == sorted(found), "`placement` is not sorted [CHK-008]")
        return found

    def member_bytes(self) -> dict[str, bytes]:
        """Every member of every pack, as stock ZIP tools see them, and what lies beside the packs. [PACK-007]"""
        found = {name: data for name, data in self.files.items() if name in ("pages.bin", "manifest.msgpack", "COMMIT")}
        chunks = self.places()
        for number, part in enumerate(self.document["parts"]):
            pack = self.files[part["object"]]
            with zipfile.ZipFile(io.BytesIO(pack)) as archive:
                self.need(archive.testzip() is None, f"the crc32 of a member of {part['object']} is wrong [PACK-001]")
                names: set[str] = set()
                self.hold(not archive.comment, f"{part['object']} has a comment [LAY-004]")
                for member in archive.infolist():
                    stored = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits
                    self.hold(stored, f"{member.filename} is not stored [PACK-001]")
                    self.hold(member.filename not in names, f"{member.filename} is repeated [PACK-001]")
                    names.add(member.filename)
                    if not number or member.filename in chunks:  # else it is none of this checkpoint [LAY-009]
                        found.setdefault(member.filename, archive.read(member))
            for low, high in self.part_extents[number]:
                alignment = 4096 if high - low >= 65536 else 64
                self.hold(low % alignment == 0, f"a chunk of {part['object']} is not aligned [PACK-002]")
        return found

    def frame(self) -> None:
        """[FRM-003]"""
        self.hold(self.frame_digest == digest(self.digest, b""), "the frame digest of the record [FRM-003]")
        for part, extents in zip(self.document["parts"], self.part_extents, strict=True):
            pack, out, position = self.files[part["object"]], [], 0
            for low, high in extents:
                out.append(pack[position:low])
                position = high
            content = b"".join([*out, pack[position:]])
            self.hold(part["frame"] == digest(self.digest, content), f"the frame digest of {part['object']} [FRM-003]")


def _column(data: bytes, code: str) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // struct.calcsize('<' + code)}{code}", data)
