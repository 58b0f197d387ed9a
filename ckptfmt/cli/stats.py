"""`ckptfmt stats`: what the values of tensors are like, of any format."""

from __future__ import annotations

import dataclasses
from typing import Any

import click
from rich.text import Text

from .. import TensorStats
from .. import stats as stats_of
from ..conversion.opening import place_for
from ..near import did_you_mean
from ..storage import is_url
from . import options
from .bar import shown_progress
from .console import console
from .json_form import JsonEncoder
from .several import look_at
from .table import fitting, print_table
from .text import count, visible

# columns of the table, and the field of each where it is called otherwise
COLUMNS = ("name", "dtype", "shape", "min", "max", "mean", "std", "norm", "bits", "zeros", "nan", "inf", "subnormals",
           "saturated")  # fmt: skip
FIELDS = {"bits": "effective_bits"}
ODD = ("nan", "inf")
TEXTS = ("name", "dtype", "shape")  # columns that are not numbers
# where a terminal is too narrow for all, the last of these go first
IMPORTANT = ("name", "min", "max", "mean", "std", "nan", "inf", "dtype", "shape", "zeros", "norm", "bits", "saturated",
             "subnormals")  # fmt: skip
TOP = 10


@click.command(
    epilog="""\b
Examples:
  ckptfmt stats model.ckpt
  ckptfmt stats model.safetensors --select '**.weight' --top std
  ckptfmt stats runs/7/step-0000000300.ckpt --nan   # only tensors with NaN or infinite elements
  ckptfmt stats epoch_1.ckpt epoch_2.ckpt
  ckptfmt stats model.ckpt --json | jq -r '.tensors[] | select(.nan > 0).name'

Everything is read, and verified; NaN and infinite elements are counted and are in no other column. Of complex numbers
it is the absolute value, and the deviation is that of all elements, not of a sample. bits: how many of a significand
are in use (8 of the 24 of float32: it was bfloat16), or the width of the narrowest integer that would do. saturated: at
the greatest magnitude that the dtype has. A terminal shows as many columns as fit; anything else gets all.

The object of --json has: path, and tensors, a list of objects with path (typed: strings and ints), name (its label),
dtype, shape, elements, min, max, mean, std, norm (l2), zeros, subnormals, nan, inf, positive_inf, negative_inf,
saturated, effective_bits and stored (whether nothing was read for them). Of a folder it has path, or of several paths
paths, and checkpoints, a list of such objects, and errors, a list of objects with path, code and message.

Exit codes: 0 fine, 1 one is damaged, 2 anything else.
""",
)
@options.paths
@options.reading
@click.option("--sort", metavar="COLUMN", help="By a column, such as std or nan [default: as they are stored].")
@click.option("--reverse", is_flag=True, help="The last first.")
@click.option("--top", metavar="COLUMN", help=f"The {TOP} (or -n) with the greatest of a column, such as norm.")
@click.option("-n", "rows", type=click.IntRange(min=1), metavar="N", help="Only the first N tensors, as sorted.")
@click.option("--stored", "claimed", is_flag=True, help="Of figures that were stored at saving, read nothing.")
@click.option("--check", is_flag=True, help="Compare figures that were stored with the elements, which are read.")
@click.option("--nan", "only_odd", is_flag=True, help="Only tensors with NaN or infinite elements.")
@options.as_json
def stats(
    paths: tuple[str, ...],
    select: tuple[str, ...],
    sort: str | None,
    reverse: bool,
    top: str | None,
    rows: int | None,
    only_odd: bool,
    claimed: bool,
    check: bool,
    recursive: bool,
    source_format: str | None,
    as_json: bool,
    **more: Any,
) -> int:
    """Show least, greatest and mean value, deviation, norm, zeros, NaN and infinities of each tensor at PATH, of any
    format. PATH may be a folder of checkpoints, and be given several times.
    """
    if top is not None and (sort is not None or reverse):
        raise click.UsageError("--top sorts by itself: give it, or --sort and --reverse")
    if claimed and check:
        raise click.UsageError("--stored reads nothing that --check could compare: give one of them")
    _check_column("--sort", sort)
    _check_column("--top", top)
    if top is not None:
        sort, reverse, rows = top, True, rows or TOP

    def look(path: str) -> dict[str, Any] | None:
        place = path if source_format or is_url(path) else place_for(path, recursive=recursive).path
        with shown_progress("stats") as progress:
            asked: Any = {"select": select or None, "stored": "check" if check else claimed, "progress": progress}
            report = stats_of(place, source_format=source_format, **asked, **more)
        found = [_row(one) for one in report.tensors]
        chosen = [row for row in found if row["nan"] or row["inf"]] if only_odd else found
        chosen = _sorted(chosen, sort and FIELDS.get(sort, sort), reverse)[:rows]
        if as_json:
            return {"path": path, "tensors": [_document(row) for row in chosen]}
        _show(path, chosen, found)
        return None

    return look_at(paths, recursive, look, as_json=as_json)


def _check_column(option: str, name: str | None) -> None:
    if name is not None and name not in COLUMNS:
        hint = did_you_mean(name, COLUMNS) or f"; there are {', '.join(COLUMNS)}"
        raise click.UsageError(f"{option}: there is no column {name!r}{hint}")


def _row(found: TensorStats) -> dict[str, Any]:
    return {**dataclasses.asdict(found), "path": found.path, "shape": list(found.shape), "inf": found.inf}


def _sorted(rows: list[dict[str, Any]], key: str | None, reverse: bool) -> list[dict[str, Any]]:
    """Rows by a column, those without a value there last; without one as they are."""
    if key is None:
        return rows[::-1] if reverse else rows

    def is_there(row: dict[str, Any]) -> bool:
        return row[key] is not None and row[key] == row[key]

    there = sorted(filter(is_there, rows), key=lambda row: row[key], reverse=reverse)
    return there + [row for row in rows if not is_there(row)]


def _document(row: dict[str, Any]) -> dict[str, Any]:
    encode = JsonEncoder().value
    return {key: encode(list(value) if key == "path" else value) for key, value in row.items()}


def _show(path: str, rows: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
    """A table of rows, and a line of all that was found."""
    out = console()
    out.print(Text(visible(path), "bold"))
    lines = [{name: _cell(row[FIELDS.get(name, name)]) for name in COLUMNS} for row in rows]
    shown = fitting(COLUMNS, IMPORTANT, lines, out.width) if out.is_terminal else COLUMNS
    right = [name for name in COLUMNS if name not in TEXTS]
    if rows:
        print_table(out, shown, lines, right, lambda name, line: "red" if name in ODD and line[name] != "0" else "")
    elements, nan, inf = (sum(row[name] for row in found) for name in ("elements", "nan", "inf"))
    odd = [f"{number:,} {name}" for number, name in ((nan, "NaN"), (inf, "infinite")) if number]
    kept = "" if len(rows) == len(found) else f"{len(rows):,} of "
    out.print(Text(", ".join([f"{kept}{count(len(found), 'tensor')}", count(elements, "element"), *odd]), "bold"))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list):
        return "[" + ",".join(map(str, value)) + "]"
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
