"""Tags over tensors through a migration: where they stand in the result (MIG-021). Pure.

Params are nodes, as in a manifest. A tag goes where the whole node that it stands over has gone; the versions of a
state dict's modules go module by module.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from ..format import tree as trees
from ..format.names import Path, value_at
from ..format.node import Restore
from ..format.renaming import Renaming
from ..format.tags import NATIVE, TAGS, child_of
from ..format.tree import AppliedTag, Tree
from ..reading.below import below
from .containers import leaves_of
from .nodes import Copied, Leaf, origins
from .plan import PlainLeaf

TagNodes = Mapping[Path, list[AppliedTag]]  # at one path the outermost first

_CONTAINERS = (dict, OrderedDict, list, tuple)
VERSIONS = "torch.state_dict"  # its param has the name of each module
FIRST = {"version": 1}


def over_tensors(node: Any) -> TagNodes:
    """The tags of a manifest's tree that stand over tensors, but for those that the values of NumPy have."""
    tensors = {path[:n] for path, one in trees.leaves(node) if _is_tensor(one) for n in range(len(path) + 1)}
    found: dict[Path, list[AppliedTag]] = {}
    for path, name, param in trees.tags(node):
        if path in tensors and name not in NATIVE and not (name in TAGS and TAGS[name].is_leaf):
            found.setdefault(path, []).append((name, param))
    return found


def _is_tensor(node: Any) -> bool:
    return type(node) is list and node[0] == "tensor"


class Followed(NamedTuple):
    """The tags of a result; each tag that is left out; and the names of modules whose versions are, and say something:
    1 is what every module has whose code never read its tensors otherwise, and the same as none."""

    tags: TagNodes
    lost: list[AppliedTag]
    modules: list[str]


def followed(tags: TagNodes, source: Tree, result: Tree) -> Followed:
    """Where the tags of a source stand in what a plan makes of it; both are trees with entries."""
    places = _Places(tags, source, result)
    found: dict[Path, list[AppliedTag]] = {}
    lost: list[AppliedTag] = []
    modules: list[str] = []
    for path, over in tags.items():
        here = places.of_whole(path)
        for tag in over:
            to, new = here, tag
            if not here and tag[0] == VERSIONS:
                to, new, left = _versions(path, tag, places)
                modules += left
            elif tag[0] in TAGS and TAGS[tag[0]].binds:
                to = [one for one in here if places.is_same(path, one)]
            for one in to:
                found.setdefault(one, []).append(new)
            lost += [] if to else [tag]
    return Followed(found, lost, modules)


class _Places:
    """Where the entries of a source stand in a result."""

    def __init__(self, tagged: Iterable[Path], source: Tree, result: Tree) -> None:
        self.trees = source, result
        self.source, self.result = dict(leaves_of(source)), dict(leaves_of(result))
        self.inside = dict(zip(tagged, below(self.source, tagged), strict=True))
        self._sizes = Counter(path[:n] for path in self.result for n in range(len(path) + 1))
        self._same: dict[Any, list[Path]] = {}  # the paths of what is bit for bit an entry of the source
        self._made: dict[Any, list[Path]] = {}  # the paths of what is made of it
        for path, entry in self.result.items():
            self._same.setdefault(_identity(entry), []).append(path)
            for key in _origins(entry):
                self._made.setdefault(key, []).append(path)

    def of_whole(self, at: Path) -> list[Path]:
        """The paths of a node of the source: those to which all of it was moved, else its own, if its names stayed."""
        first, entry = next(iter(self.inside[at].items()))
        rest = first[len(at) :]
        ends = self._same.get(_identity(entry), [])
        starts = [end[: len(end) - len(rest)] for end in ends if end[len(end) - len(rest) :] == rest]
        moved = [start for start in starts if self._fits(at, start) and self.is_same(at, start)]
        if moved:
            return moved
        if self._fits(at, at) and all(map(self._stays, self.inside[at])):
            return [at]
        landing = self.landing(at) if at in self.source else None
        return [] if landing is None else [landing]

    def _fits(self, at: Path, place: Path) -> bool:
        """Whether as much is at a place of the result, in a container of the same kind."""
        return self._sizes[place] == len(self.inside[at]) and _kind(self.trees[0], at) is _kind(self.trees[1], place)

    def _stays(self, path: Path) -> bool:
        """Whether nothing else has taken the name of a leaf of the source."""
        before, now = self.source[path], self.result.get(path)
        if now is None or isinstance(before, PlainLeaf) or isinstance(now, PlainLeaf):
            return now is before
        return not _origins(now) or _identity(before) in _origins(now)

    def is_same(self, at: Path, place: Path) -> bool:
        """Whether what was at one path is, bit for bit, at another."""
        ends = ((before, self.result.get((*place, *path[len(at) :]))) for path, before in self.inside[at].items())
        return all(now is not None and _identity(now) == _identity(before) for before, now in ends)

    def landing(self, path: Path) -> Path | None:
        """Where a leaf of the source went: what is made of it and of nothing else; its own path, if that is among
        several. None if it is in parts, in others or gone."""
        ends = [end for end in self._ends(path) if len(_origins(self.result[end])) == 1]
        return path if path in ends else ends[0] if len(ends) == 1 else None

    def is_gone(self, path: Path) -> bool:
        return not self._ends(path)

    def _ends(self, path: Path) -> list[Path]:
        return self._made.get(_identity(self.source[path]), [])


def _identity(entry: Any) -> Any:
    """Equal for entries that are bit for bit the same entry of the source; of what is computed, itself."""
    while isinstance(entry, Copied):
        entry = entry.input
    if isinstance(entry, Leaf):
        return entry.key
    return id(entry) if isinstance(entry, PlainLeaf | dict | list | tuple) else entry


def _origins(entry: Any) -> set[Any]:
    """The identities of what an entry is made of."""
    return {_identity(entry)} if isinstance(entry, PlainLeaf | dict | list | tuple) else origins(entry)


def _kind(tree: Tree, path: Path) -> type | None:
    """Whether a dict, a list, a tuple or a leaf is at a path."""
    value = value_at(tree, path)
    return next(
        (kind for kind in (dict, list, tuple) if type(value) is not PlainLeaf and isinstance(value, kind)), None
    )


def _versions(at: Path, tag: AppliedTag, places: _Places) -> tuple[list[Path], AppliedTag, list[str]]:
    """A state dict's versions under the names that its modules got: where the dict is, the tag, and the modules whose
    tensors went apart, and with them a version that is to be told."""
    name, (_, modules, versions) = tag
    ends = {path: places.landing(path) for path in places.inside[at]}
    dicts = {end[: len(end) - len(path) + len(at)] for path, end in ends.items() if end}
    if len(dicts) != 1 or _kind(places.trees[1], next(iter(dicts))) is not dict:
        return [], tag, []
    (place,) = dicts
    tops = {path: end for path, end in ends.items() if len(path) == len(at) + 1 and not places.is_gone(path)}
    moved = {path[-1]: end and end[-1] for path, end in tops.items()}
    gone = {path[-1] for path in ends.keys() - tops.keys()}
    renamed, left = _renamed(modules, moved, gone)
    of = dict(zip(modules, versions, strict=True))
    pairs = {renamed[one]: version for one, version in of.items() if one in renamed}
    told = [one for one in left if plain_value(of[one]) != FIRST]
    return [place], (name, ["dict", list(pairs), list(pairs.values())]), told


def _renamed(
    modules: Iterable[str], moved: Mapping[Any, Any], gone: Collection[Any]
) -> tuple[dict[str, str], list[str]]:
    """The new names of modules, by those of their tensors (None for what went apart), and the modules that have none.
    What has no tensors of its own goes with those below it, else with the one that it is in."""
    found: dict[str, str] = {"": ""}
    left: list[str] = []
    for module in modules:
        prefix = f"{module}."
        inside = {key: new for key, new in moved.items() if isinstance(key, str) and key.startswith(prefix)}
        own = {key: new for key, new in inside.items() if "." not in key[len(prefix) :]}
        starts = {_start(new, key[len(module) :]) for key, new in (own or inside).items()}
        if len(starts) == 1 and None not in starts:
            found[module] = starts.pop() or ""
        elif own:
            left.append(module)
        elif module and (inside or not any(isinstance(key, str) and key.startswith(prefix) for key in gone)):
            above, _, last = module.rpartition(".")
            found[module] = f"{found[above]}.{last}" if found.get(above) else module
    return found, left


def _start(name: Any, rest: str) -> str | None:
    """The name of the module of which a tensor has a name, given the rest of that; None if it has another rest."""
    full = f".{name}"
    return full[: -len(rest)].removeprefix(".") if isinstance(name, str) and full.endswith(rest) else None


def renamed(tree: Tree, tags: TagNodes, renaming: Renaming, checkpoint: str) -> tuple[Tree, TagNodes]:
    """The tree and its tags under other names; raises `no-such-path` and `bad-option`."""
    leaves: list[Any] = []
    node = renaming.node(node_of(tree, tags, leaves), checkpoint)
    children = dict.fromkeys({name for _, name, _ in trees.tags(node)} - NATIVE, child_of)
    return trees.decode(node, leaves.__getitem__, restores=children), over_tensors(node)


def tagged(tree: Tree, tags: TagNodes, restores: Mapping[str, Restore]) -> Tree:
    """The tree with the values of its tags: as `restores` or the format make them, else their children, with a
    warning."""
    if not tags:
        return tree
    leaves: list[Any] = []
    return trees.decode(node_of(tree, tags, leaves), leaves.__getitem__, restores=restores)


def node_of(tree: Any, tags: TagNodes, leaves: list[Any]) -> Any:
    """A tree with tags as the node of a manifest, in which every leaf is a tensor: its number in `leaves`, one for each
    that is the same."""
    numbers = {id(leaf): number for number, leaf in enumerate(leaves)}

    def node(value: Any, path: Path) -> Any:
        made: Any
        if isinstance(value, dict) and _is_container(value):
            made = ["dict", list(value), [node(item, (*path, key)) for key, item in value.items()]]
            if type(value) is not dict or any(name == VERSIONS for name, _ in tags.get(path, ())):
                made = ["tag", "collections.OrderedDict", None, made]
        elif _is_container(value):
            made = [type(value).__name__, [node(item, (*path, i)) for i, item in enumerate(value)]]
        else:
            if id(value) not in numbers:
                numbers[id(value)] = len(leaves)
                leaves.append(value)
            made = ["tensor", numbers[id(value)]]
        for name, param in reversed(tags.get(path, ())):
            made = ["tag", name, param, made]
        return made

    return node(tree, ())


def plain_value(param: Any) -> Any:
    """The value of a param."""
    return trees.decode(param, [].__getitem__)


def _is_container(value: Any) -> bool:
    return type(value) in _CONTAINERS


def said(tags: Collection[AppliedTag]) -> list[str]:
    """Tags in words, each name once, with its param where that is a class."""
    texts: dict[str, str] = {}
    for name, param in tags:
        texts.setdefault(name, f"{name} {param}" if name in TAGS and isinstance(param, str) else name)
    return list(texts.values())
