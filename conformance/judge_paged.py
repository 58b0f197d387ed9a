"""What a writer wrote with a paged manifest, judged: pages, and in layout `file` stacks. SPEC.md sections 7.1 and
7.2."""

from __future__ import annotations

import hashlib
import itertools
import struct
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .build import Built, BuiltPaged, Checkpoint
from .judge import Judged
from .judge_packed import Packed
from .model import Tensor, Value, bytes_form
from .packing import unpack
from .pages import Paging, Stack, has_plain_keys, is_stacked, stacks_of
from .zip_writer import Row


@dataclass
class Paged(Judged):
    """The statements that are not those of another checkpoint in layout `file` or `loose`."""

    pages: list[bytes] = field(default_factory=list)
    met: set[int] = field(default_factory=set)
    least: ClassVar[tuple[int, int]] = (1, 1)
    requires: ClassVar[tuple[str, ...]] = ("pages",)

    def manifest(self) -> None:
        """Once pages are judged the document is that of one that is not paged."""
        super().manifest()
        document = self.document
        self.need({"pages", "plain_keys"} <= set(document), "`pages` or `plain_keys` is missing [PAGE-001]")
        self.need(bool(document["parts"]) == (self.layout == "packed"), "`parts` are there or not [PAGE-001]")
        self.stored_pages(document["pages"])
        tree = self.joined(document["tree"], len(self.pages), top=False)
        count = len(document["tensors"]["first"])
        self.hold(self.met == set(range(count, len(self.pages))), "a page is referred to nowhere [PAGE-006]")
        self.hold(document["plain_keys"] is has_plain_keys(tree), "`plain_keys` is not as the keys are [PAGE-008]")
        columns, table = self.tensor_pages(document["tensors"])
        self.document = {**document, "tree": tree, "tensors": columns, **self.unpaged(columns, table)}

    def unpaged(self, columns: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
        """Where chunks are, as a manifest says it that is not paged."""
        name = "" if self.layout == "file" else None
        found = {**table, "offset": table["offset"] if name == "" else None}
        return {"parts": [{"object": name, "size": None, "frame": None, "chunks": found}]}

    def stored_pages(self, placed: dict[str, Any]) -> None:
        """[PAGE-002] [PAGE-003]"""
        lengths, at = _u64(placed["length"]), placed["offset"]
        self.need(len(placed["sha256"]) == 32 * len(lengths), "the columns of `pages` differ in length [PAGE-002]")
        holder = self.files["" if self.layout == "file" else "pages.bin"]
        self.hold(self.layout == "file" or (at, sum(lengths)) == (0, len(holder)), "`pages.bin` [PAGE-002]")
        for number, length in enumerate(lengths):
            page = holder[at : at + length]
            inside = at + length <= (self.start if self.layout == "file" else len(holder))
            self.hold(length and inside, f"page {number} lies in the manifest [PAGE-002]")
            right = hashlib.sha256(page).digest() == placed["sha256"][32 * number : 32 * number + 32]
            self.need(right, f"page {number} has another sha256 [PAGE-003]")
            self.pages.append(page)
            at += length
        self.extent_of_pages = placed["offset"], at

    def joined(self, node: Any, below: int, *, top: bool) -> Any:
        """A node without references. [PAGE-006] [PAGE-007]"""
        match node:
            case ["page", int(number)]:
                self.need(0 <= number < below and not top, f"page {number} is referred to where it may not [PAGE-006]")
                self.hold(number not in self.met, f"page {number} is referred to twice [PAGE-006]")
                self.met.add(number)
                return self.joined(unpack(self.pages[number]), number, top=True)
            case ["joined", [*pieces], [*counts]]:
                self.need(pieces and not top, "a joined node of nothing, or that is a page [PAGE-007]")
                found = [self.joined(piece, below, top=False) for piece in pieces]
                alike = all(piece[0] in ("dict", "list", "tuple") and piece[0] == found[0][0] for piece in found)
                self.need(alike, "what is joined are not containers of one kind [PAGE-007]")
                self.need([len(piece[-1]) for piece in found] == counts, "counts of what is joined [PAGE-007]")
                columns = zip(*(piece[1:] for piece in found), strict=True)
                return [found[0][0], *([item for part in column for item in part] for column in columns)]
            case ["dict", keys, items]:
                return ["dict", keys, [self.joined(item, below, top=False) for item in items]]
            case ["list" | "tuple" as kind, items]:
                return [kind, [self.joined(item, below, top=False) for item in items]]
            case ["tag", name, param, child]:
                return ["tag", name, param, self.joined(child, below, top=False)]
        return node

    def tensor_pages(self, listed: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Columns and chunk table of all tensors. [PAGE-004] [PAGE-005]"""
        columns: dict[str, list[Any]] = {key: [] for key in ("name", "dtype", "shape", "grid", "codec")}
        table: dict[str, Any] = {
            "tensor": None,
            "chunk": None,
            "offset": b"",
            "length": b"",
            "digest": b"",
            "part": b"",
        }
        counts, chunks = _u64(listed["count"]), _u64(listed["chunks"])
        self.need(len(counts) == len(chunks) == len(listed["first"]), "the columns of `tensors` differ [PAGE-004]")
        for number, first in enumerate(listed["first"]):
            page = unpack(self.pages[number])
            *names, end = page["name"].decode("ascii").split("\n")
            kinds = struct.unpack(f"<{len(page['kind']) // 4}I", page["kind"])
            right = (end, names[0], len(names), len(kinds)) == ("", first, counts[number], counts[number])
            self.need(right, f"page {number} has not the names and kinds that are said [PAGE-004]")
            columns["name"] += names
            for key in ("dtype", "shape", "grid", "codec"):
                columns[key] += [page["kinds"][key][kind] for kind in kinds]
            self.hold(page["chunks"]["tensor"] is None, f"page {number} names its chunks [CHK-002]")
            self.hold(len(page["chunks"]["length"]) == 8 * chunks[number], f"page {number} has other chunks [PAGE-004]")
            nowhere = (page["chunks"]["offset"] is None) == (self.layout == "loose")
            self.need(nowhere, f"`offset` of page {number} [CHK-011]")
            self.need(("part" in page) == (self.layout == "packed"), f"`part` of page {number} [PAGE-017]")
            for key in ("offset", "length", "digest"):
                table[key] += page["chunks"][key] or b""
            table["part"] += page.get("part", b"")
        names = columns["name"]
        self.hold(names == sorted(set(names)), "tensors are not in the order of their names [PAGE-005]")
        return columns, table

    def numbering(self) -> None:
        self.hold(sorted(self.paths) == list(range(len(self.tensors))), "a tensor stands nowhere [TREE-009]")

    # ---- stacks

    def stacks(self) -> list[Stack]:
        return stacks_of(self.tensors) if self.layout == "file" else []

    def is_stacked(self, tensor: Tensor) -> bool:
        return self.layout == "file" and is_stacked(tensor)

    def stack_places(self) -> dict[str, tuple[int, list[int]]]:
        """Where the chunks of stacks begin, and the tensors in each. [STACK-001] to [STACK-003]"""
        lows = {row.tensor: low for row, (low, _) in zip(self.rows, self.extents, strict=True)}
        found = {}
        for stack in self.stacks():
            for member, numbers in stack.chunks():
                low, size = lows[numbers[0]], len(self.tensors[numbers[0]].data)
                rows = [low + at * size for at in range(len(numbers))]
                self.hold(rows == [lows[number] for number in numbers], f"tensors are no rows of {member} [STACK-003]")
                found[member] = (low, numbers)
        return found

    def places(self) -> dict[str, int]:
        if self.layout != "file":
            return super().places()
        alone = {
            row.member: low
            for row, (low, _) in zip(self.rows, self.extents, strict=True)
            if not is_stacked(self.tensors[row.tensor])
        }
        return alone | {member: low for member, (low, _) in self.stack_places().items()}

    def arrays(self) -> dict[str, Value]:
        stacked = {name for name, tensor in zip(self.names, self.tensors, strict=True) if self.is_stacked(tensor)}
        return {name: value for name, value in super().arrays().items() if name not in stacked}

    def stacked(self) -> dict[tuple[str, str], Value]:
        found: dict[tuple[str, str], Value] = {}
        for stack in self.stacks():
            data = b"".join(self.tensors[number].data for number in stack.numbers)
            shape = [len(stack.numbers), *stack.like.storage_shape]
            value = {"type": "tensor", "dtype": stack.like.row.storage, "shape": shape, **bytes_form(data)}
            found["stacks", stack.name] = value
        return found

    # ---- the rest

    def wanted_documents(self) -> dict[str, bytes]:
        return BuiltPaged(self.described()).texts()

    def further_members(self, found: set[str]) -> None:
        """Pages of a file may stand where the writer likes, in a member of that name if it is canonical. [PAGE-012]"""
        free = self.layout == "file" and not self.canonical
        self.hold(found == {"pages.bin"} or (free and len(found) < 2), f"further members: {found} [PAGE-012]")

    def besides(self) -> list[tuple[int, int]]:
        return [self.extent_of_pages]

    def described(self) -> Checkpoint:
        found = super().described()
        found.paged = Paging()
        return found

    def rebuilt(self) -> Built:
        return _RebuiltPaged(self.described(), self.rows)


@dataclass
class PagedPacked(Paged, Packed):
    """The same in layout `packed`: once pages are judged, parts are as without them. [PAGE-017]"""

    def unpaged(self, columns: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
        kinds = zip(columns["dtype"], columns["shape"], columns["grid"], strict=True)
        tensors = [Tensor(dtype, tuple(shape), b"", tuple(grid)) for dtype, shape, grid in kinds]
        keys = [(number, chunk) for number, one in enumerate(tensors) for chunk, _ in enumerate(one.chunk_keys())]
        of_part = struct.unpack(f"<{len(table['part']) // 4}I", table["part"])
        offsets, lengths = _u64(table["offset"]), _u64(table["length"])
        self.need(len(keys) == len(of_part) == len(offsets) == len(lengths), "columns of other lengths [PAGE-017]")
        size = {"xxh3-128": 16, "sha256": 32, "blake3": 32}[self.digest]
        ends = [0, *itertools.accumulate(-(-length // self.block) * size for length in lengths)]
        self.need(max(of_part, default=0) < len(self.document["parts"]), "a part that is not there [PAGE-017]")
        parts = []
        for number, part in enumerate(self.document["parts"]):
            self.need(part["chunks"] is None, f"part {number} has a table [PAGE-017]")
            rows = [row for row, one in enumerate(of_part) if one == number]
            own: dict[str, Any] = {
                "tensor": struct.pack(f"<{len(rows)}I", *(keys[row][0] for row in rows)),
                "chunk": struct.pack(f"<{len(rows)}Q", *(keys[row][1] for row in rows)),
                "offset": struct.pack(f"<{len(rows)}Q", *(offsets[row] for row in rows)),
                "length": struct.pack(f"<{len(rows)}Q", *(lengths[row] for row in rows)),
                "digest": b"".join(table["digest"][ends[row] : ends[row + 1]] for row in rows),
            }
            parts.append({**part, "chunks": own})
        placement = {
            "tensor": struct.pack(f"<{len(keys)}I", *(tensor for tensor, _ in keys)),
            "chunk": struct.pack(f"<{len(keys)}Q", *(chunk for _, chunk in keys)),
            "count": struct.pack(f"<{len(keys)}Q", *[1] * len(keys)),
            "part": table["part"],
            "step": bytes(4 * len(keys)),
        }
        return {"parts": parts, "placement": placement}


class _RebuiltPaged(BuiltPaged):
    """A checkpoint built anew from the stored bytes of another."""

    def __init__(self, described: Checkpoint, rows: list[Row]) -> None:
        super().__init__(described)
        self._rows = rows

    def rows(self) -> list[Row]:
        return self._rows


def _u64(column: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(column) // 8}Q", column))
