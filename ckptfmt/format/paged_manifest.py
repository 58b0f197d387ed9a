"""The paged manifest (SPEC.md section 7.1): a small document that says where the pages of names, specs, chunk tables
and the tree are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from ..errors import CkptError
from . import tree
from .chunk_table import ChunkTable
from .digests import Digest, digest_named
from .documents import bad
from .dtypes import Array
from .manifest import PAGED_FORMAT, PAGES, PATCH, Manifest, Part, decode_schema, decoded_with, fingerprint
from .names import Key, Path, check_paths, name_of, path_label
from .node import Node, PagedNode
from .pages import OBJECT, ReadBytes, decode_pages, encode_pages
from .tensor_pages import Column, PagedObject, TensorPages, decode_tensors, encode_tensors
from .tree import decode_key, exact_in, has_plain_keys
from .tree_pages import Cutter, TreePages

if TYPE_CHECKING:
    from .summary import Summary

LEAST_TENSORS, LEAST_TREE = 8192, 1 << 20  # tensors, or bytes of a tree, from which on a manifest is paged [PAGE-010]


class PagedTree(PagedNode):
    """The tree of a paged manifest."""

    def __init__(self, pages: TreePages, tensors: TensorPages, has_plain_keys: bool, fingerprint: bytes) -> None:
        self.pages, self._tensors, self.has_plain_keys = pages, tensors, has_plain_keys
        self.fingerprint = fingerprint  # that of the schema

    @cached_property
    def whole(self) -> Node:
        node = self.pages.whole
        tree.check(node, [spec.dtype.name for spec in self._tensors.specs])
        return node

    def damage(self) -> Iterator[CkptError]:
        yield from self.pages.damaged().values()

    def exact(self, path: Key | Path) -> Path | None:
        return exact_in(path, self.has_plain_keys)

    def leaf(self, path: Path) -> Node | None:
        node = self.pages.leaf(path)
        if node is not None:
            tree.check_leaf(node, Column(self._tensors, lambda page: [spec.dtype.name for spec in page.specs]))
        return node


class PagedParts(Sequence[Part]):
    """The parts of a paged checkpoint, whose tables are made of all pages when one is asked for."""

    def __init__(self, pages: TensorPages) -> None:
        self.pages = pages

    def __len__(self) -> int:
        return len(self.pages.objects)

    def __getitem__(self, index: Any) -> Any:
        return self.pages.parts[index]


def decode_paged(
    document: Mapping[str, Any],
    version: tuple[int, int],
    layout: str,
    memory: int | None,
    read: ReadBytes | None,
    largest: int,
) -> Manifest:
    """Check what the manifest says by itself; pages are checked when they are read. [PAGE-001] to [PAGE-008]"""
    if version < PAGED_FORMAT or "placement" in document or read is None:
        raise bad("a paged manifest has version 1.1 or later, and no `placement` [PAGE-001]")
    if PATCH in document["requires"]:
        raise bad("the manifest of a patch is not paged [PATCH-001]")
    digest = digest_named(document["digest"])
    plain = document.get("plain_keys")
    if type(plain) is not bool:
        raise bad("`plain_keys` is missing or of another type [PAGE-008]")
    packs = _packs(document["parts"], layout, digest)
    pages = decode_pages(document.get("pages"), layout, read, memory, largest)
    tensors = decode_tensors(document["tensors"], pages, document["codecs"], digest, document["block"], packs)
    tree.check(document["metadata"], ())
    schema, expected = decode_schema(document["schema"])
    root = PagedTree(TreePages(document["tree"], pages, len(tensors)), tensors, plain, expected)
    columns = tensors.names, tensors.specs, PagedParts(tensors)
    return decoded_with(document, version, root, *columns, schema)


def _packs(parts: list[Any], layout: str, digest: Digest) -> list[PagedObject] | None:
    """The packs of layout `packed`, whose tables stand in the pages; None in the others. [PAGE-017] [LAY-004]"""
    if bool(parts) != (layout == "packed"):
        raise bad("a paged manifest has parts in layout 'packed', and only there [PAGE-001]")
    packs = []
    for part in parts:
        match part:
            case {"object": str(name), "size": int(size), "frame": bytes(frame), "chunks": None} if (
                type(size) is int and 0 <= size < 1 << 63 and len(frame) == digest.size
            ):
                packs.append(PagedObject(name, size, size, frame))
            case _:
                raise bad("a part lacks a key, or has one of another type or size [PAGE-017] [MAN-011]")
    check_paths([OBJECT, *(pack.object or "" for pack in packs)])
    return packs or None


class Paged(NamedTuple):
    """A manifest as it will be written: its pages, and what its document says beside where they are."""

    manifest: Manifest
    pages: list[bytes]
    tree: Node
    tensors: dict[str, Any]
    chains: list[Any]

    def encode(self, offset: int) -> bytes:
        """The document, whose pages lie from `offset` on."""
        more = {"pages": encode_pages(offset, self.pages), "plain_keys": has_plain_keys(self.manifest.tree)}
        parts = [] if self.manifest.layout != "packed" else [_encoded_pack(part) for part in self.manifest.parts]
        return self.manifest.encode_with(self.tree, self.chains, self.tensors, parts, **more)


def _encoded_pack(part: Part) -> dict[str, Any]:
    """A part whose table stands in pages. [PAGE-017]"""
    return {"object": part.object, "size": part.size, "frame": part.frame, "chunks": None}


def paged(
    manifest: Manifest,
    table: ChunkTable,
    parts: Array | None = None,
    found: Sequence[Summary | None] | None = None,
) -> Paged:
    """A manifest, whose names are in order, in pages: the `table` of all chunks, in layout `packed` the number of each
    one's part, and what was seen of each tensor. [PAGE-009] [STAT-001]"""
    tensors, chains, pages = encode_tensors(manifest.names, manifest.specs, table, parts, found)
    cutter = Cutter(len(pages))
    root = cutter.cut(manifest.tree)
    return Paged(
        manifest._replace(format=max(manifest.format, PAGED_FORMAT), requires=(PAGES,)),
        [*pages, *cutter.pages],
        root,
        tensors,
        chains,
    )


def is_paged(names: Sequence[str], root: Node) -> bool:
    """Whether a canonical writer pages a manifest. [PAGE-010]"""
    return len(names) >= LEAST_TENSORS or len(msgpack.packb(root)) >= LEAST_TREE


def check_whole(manifest: Manifest) -> None:
    """Refuse a paged manifest in which pages contradict each other, or the document; reads all of them.
    [PAGE-005] [PAGE-008] [PAGE-009] [CHK-005] [SCH-002]"""
    root = manifest.root
    if not isinstance(root, PagedTree):
        return
    for tensor, path in _first_paths(root.whole, (), set()):
        if not _is_name(manifest.names[tensor], path):
            found = manifest.names[tensor]
            raise bad(f"the tensor at {path_label(path)!r:.200} is called {found!r:.200} [PAGE-005]")
    if root.has_plain_keys != has_plain_keys(root.whole):
        raise bad(f"`plain_keys` is {root.has_plain_keys}, and the keys are not so [PAGE-008]")
    assert manifest.pages is not None
    _ = manifest.pages.parts  # whose extents are checked
    if manifest.schema is not None and fingerprint(manifest.names, manifest.specs) != root.fingerprint:
        raise bad("the schema's fingerprint is not that of the tensors [SCH-002]")


def _is_name(name: str, path: Path) -> bool:
    """Whether a tensor that is first met at a path has the right name."""
    try:
        return name_of(path) == name
    except CkptError:  # no name is so long
        return False


def _first_paths(node: Node, path: Path, met: set[int]) -> Iterator[tuple[int, Path]]:
    """The number of each tensor of a checked tree, and its first path."""
    match node:
        case ["tensor", number] if number not in met:
            met.add(number)
            yield number, path
        case ["dict", keys, items]:
            for key, item in zip(keys, items, strict=True):
                if type(item) is list:
                    yield from _first_paths(item, (*path, decode_key(key)), met)
        case ["list" | "tuple", items]:
            for number, item in enumerate(items):
                if type(item) is list:
                    yield from _first_paths(item, (*path, number), met)
        case ["tag", _, _, child]:
            yield from _first_paths(child, path, met)
