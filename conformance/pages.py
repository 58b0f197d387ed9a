"""Pages and stacks as a canonical writer puts them (SPEC.md sections 7.1, 7.2), apart from the package `ckptfmt`."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from .model import Tensor
from .packing import pack

STACKED = 65_536  # bytes from which on a tensor stands in no stack [STACK-001]
TOGETHER = 4_194_304  # bytes of a chunk of a stack [STACK-003]


class Paging(NamedTuple):
    """How much one page holds. A canonical writer has these [PAGE-011], a reader has to accept any."""

    tensors: int = 4096
    size: int = 65_536


# ---- the tree


class Cut:
    """A tree that is cut: `root` stands in the manifest, `pages` apart from it; `first` is the number of the first."""

    def __init__(self, tree: Any, first: int, size: int) -> None:
        self.first, self.size = first, size
        self.pages: list[bytes] = []
        self.root = self.node(tree)

    def node(self, node: Any) -> Any:
        """A node, cut from the leaves up. [PAGE-011]"""
        match node:
            case ["dict", keys, items]:
                items = [self.node(item) for item in items]
                if len(pack(["dict", keys, items])) <= self.size:
                    return ["dict", keys, items]
                sizes = [len(pack(key)) + len(pack(item)) for key, item in zip(keys, items, strict=True)]
                return self.joined([["dict", keys[run], items[run]] for run in self.runs(sizes)], ["dict", keys, items])
            case ["list" | "tuple" as kind, items]:
                items = [self.node(item) for item in items]
                if len(pack([kind, items])) <= self.size:
                    return [kind, items]
                runs = [[kind, items[run]] for run in self.runs([len(pack(item)) for item in items])]
                return self.joined(runs, [kind, items])
            case ["tag", name, param, child]:
                return ["tag", name, param, self.node(child)]
        return node if len(pack(node)) <= self.size else self.page(node)

    def runs(self, sizes: list[int]) -> Iterator[slice]:
        start = 0
        while start < len(sizes):
            stop, taken = start + 1, sizes[start]
            while stop < len(sizes) and taken + sizes[stop] <= self.size:
                taken, stop = taken + sizes[stop], stop + 1
            yield slice(start, stop)
            start = stop

    def joined(self, runs: list[Any], whole: Any) -> Any:
        if len(runs) < 2:
            return whole
        return ["joined", [self.page(run) for run in runs], [len(run[-1]) for run in runs]]

    def page(self, node: Any) -> Any:
        self.pages.append(pack(node))
        return ["page", self.first + len(self.pages) - 1]


def has_plain_keys(node: Any) -> bool:
    """[PAGE-008]"""
    match node:
        case ["dict", keys, items]:
            return all(_is_plain(key) for key in keys) and all(map(has_plain_keys, items))
        case ["list" | "tuple", items]:
            return all(map(has_plain_keys, items))
        case ["tag", _, _, child]:
            return has_plain_keys(child)
    return True


def _is_plain(key: Any) -> bool:
    if not isinstance(key, str):
        return True
    digits = key.removeprefix("-")
    return key != "" and "/" not in key and not (digits != "" and set(digits) <= set("0123456789"))


# ---- pages of tensors


def tensor_pages(
    names: list[str], tensors: list[Tensor], codecs: list[int], tables: list[dict[str, Any]], rows: int
) -> list[dict[str, Any]]:
    """The pages of `rows` tensors each; `codecs`: the number of each one's chain; `tables`: the chunks of each page."""
    found = []
    for table, start in zip(tables, range(0, len(names), rows), strict=True):
        kinds: list[Any] = []
        column = []
        for tensor, codec in zip(tensors[start : start + rows], codecs[start : start + rows], strict=True):
            kind = (tensor.dtype, list(tensor.shape), list(tensor.chunk_shape), codec)
            kinds += [] if kind in kinds else [kind]
            column.append(kinds.index(kind))
        columns = map(list, zip(*kinds, strict=True))
        found.append(
            {
                "name": "".join(f"{name}\n" for name in names[start : start + rows]).encode(),
                "kinds": dict(zip(("dtype", "shape", "grid", "codec"), columns, strict=True)),
                "kind": struct.pack(f"<{len(column)}I", *column),
                "chunks": table,
            }
        )
    return found


def listed(pages: list[dict[str, Any]]) -> dict[str, Any]:
    """What a paged manifest says of `tensors`. [PAGE-004]"""
    names = [page["name"].decode().split("\n") for page in pages]
    return {
        "first": [first for first, *_ in names],
        "count": struct.pack(f"<{len(pages)}Q", *(len(some) - 1 for some in names)),
        "chunks": struct.pack(f"<{len(pages)}Q", *(len(page["chunks"]["length"]) // 8 for page in pages)),
    }


def placed(offset: int, pages: list[bytes]) -> dict[str, Any]:
    """What it says of `pages`. [PAGE-002]"""
    return {
        "offset": offset,
        "length": struct.pack(f"<{len(pages)}Q", *map(len, pages)),
        "sha256": b"".join(hashlib.sha256(page).digest() for page in pages),
    }


# ---- stacks


class Stack(NamedTuple):
    """Small tensors that are alike, by their numbers, and how many of them stand in one chunk."""

    like: Tensor
    numbers: list[int]
    rows: int

    @property
    def name(self) -> str:
        """[STACK-002]"""
        return f"{self.like.dtype}-{'x'.join(map(str, self.like.shape)) or 'scalar'}"

    def member(self, chunk: int) -> str:
        return "/".join(["stacks", self.name, "c", str(chunk), *["0"] * len(self.like.shape)])

    def chunks(self) -> Iterator[tuple[str, list[int]]]:
        """The member of each chunk, and the tensors in it. [STACK-003]"""
        for chunk, start in enumerate(range(0, len(self.numbers), self.rows)):
            yield self.member(chunk), self.numbers[start : start + self.rows]


def is_stacked(tensor: Tensor) -> bool:
    """[STACK-001]"""
    return tensor.chain is None and len(tensor.chunk_keys()) == 1 and _size(tensor) < STACKED


def stacks_of(tensors: list[Tensor]) -> list[Stack]:
    """In C-string order of their names. [STACK-004]"""
    groups: dict[Any, list[int]] = {}
    for number, tensor in enumerate(tensors):
        if is_stacked(tensor):
            groups.setdefault((tensor.dtype, tensor.shape), []).append(number)
    found = []
    for numbers in groups.values():
        like = tensors[numbers[0]]
        count = -(-len(numbers) * _size(like) // TOGETHER)
        found.append(Stack(like, numbers, -(-len(numbers) // count)))
    return sorted(found, key=lambda stack: stack.name)


def _size(tensor: Tensor) -> int:
    size = tensor.row.size
    for side in tensor.chunk_shape:
        size *= side
    return size
