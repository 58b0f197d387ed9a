"""Rows in aligned columns, for people."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from .console import Console

Line = Mapping[str, str]  # the text of each column


GAP = 2  # columns between columns


def fitting(columns: Sequence[str], important: Sequence[str], lines: Sequence[Line], width: int) -> list[str]:
    """As many columns, the most important first, as fit a width."""
    kept: set[str] = set()
    taken = 0
    for name in important:
        taken += max(cell_len(name), *(cell_len(line[name]) for line in lines), 0) + GAP
        if taken - GAP > width and kept:
            break
        kept.add(name)
    return [name for name in columns if name in kept]


def print_table(
    out: Console,
    columns: Sequence[str],
    lines: Sequence[Line],
    right: Container[str],
    style: Callable[[str, Line], str],
) -> None:
    """Print a head and lines; columns in `right` are of numbers. `style` gives that of a cell."""
    head = {name: name for name in columns}
    widths = {name: max(cell_len(line[name]) for line in (head, *lines)) for name in columns}
    for line in (head, *lines):
        text = Text()
        for name in columns:
            gap = " " * (widths[name] - cell_len(line[name]))
            padded = gap + line[name] if name in right else line[name] + gap
            text.append(padded + GAP * " ", "bold" if line is head else style(name, line))
        text.rstrip()
        out.print(text)
