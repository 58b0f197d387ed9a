"""A tree for people: one line for each tensor, plain value and container, in aligned columns.

Plain values are abbreviated unless asked for in full; tensors never are. Lines are not cut to the terminal's width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from .. import Tensor
from ..format.names import Path
from . import text
from .folding import FoldedLine, Group, entries_of, folded, grouped, holds_tensors
from .tensors import Foreign, is_tensor

VALUE = 72  # most characters of a plain value
SIBLINGS = 24  # most plain values shown of one container
COLUMN = 48  # widest label that the columns keep clear of

GUIDES = {"item": "├── ", "last": "└── ", "below": "│   ", "end": "    "}
ASCII_GUIDES = {"item": "|-- ", "last": "`-- ", "below": "|   ", "end": "    "}


class TreeTotals(NamedTuple):
    """What lies in a tree: tensors (aliases counted once), their elements, bytes before and after compression."""

    tensors: int = 0
    elements: int = 0
    bytes: int = 0
    stored_bytes: int = 0

    def __str__(self) -> str:
        size, stored = text.size(self.bytes), text.size(self.stored_bytes)
        counts = f"{text.count(self.tensors, 'tensor')}, {text.count(self.elements, 'element')}"
        return f"{counts}, {size}" + ("" if stored == size else f", stored in {stored}")


def tally(tree: Any) -> TreeTotals:
    """Count what lies in `tree`; what is not known to be compressed counts as it is."""
    tensors = {tensor.name: tensor for tensor in tensors_of(tree)}.values()
    return TreeTotals(
        len(tensors),
        sum(tensor.size for tensor in tensors),
        sum(tensor.nbytes for tensor in tensors),
        sum(tensor.nbytes if tensor.stored_bytes is None else tensor.stored_bytes for tensor in tensors),
    )


def tensors_of(tree: Any) -> Iterator[Tensor | Foreign]:
    """Every tensor leaf of `tree`, which may be a group."""
    if is_tensor(tree):
        yield tree
    elif isinstance(tree, Group):
        for _, _, item in tree.names:
            yield from tensors_of(item)
    elif text.is_container(tree):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors_of(item)


class TreeRow(NamedTuple):
    """One line: the guide and label at its left, and a tensor, a value or a note at its right."""

    guide: str
    label: str
    tensor: Tensor | Foreign | None = None
    value: str = ""
    note: str = ""


class TreeView:
    """Shows trees on a console: `depth` levels of containers (all if None), plain values in full or abbreviated.
    `fold`: dotted names in groups, and layers that are alike once. `notes`: what is said beside a value, by path."""

    def __init__(
        self,
        console: Console,
        *,
        depth: int | None = None,
        full: bool = False,
        fold: bool = False,
        notes: Mapping[Path, str] = MappingProxyType({}),
    ) -> None:
        self.console, self.depth, self.full, self.fold, self.notes = console, depth, full, fold, notes
        self._noted = {path[:end] for path in notes for end in range(len(path))}  # what has notes in it
        self.guides = ASCII_GUIDES if console.options.ascii_only else GUIDES
        self._holders: dict[int, bool] = {}  # container by id: whether a tensor lies beneath it

    def show(self, tree: Any, name: str, path: Path = ()) -> None:
        """Print `tree`, which stands at `path`, under a first line that says `name`."""
        rows: list[TreeRow] = []
        if self._is_open(tree, path, 0):
            rows = [TreeRow("", name, note=self._words(tree, path)), *self._beneath(tree, path, "", 0)]
        rows = rows or [self._leaf("", name, tree, path)]
        columns = _ColumnWidths(rows)
        for start in range(0, len(rows), 1000):  # many lines at a time, as each print costs
            lines = [columns.line(row) for row in rows[start : start + 1000]]
            self.console.print(Text("\n").join(lines))

    def _is_open(self, value: Any, path: Path, depth: int) -> bool:
        """Whether a value takes lines of its own for what is in it."""
        if self.depth is not None and depth >= self.depth:
            return False
        if isinstance(value, Group):
            return True
        if not text.is_container(value) or not value:
            return False
        if path in self._noted or self._holds_tensors(value):
            return True
        return not text.is_flat(value) and text.inline(value, VALUE) is None

    def _holds_tensors(self, value: Any) -> bool:
        if isinstance(value, Group) or not text.is_container(value):
            return holds_tensors(value)
        known = self._holders.get(id(value))
        if known is None:
            items = value.values() if isinstance(value, dict) else value
            known = self._holders[id(value)] = any(self._holds_tensors(item) for item in items)
        return known

    def _beneath(self, container: Any, path: Path, indent: str, depth: int) -> Iterator[TreeRow]:
        entries, hidden = self._entries(container, path)
        count = len(entries) + bool(hidden)
        for number, entry in enumerate(entries):
            is_last = number == count - 1
            guide = indent + self.guides["last" if is_last else "item"]
            alike = "" if entry.alike == 1 else f"{entry.alike:,} alike"
            if self._is_open(entry.item, entry.path, depth + 1):
                each = f"{alike}, each {tally(entry.item)}" if alike else ""
                note = ", ".join(filter(None, [self._words(entry.item, entry.path), each]))
                yield TreeRow(guide, entry.label, note=note)
                below = indent + self.guides["end" if is_last else "below"]
                yield from self._beneath(entry.item, entry.path, below, depth + 1)
            else:
                row = self._leaf(guide, entry.label, entry.item, entry.path)
                yield row._replace(note=", ".join(filter(None, [row.note, alike])))
        if hidden:
            yield TreeRow(indent + self.guides["last"], text.CUT, note=text.count(hidden, "more plain value"))

    def _entries(self, container: Any, path: Path) -> tuple[list[FoldedLine], int]:
        """What to show of a container, and how many plain values are left out."""
        entries = folded(grouped(container, path), self.notes) if self.fold else entries_of(container, path)
        plain = [number for number, entry in enumerate(entries) if not self._holds_tensors(entry.item)]
        if self.full or len(plain) <= SIBLINGS:
            return entries, 0
        hidden = set(plain[SIBLINGS:])
        return [entry for number, entry in enumerate(entries) if number not in hidden], len(hidden)

    def _words(self, value: Any, path: Path, usual: str = "") -> str:
        """What a container is: its kind, where it is not the usual one, and its note."""
        if isinstance(value, Group):  # which stands at the path of its dict
            return usual and "names"
        return ", ".join(filter(None, [_kind(value) or usual, self.notes.get(path)]))

    def _leaf(self, guide: str, label: str, value: Any, path: Path) -> TreeRow:
        note = self.notes.get(path, "")
        if is_tensor(value):
            alias = "" if value.path == path else f"alias of {text.path_label(value.path)}"
            return TreeRow(guide, label, value, note=", ".join(filter(None, [alias, note])))
        if self._holds_tensors(value):
            return TreeRow(guide, label, note=f"{self._words(value, path, 'dict')}, {tally(value)}")
        limit = None if self.full else VALUE
        short = text.inline(value, limit)
        if short is None and text.is_flat(value):
            short = text.first_items(value, VALUE)
        if short is None and text.is_container(value):
            items = f"{_kind(value) or 'dict'} of {text.count(len(value), 'item')}"
            return TreeRow(guide, label, note=", ".join(filter(None, [items, note])))
        return TreeRow(guide, label, value=text.scalar(value, limit) if short is None else short, note=note)


def _kind(container: Any) -> str:
    """The kind of a container, where it is not the usual one."""
    return "" if type(container) in (dict, Group) else type(container).__name__


class _ColumnWidths:
    """The widths of the columns, and lines laid out in them."""

    def __init__(self, rows: list[TreeRow]) -> None:
        tensors = [row.tensor for row in rows if row.tensor is not None]
        self.label = max((w for w in (cell_len(row.guide + row.label) for row in rows) if w <= COLUMN), default=0)
        self.dtype = max((len(text.dtype(tensor)) for tensor in tensors), default=0)
        self.shape = max((n for n in (len(text.shape(tensor)) for tensor in tensors) if n <= COLUMN), default=0)
        self.size = max((len(text.size(tensor.nbytes)) for tensor in tensors), default=0)

    def line(self, row: TreeRow) -> Text:
        gap = " " * (max(0, self.label - cell_len(row.guide + row.label)) + 2)
        parts = [(row.guide, "dim"), (row.label, "" if row.guide else "bold"), (gap, "")]
        if row.tensor is not None:
            parts += self._tensor(row.tensor)
        if row.value:
            parts.append((f"{row.value}  ", "yellow"))
        if row.note:
            parts.append((row.note, "magenta" if row.tensor is not None else "dim"))
        line = Text.assemble(*parts)
        line.rstrip()
        return line

    def _tensor(self, tensor: Tensor | Foreign) -> Iterator[tuple[str, str]]:
        yield f"{text.dtype(tensor):<{self.dtype}}  ", "cyan"
        yield f"{text.shape(tensor):<{self.shape}}  ", ""
        yield f"{text.size(tensor.nbytes):>{self.size}}  ", "green"
        stored = tensor.stored_bytes
        packed = "" if stored is None or tensor.codec == "raw" else f" to {text.size(stored)}"
        yield f"{tensor.codec}{packed}  ", "dim"
