"""`ckptfmt stats`: what the values of tensors are like, of any format."""

from __future__ import annotations

import dataclasses
from typing import Any

import click
from rich.text import Text

from .. import TensorStats
from .. import stats as stats_of
from ..near import did_you_mean
from ..storage import is_url
from . import options
from .console import console
from .folders import place_for
from .json_form import JsonEncoder
from .several import look_at
from .table import print_table
from .text import count, visible

COLUMNS = ("name", "dtype", "shape", "min", "max", "mean", "std", "zeros", "nan", "inf")
ODD = ("nan", "inf")
TEXTS = ("name", "dtype", "shape")  # columns that are not numbers


@click.command(
    epilog="""\b
Examples:
  ckptfmt stats model.ckpt
  ckptfmt stats model.safetensors --select '**.weight' --sort std --reverse
  ckptfmt stats epoch_1.ckpt epoch_2.ckpt
  ckptfmt stats model.ckpt --json | jq -r '.tensors[] | select(.nan > 0).name'

Everything is read, and verified; NaN and infinite elements are counted and are in no other column. Of complex numbers
it is the absolute value, and the deviation is that of all elements, not of a sample.

The object of --json has: path, and tensors, a list of objects with path (typed: strings and ints), name (its label),
dtype, shape, elements, min, max, mean, std, norm (l2), zeros, subnormals, nan, inf, positive_inf and negative_inf. Of a
folder it has path, or of several paths paths, and checkpoints, a list of such objects, and errors, a list of objects
with path, code and message.

Exit codes: 0 fine, 1 one is damaged, 2 anything else.
""",
)
@options.paths
@options.reading
@click.option("--sort", metavar="COLUMN", help="By a column, such as std or nan [default: as they are stored].")
@click.option("--reverse", is_flag=True, help="The last first.")
@options.as_json
def stats(
    paths: tuple[str, ...],
    select: tuple[str, ...],
    sort: str | None,
    reverse: bool,
    recursive: bool,
    source_format: str | None,
    as_json: bool,
    **more: Any,
) -> int:
    """Show least, greatest and mean value, deviation, zeros, NaN and infinities of each tensor at PATH, of any format.
    PATH may be a folder of checkpoints, and be given several times.
    """
    if sort is not None and sort not in COLUMNS:
        hint = did_you_mean(sort, COLUMNS) or f"; there are {', '.join(COLUMNS)}"
        raise click.UsageError(f"--sort: there is no column {sort!r}{hint}")

    def look(path: str) -> dict[str, Any] | None:
        place = path if source_format or is_url(path) else place_for(path, recursive=recursive).path
        report = stats_of(place, select=select or None, source_format=source_format, **more)
        rows = [_row(found) for found in report.tensors]
        if sort is not None:
            rows = _sorted(rows, sort, reverse)
        elif reverse:
            rows.reverse()
        if as_json:
            return {"path": path, "tensors": [_document(row) for row in rows]}
        _show(path, rows)
        return None

    return look_at(paths, recursive, look, as_json=as_json)


def _row(found: TensorStats) -> dict[str, Any]:
    return {**dataclasses.asdict(found), "path": found.path, "shape": list(found.shape), "inf": found.inf}


def _sorted(rows: list[dict[str, Any]], key: str, reverse: bool) -> list[dict[str, Any]]:
    """Rows by a column, those without a value there last."""

    def is_there(row: dict[str, Any]) -> bool:
        return row[key] is not None and row[key] == row[key]

    there = sorted(filter(is_there, rows), key=lambda row: row[key], reverse=reverse)
    return there + [row for row in rows if not is_there(row)]


def _document(row: dict[str, Any]) -> dict[str, Any]:
    encode = JsonEncoder().value
    return {key: encode(list(value) if key == "path" else value) for key, value in row.items()}


def _show(path: str, rows: list[dict[str, Any]]) -> None:
    out = console()
    out.print(Text(visible(path), "bold"))
    lines = [{name: _cell(row[name]) for name in COLUMNS} for row in rows]
    right = [name for name in COLUMNS if name not in TEXTS]
    print_table(out, COLUMNS, lines, right, lambda name, line: "red" if name in ODD and line[name] != "0" else "")
    elements = sum(row["elements"] for row in rows)
    out.print(Text(f"{count(len(rows), 'tensor')}, {count(elements, 'element')}", "bold"))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return visible(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)
