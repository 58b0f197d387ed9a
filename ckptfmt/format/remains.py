"""What is whole of a paged manifest of which pages are damaged (SPEC.md section 7.1), as a manifest without pages.

The names of tensors say where in the tree they stand, so that a tensor of which a whole page tells has a place even
where the page of the tree is damaged: among dicts and lists, as what these were is lost with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

from ..errors import CkptError
from . import tree
from .documents import bad
from .earliest import earliest_format
from .manifest import Manifest
from .names import Key, Path, unescape
from .node import Node
from .paged_manifest import PagedTree
from .placement import Placement, placement_of
from .tensor_pages import TensorPages
from .tree import MAX_DEPTH, decode_keys
from .tree_pages import TreePages

_GONE: Any = object()  # stands for what lies in a damaged page


class Remains(NamedTuple):
    """A `manifest` of what is whole, what is wrong with each damaged page, and where tensors stood of which no whole
    page tells, as far as the tree says."""

    manifest: Manifest
    damage: tuple[CkptError, ...]
    lost: tuple[Path, ...]


def remains_of(manifest: Manifest) -> Remains | None:
    """What is whole of a paged manifest; None where no page is damaged, or it has none. Raises what is wrong with whole
    pages, and where not one of them tells of the tree or of tensors what is wrong with the first that is damaged."""
    root, tensors = manifest.root, manifest.pages
    if not isinstance(root, PagedTree) or tensors is None:
        return None
    pages = tensors.damaged() | root.pages.damaged()
    if not pages:
        return None
    node = _Rest(root.pages, pages).node
    whole = [at for at in range(len(tensors)) if at not in pages]
    if node is _GONE and not whole:
        raise pages[min(pages)]
    numbers = list(chain.from_iterable(map(tensors.numbers, whole)))
    new = {number: at for at, number in enumerate(numbers)}
    lost: dict[int, Path] = {}
    node = _renumbered(node, new, (), lost)
    names = tuple(chain.from_iterable(tensors.page(at).names for at in whole))
    node = _with_homes(node, names)
    specs = tuple(chain.from_iterable(tensors.page(at).specs for at in whole))
    tree.check(node, [spec.dtype.name for spec in specs])
    version = earliest_format(specs, node, manifest.metadata)
    rest = manifest._replace(root=node, names=names, specs=specs, requires=(), format=version)
    rest = rest._replace(parts=tensors.parts_in(whole), placement=_placement(rest, tensors, whole))
    return Remains(rest, tuple(pages[at] for at in sorted(pages)), tuple(lost.values()))


def _placement(rest: Manifest, tensors: TensorPages, whole: list[int]) -> Placement | None:
    """Which part has which chunk, where there may be several."""
    if rest.layout != "packed":
        return None
    return placement_of(tensors.numbers_of_parts(whole), rest.first_chunks)


class _Rest:
    """A tree without what lies in the damaged of its pages: entries of dicts are gone, items of lists and tuples
    None."""

    def __init__(self, pages: TreePages, damaged: Mapping[int, CkptError]) -> None:
        self._pages, self._damaged = pages, damaged
        self.node = self._rest(pages.root, pages.stop, 0)

    def _rest(self, node: Node, below: int, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise bad(f"nested deeper than {MAX_DEPTH} [TREE-012]")
        match node:
            case ["page", int(number)]:
                if not self._pages.first <= number < below:
                    raise bad("no such page, or not here [PAGE-006]")
                return _GONE if number in self._damaged else self._rest(self._pages.node(number), number, depth)
            case ["joined", [*pieces], [*counts]] if pieces and len(counts) == len(pieces):
                return _joined([self._rest(piece, below, depth) for piece in pieces], counts)
            case ["dict", [*keys], [*items]] if len(keys) == len(items):
                rests = [(key, self._rest(item, below, depth + 1)) for key, item in zip(keys, items, strict=True)]
                left = [(key, item) for key, item in rests if item is not _GONE]
                return ["dict", [key for key, _ in left], [item for _, item in left]]
            case ["list" | "tuple" as kind, [*items]]:
                rests = [self._rest(item, below, depth + 1) for item in items]
                return [kind, [None if item is _GONE else item for item in rests]]
            case ["tag", name, param, child]:
                child = self._rest(child, below, depth + 1)
                return _GONE if child is _GONE else ["tag", name, param, child]
        return node


def _joined(pieces: list[Node], counts: list[Node]) -> Node:
    """What is left of a container of which pieces may be gone; None for each item that a list or tuple lacks."""
    found = [piece for piece in pieces if piece is not _GONE]
    if not found:
        return _GONE
    kinds = {piece[0] if type(piece) is list and piece else None for piece in found}
    if len(kinds) != 1 or not kinds <= {"dict", "list", "tuple"} or not all(type(count) is int for count in counts):
        raise bad("what is joined is of different kinds, or no container [PAGE-007]")
    if kinds == {"dict"}:
        return ["dict", [*chain.from_iterable(p[1] for p in found)], [*chain.from_iterable(p[2] for p in found)]]
    items = ([None] * count if p is _GONE else p[1] for p, count in zip(pieces, counts, strict=True))
    return [*kinds, [*chain.from_iterable(items)]]


def _renumbered(node: Node, new: Mapping[int, int], path: Path, lost: dict[int, Path]) -> Node:
    """A tree with the new numbers of tensors, without those that have none, which are `lost`."""
    match node:
        case ["tensor", number]:
            if number in new:
                return ["tensor", new[number]]
            lost.setdefault(number, path)
            return _GONE
        case ["dict", keys, items]:
            found = [
                _renumbered(item, new, (*path, key), lost) for key, item in zip(decode_keys(keys), items, strict=True)
            ]
            left = [(key, item) for key, item in zip(keys, found, strict=True) if item is not _GONE]
            return ["dict", [key for key, _ in left], [item for _, item in left]]
        case ["list" | "tuple" as kind, items]:
            found = [_renumbered(item, new, (*path, at), lost) for at, item in enumerate(items)]
            return [kind, [None if item is _GONE else item for item in found]]
        case ["tag", name, param, child]:
            child = _renumbered(child, new, path, lost)
            return _GONE if child is _GONE else ["tag", name, param, child]
    return node


# ---- tensors that the tree does not name any more


def _with_homes(node: Node, names: tuple[str, ...]) -> Node:
    """A tree with every tensor in it: those that it lacks stand where their names say."""
    named: set[int] = set()
    _collect(node, named)
    homeless = {unescape(name): number for number, name in enumerate(names) if number not in named}
    found = _placed(node, homeless) if homeless else node
    return ["dict", [], []] if found is _GONE else found


def _collect(node: Node, named: set[int]) -> None:
    match node:
        case ["tensor", number]:
            named.add(number)
        case ["dict", _, items] | ["list" | "tuple", items]:
            for item in items:
                if type(item) is list:
                    _collect(item, named)
        case ["tag", _, _, child]:
            _collect(child, named)


def _placed(node: Node, leaves: Mapping[Path, int]) -> Node:
    """A node with tensors at these paths below it."""
    if () in leaves:
        return ["tensor", leaves[()]]
    groups: dict[Key, dict[Path, int]] = {}
    for path, number in leaves.items():
        groups.setdefault(path[0], {})[path[1:]] = number
    match node:
        case ["tag", name, param, child]:
            return ["tag", name, param, _placed(child, leaves)]
        case ["dict", keys, items]:
            found = dict(zip(decode_keys(keys), items, strict=True))
            known = dict(zip(decode_keys(keys), keys, strict=True))
            found |= {key: _placed(found.get(key, _GONE), group) for key, group in groups.items()}
            return ["dict", [known.get(key, key) for key in found], list(found.values())]
        case ["list" | "tuple" as kind, items] if all(type(key) is int and key < len(items) for key in groups):
            group_of = groups.get
            return [kind, [_placed(item, group) if (group := group_of(at)) else item for at, item in enumerate(items)]]
    items = {key: _placed(_GONE, group) for key, group in groups.items()}
    if set(items) == set(range(len(items))):
        return ["list", [items[at] for at in range(len(items))]]
    return ["dict", list(items), list(items.values())]
