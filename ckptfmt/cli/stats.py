"""`ckptfmt stats`: what the values of tensors are like, of any format."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import click
import numpy as np
from rich.text import Text

from ..conversion import open_source
from ..conversion.source import Tensor, is_tensor, slabs, walk
from ..errors import fault
from ..format.dtypes import Array, dtype_of
from ..format.names import path_label
from ..near import did_you_mean
from ..patterns import near_selection, selector
from ..storage import is_url
from . import options
from .console import console
from .folders import place_for
from .json_form import Encoder
from .several import look_at
from .table import print_table
from .text import count, visible

COLUMNS = ("name", "dtype", "shape", "min", "max", "mean", "std", "zeros", "nan", "inf")
ODD = ("nan", "inf")
TEXTS = ("name", "dtype", "shape")  # columns that are not numbers


@dataclasses.dataclass(slots=True)
class Statistics:
    """What the elements of a tensor are like; NaN and infinite ones are counted, and are in nothing else. Of complex
    numbers it is their absolute values. `min` and `max` are exact for integers; None where there is no element."""

    elements: int = 0
    min: float | int | None = None
    max: float | int | None = None
    mean: float | None = None
    std: float | None = None
    zeros: int = 0
    nan: int = 0
    inf: int = 0

    def add(self, part: Array, finite_before: int) -> int:
        """Take in a part; gives how many finite elements there are so far."""
        self.elements += part.size
        exact = part if part.dtype.kind in "biu" else None
        values = np.abs(part.astype(np.complex128)) if _is_complex(part) else part.astype(np.float64)
        finite = np.isfinite(values)
        self.nan += int(np.count_nonzero(np.isnan(values)))
        self.inf += int(np.count_nonzero(np.isinf(values)))
        self.zeros += int(np.count_nonzero(values == 0))
        kept = values[finite]
        if not kept.size:
            return finite_before
        low, high = (kept.min(), kept.max()) if exact is None else (exact.min(), exact.max())
        self.min = low.item() if self.min is None else min(self.min, low.item())
        self.max = high.item() if self.max is None else max(self.max, high.item())
        return self._combine(kept, finite_before)

    def _combine(self, kept: Array, before: int) -> int:
        """Mean and deviation of all, from those of two parts, which loses no digits (Chan, Golub and LeVeque 1979)."""
        total = before + kept.size
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(kept.mean())
            squares = float(((kept - mean) ** 2).sum())
        if before:
            assert self.mean is not None
            assert self.std is not None
            delta = mean - self.mean
            squares += self.std**2 * before + delta**2 * before * kept.size / total
            mean = self.mean + delta * kept.size / total
        self.mean, self.std = mean, math.sqrt(squares / total)
        return total


def _is_complex(array: Array) -> bool:
    return array.dtype.kind == "c" or "complex" in array.dtype.name


def statistics(tensor: Tensor) -> Statistics:
    """Those of a tensor, which is read part by part."""
    found, finite = Statistics(), 0
    for index in slabs(tensor):
        part = np.asarray(tensor[index])
        finite = found.add(part.view(np.int64) if part.dtype.kind in "mM" else part, finite)
    return found


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
dtype, shape, elements, min, max, mean, std, zeros, nan and inf. Of a folder it has path, or of several paths paths, and
checkpoints, a list of such objects, and errors, a list of objects with path, code and message.

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
        with open_source(place, source_format, **more) as source:
            rows = _rows(path, source.tree, select)
        if sort is not None:
            rows = _sorted(rows, sort, reverse)
        elif reverse:
            rows.reverse()
        if as_json:
            return {"path": path, "tensors": [_document(row) for row in rows]}
        _show(path, rows)
        return None

    return look_at(paths, recursive, look, as_json=as_json)


def _rows(path: str, tree: Any, select: tuple[str, ...]) -> list[dict[str, Any]]:
    """A row for each tensor, its aliases left out."""
    tensors = {where: leaf for where, leaf in walk(tree) if is_tensor(leaf)}
    chosen = {where: leaf for where, leaf in tensors.items() if not select or selector(select)(where)}
    if select and not chosen:
        patterns = ", ".join(map(repr, select))
        raise fault("no-match", f"no tensor matches {patterns}", path=path, hint=near_selection(select, tensors))
    first = {id(leaf): where for where, leaf in reversed(chosen.items())}
    rows = []
    for where, leaf in chosen.items():
        if first[id(leaf)] == where:
            row = dtype_of(leaf.dtype)
            head = {"path": where, "name": path_label(where), "dtype": str(leaf.dtype) if row is None else row.name}
            rows.append({**head, "shape": list(leaf.shape), **dataclasses.asdict(statistics(leaf))})
    return rows


def _sorted(rows: list[dict[str, Any]], key: str, reverse: bool) -> list[dict[str, Any]]:
    """Rows by a column, those without a value there last."""

    def is_there(row: dict[str, Any]) -> bool:
        return row[key] is not None and row[key] == row[key]

    there = sorted(filter(is_there, rows), key=lambda row: row[key], reverse=reverse)
    return there + [row for row in rows if not is_there(row)]


def _document(row: dict[str, Any]) -> dict[str, Any]:
    encode = Encoder().value
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
