"""What a writer wrote with a paged manifest, judged: pages, and stacks. SPEC.md sections 7.1 and 7.2."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .build import Built, BuiltPaged, Checkpoint
from .judge import Judged
from .model import Value, bytes_form
from .packing import unpack
from .pages import Paging, has_plain_keys, is_stacked, stacks_of
from .zip_writer import Row


@dataclass
class Paged(Judged):
    """The statements that are not those of another `file`."""

    pages: list[bytes] = field(default_factory=list)
    met: set[int] = field(default_factory=set)
    version: ClassVar[tuple[int, int]] = (1, 1)
    requires: ClassVar[tuple[str, ...]] = ("pages",)

    def manifest(self) -> None:
        """Once pages are judged the document is that of one that is not paged."""
        super().manifest()
        document = self.document
        self.need({"pages", "plain_keys"} <= set(document), "`pages` or `plain_keys` is missing [PAGE-001]")
        self.need(document["parts"] == [], "a paged manifest with parts [PAGE-001]")
        self.stored_pages(document["pages"])
        tree = self.joined(document["tree"], len(self.pages), top=False)
        count = len(document["tensors"]["first"])
        self.hold(self.met == set(range(count, len(self.pages))), "a page is referred to nowhere [PAGE-006]")
        self.hold(document["plain_keys"] is has_plain_keys(tree), "`plain_keys` is not as the keys are [PAGE-008]")
        columns, table = self.tensor_pages(document["tensors"])
        part = {"object": "", "size": None, "frame": None, "chunks": table}
        self.document = {**document, "tree": tree, "tensors": columns, "parts": [part]}

    def stored_pages(self, placed: dict[str, Any]) -> None:
        """[PAGE-002] [PAGE-003]"""
        lengths, at = _u64(placed["length"]), placed["offset"]
        self.need(len(placed["sha256"]) == 32 * len(lengths), "the columns of `pages` differ in length [PAGE-002]")
        for number, length in enumerate(lengths):
            page = self.files[""][at : at + length]
            self.hold(length and at + length <= self.start, f"page {number} lies in the manifest [PAGE-002]")
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
        table: dict[str, Any] = {"tensor": None, "chunk": None, "offset": b"", "length": b"", "digest": b""}
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
            for key in ("offset", "length", "digest"):
                table[key] += page["chunks"][key]
        names = columns["name"]
        self.hold(names == sorted(set(names)), "tensors are not in the order of their names [PAGE-005]")
        return columns, table

    def numbering(self) -> None:
        self.hold(sorted(self.paths) == list(range(len(self.tensors))), "a tensor stands nowhere [TREE-009]")

    # ---- stacks

    def stack_places(self) -> dict[str, tuple[int, list[int]]]:
        """Where the chunks of stacks begin, and the tensors in each. [STACK-001] to [STACK-003]"""
        lows = {row.tensor: low for row, (low, _) in zip(self.rows, self.extents, strict=True)}
        found = {}
        for stack in stacks_of(self.tensors):
            for member, numbers in stack.chunks():
                low, size = lows[numbers[0]], len(self.tensors[numbers[0]].data)
                rows = [low + at * size for at in range(len(numbers))]
                self.hold(rows == [lows[number] for number in numbers], f"tensors are no rows of {member} [STACK-003]")
                found[member] = (low, numbers)
        return found

    def places(self) -> dict[str, int]:
        alone = {
            row.member: low
            for row, (low, _) in zip(self.rows, self.extents, strict=True)
            if not is_stacked(self.tensors[row.tensor])
        }
        return alone | {member: low for member, (low, _) in self.stack_places().items()}

    def arrays(self) -> dict[str, Value]:
        stacked = {name for name, tensor in zip(self.names, self.tensors, strict=True) if is_stacked(tensor)}
        return {name: value for name, value in super().arrays().items() if name not in stacked}

    def stacked(self) -> dict[tuple[str, str], Value]:
        found: dict[tuple[str, str], Value] = {}
        for stack in stacks_of(self.tensors):
            data = b"".join(self.tensors[number].data for number in stack.numbers)
            shape = [len(stack.numbers), *stack.like.storage_shape]
            value = {"type": "tensor", "dtype": stack.like.row.storage, "shape": shape, **bytes_form(data)}
            found["stacks", stack.name] = value
        return found

    # ---- the rest

    def wanted_documents(self) -> dict[str, bytes]:
        return BuiltPaged(self.described()).texts()

    def further_members(self, found: set[str]) -> None:
        """Pages may stand where the writer likes, in a member of that name if it is canonical. [PAGE-012]"""
        self.hold(
            found == {"pages.bin"} or (not self.canonical and len(found) < 2), f"further members: {found} [PAGE-012]"
        )

    def besides(self) -> list[tuple[int, int]]:
        return [self.extent_of_pages]

    def described(self) -> Checkpoint:
        found = super().described()
        found.paged, found.version = Paging(), self.version
        return found

    def rebuilt(self) -> Built:
        return _RebuiltPaged(self.described(), self.rows)


class _RebuiltPaged(BuiltPaged):
    """A checkpoint built anew from the stored bytes of another."""

    def __init__(self, described: Checkpoint, rows: list[Row]) -> None:
        super().__init__(described)
        self._rows = rows

    def rows(self) -> list[Row]:
        return self._rows


def _u64(column: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(column) // 8}Q", column))
