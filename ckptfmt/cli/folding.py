"""What a tree view shows of a container: many dotted names in groups, and siblings that are alike once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from .. import OMITTED
from ..format.names import Path
from . import text
from .tensors import is_tensor

ALIKE = 3  # siblings from which they are one line
DOTTED = 16  # names of one dict from which they are grouped

Notes = Mapping[Path, str]  # what is said beside a value, which makes it another one

_NUMBERED = re.compile(r"(.*?)([0-9]{1,18})('?\.?)")


class Group(NamedTuple):
    """Values of one dict whose names begin alike: the rest of each name, cut at its periods, its path and value."""

    names: tuple[tuple[tuple[str, ...], Path, Any], ...]


class FoldedLine(NamedTuple):
    """One line: its label, what it stands for, the path of that (for a group, of the dict), and how many are alike."""

    label: str
    item: Any
    path: Path
    alike: int = 1


def entries_of(container: Any, path: Path) -> list[FoldedLine]:
    """The items of a container or group, each as it is."""
    if isinstance(container, Group):
        return [FoldedLine(".".join(rest), item, place) for rest, place, item in container.names]
    items = container.items() if isinstance(container, dict) else enumerate(container)
    return [FoldedLine(text.label(key), item, (*path, key)) for key, item in items if item is not OMITTED]


def grouped(container: Any, path: Path) -> list[FoldedLine]:
    """The same, with dotted names in groups where there are many."""
    if isinstance(container, Group):
        return _groups(container.names, path)
    entries = entries_of(container, path)
    if not isinstance(container, dict):
        return entries
    names = [(_segments(entry), entry.path, entry.item) for entry in entries]
    return _groups(names, path) if sum(len(rest) > 1 for rest, _, _ in names) > DOTTED else entries


def _segments(entry: FoldedLine) -> tuple[str, ...]:
    """The label of an entry, cut where its key has periods."""
    parts = entry.label.split(".")
    return tuple(parts) if entry.label == entry.path[-1] and all(parts) else (entry.label,)


def _groups(names: Iterable[tuple[tuple[str, ...], Path, Any]], path: Path) -> list[FoldedLine]:
    """Names that begin with the same segment as one group, at the place of the first of them."""
    groups: dict[tuple[str, bool], list[tuple[tuple[str, ...], Path, Any]]] = {}
    for name in names:
        groups.setdefault((name[0][0], len(name[0]) > 1), []).append(name)
    found = []
    for members in groups.values():
        if len(members) == 1:
            ((rest, place, item),) = members
            found.append(FoldedLine(".".join(rest), item, place))
            continue
        shared = _shared([rest for rest, _, _ in members])
        label = ".".join(members[0][0][:shared])
        found.append(FoldedLine(f"{label}.", Group(tuple((rest[shared:], *more) for rest, *more in members)), path))
    return found


def _shared(names: Sequence[tuple[str, ...]]) -> int:
    """How many segments all names begin with, short of the whole of one."""
    count = min(map(len, names)) - 1
    first = names[0]
    return next((i for i in range(count) if any(name[i] != first[i] for name in names)), count)


def folded(entries: list[FoldedLine], notes: Notes) -> list[FoldedLine]:
    """Entries with those that are alike, and numbered one after the other, as one; of plain values none are."""
    found: list[FoldedLine] = []
    for _, run in groupby(enumerate(_in_order(entries)), lambda placed: _kind(placed[0], placed[1], notes)):
        alike = [entry for _, entry in run]
        if len(alike) < ALIKE:
            found += alike
            continue
        first, last = (_NUMBERED.fullmatch(entry.label) for entry in (alike[0], alike[-1]))
        assert first is not None
        assert last is not None
        quote = first[3].rstrip(".")  # the str "0" is shown as '0', and so is a span of them
        span = f"{first[1]}{first[2]}{quote}..{quote}{last[2]}{last[3]}"
        found.append(alike[0]._replace(label=span, alike=len(alike)))
    return found


def _in_order(entries: list[FoldedLine]) -> list[FoldedLine]:
    """Entries with those that are numbered in the order of their numbers: many formats sort 10 before 2."""
    places: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for place, entry in enumerate(entries):
        if numbered := _NUMBERED.fullmatch(entry.label):
            places.setdefault((numbered[1], numbered[3]), []).append((int(numbered[2]), place))
    ordered = list(entries)
    for found in places.values():
        for (_, here), (_, there) in zip(found, sorted(found), strict=True):
            ordered[here] = entries[there]
    return ordered


def _kind(place: int, entry: FoldedLine, notes: Notes) -> Any:
    """What entries have in common that are alike and follow each other, one of which stands at this place."""
    numbered = _NUMBERED.fullmatch(entry.label)
    if numbered is None or not holds_tensors(entry.item):
        return place
    return numbered[1], numbered[3], int(numbered[2]) - place, form(entry.item, entry.path, notes)


def form(item: Any, path: Path, notes: Notes) -> Any:
    """What two items have in common that are alike: structure, names, dtypes, shapes, codecs, values and notes."""
    note = None if isinstance(item, Group) else notes.get(path)
    if is_tensor(item):
        return (text.dtype(item), item.shape, item.codec, None if item.path == path else item.path, note)
    if text.is_container(item) or isinstance(item, Group):
        items = tuple((entry.label, form(entry.item, entry.path, notes)) for entry in entries_of(item, path))
        return type(item).__name__, items, note
    return type(item).__name__, text.scalar(item, 72), note


def holds_tensors(item: Any) -> bool:
    """Whether a tensor lies in it."""
    if isinstance(item, Group):
        return any(holds_tensors(value) for _, _, value in item.names)
    if not text.is_container(item):
        return is_tensor(item)
    return any(map(holds_tensors, item.values() if isinstance(item, dict) else item))
