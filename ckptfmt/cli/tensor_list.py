"""The tensors of a tree as a flat list: sorted by a column, with a bar of bytes beside each."""

from __future__ import annotations

from typing import Any

import click

from ..format.tree import Tree
from ..near import did_you_mean
from . import text
from .chart import bar
from .console import Console
from .json_form import JsonEncoder
from .table import print_table

# columns, and the field of each in a row of `--json`
COLUMNS = {"name": "path", "dtype": "dtype", "shape": "shape", "elements": "elements", "size": "bytes",
           "stored": "stored_bytes", "codec": "codec"}  # fmt: skip
NUMBERS = ("elements", "size", "stored")  # the greatest first
BAR = 24  # columns of a bar


def check_column(name: str | None) -> None:
    """Refuse to sort by what is no column."""
    if name is not None and name not in COLUMNS:
        hint = did_you_mean(name, COLUMNS) or f"; there are {', '.join(COLUMNS)}"
        raise click.UsageError(f"--sort: there is no column {name!r}{hint}")


def sorted_rows(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    """Rows of `--json`, by a column: the greatest number first, else in the order of text and of shapes."""
    field = COLUMNS[column]
    if column in NUMBERS:
        return sorted(rows, key=lambda row: -(row[field] or 0))
    if column == "name":
        return sorted(rows, key=_label)
    return sorted(rows, key=lambda row: row[field] if row[field] is not None else "")


def _label(row: dict[str, Any]) -> str:
    keys = [int(key["$int"], 0) if isinstance(key, dict) else key for key in row["path"]]
    return text.path_label(tuple(keys))


def show_list(out: Console, tree: Tree, column: str, *, bars: bool) -> None:
    """Print the tensors of a tree, one a line."""
    encoder = JsonEncoder()
    encoder.value(tree)
    rows = sorted_rows(encoder.tensors, column)
    greatest = max((row["bytes"] for row in rows), default=0)
    lines = [_line(row, greatest, ascii_only=out.options.ascii_only) for row in rows]
    shown = ["name", "dtype", "shape", "size"]
    shown += [name for name in ("stored", "codec") if any(line[name] for line in lines)]
    if bars:
        shown.insert(4, "bytes")
    if rows:
        print_table(out, shown, lines, NUMBERS, lambda name, _: {"name": "bold", "bytes": "green"}.get(name, ""))


def _line(row: dict[str, Any], greatest: int, *, ascii_only: bool) -> dict[str, str]:
    is_raw = row["codec"] in ("", "raw")
    return {
        "name": text.visible(_label(row)),
        "dtype": row["dtype"],
        "shape": "[" + ",".join(map(str, row["shape"])) + "]",
        "size": text.size(row["bytes"]),
        "bytes": bar(row["bytes"] / greatest if greatest else 0.0, BAR, ascii_only=ascii_only),
        "stored": "" if is_raw or row["stored_bytes"] is None else text.size(row["stored_bytes"]),
        "codec": "" if is_raw else row["codec"],
    }
