"""The columns of tensors (SPEC.md section 7): dtype, shape, chunk grid and codec chain of each, as specs. Pure."""

from __future__ import annotations

import marshal
import math
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

from ..errors import CkptError, fault
from .arrays import ArraySpec
from .codecs import Codec, codec_of
from .documents import bad
from .dtypes import dtype_named

MAX_RANK = 64  # [LIM-002]
COLUMNS = ("dtype", "shape", "grid", "codec")
STATISTICS = "statistics"  # key of what a writer claims of elements, in a manifest or page of tensors [STAT-001]


def encode_specs(specs: Sequence[ArraySpec], codecs: Sequence[int]) -> dict[str, Any]:
    """The columns; `codecs` are the numbers of the chains."""
    return {
        "dtype": [spec.dtype.name for spec in specs],
        "shape": [spec.shape for spec in specs],
        "grid": [spec.grid for spec in specs],
        "codec": list(codecs),
    }


def chains_of(specs: Sequence[ArraySpec]) -> tuple[list[Any], list[int]]:
    """The codec chains in order of first use, and the number of each one's."""
    numbers: dict[Codec, int] = {}
    codecs = [numbers.setdefault(spec.codec.stored, len(numbers)) for spec in specs]
    return [codec.chain for codec in numbers], codecs


def decode_codecs(chains: list[Any]) -> list[Codec]:
    """The codecs of a manifest; raises `unknown-codec`. [ZARR-006]"""
    return [codec_of(chain) for chain in chains]


def decode_specs(columns: Mapping[str, Any], known_codecs: Sequence[Codec]) -> tuple[ArraySpec, ...]:
    """Parse and check the columns: one `ArraySpec` for each row; rows that are alike share one."""
    if not all(isinstance(columns.get(column), list) for column in COLUMNS):
        raise bad("a column of tensors is missing or of another type [MAN-002]")
    dtypes, shapes, grids, codecs = (columns[column] for column in COLUMNS)
    if len({len(dtypes), len(shapes), len(grids), len(codecs)}) != 1:
        raise bad("the columns of `tensors` differ in length [MAN-007]")
    if not all(type(name) is str for name in dtypes):
        raise bad("a dtype is no string [MAN-002]")
    rows = zip(dtypes, shapes, grids, codecs, strict=True)
    try:
        return tuple(map(_Kinds(known_codecs).__getitem__, map(marshal.dumps, rows, repeat(2))))
    except CkptError:
        raise
    except ValueError:
        raise bad("a shape or grid is no array of integers [MAN-002]") from None


class _Kinds(dict[bytes, ArraySpec]):
    """The spec of a row, by its bytes, whose hashes nobody can choose. [LIM-007]"""

    def __init__(self, codecs: Sequence[Codec]) -> None:
        self.codecs = codecs

    def __missing__(self, row: bytes) -> ArraySpec:
        dtype, shape, grid, codec = marshal.loads(row)
        if type(shape) is not list or type(grid) is not list or type(codec) is not int:
            raise bad("a shape, grid or codec is of another type [MAN-002]")
        if not all(type(n) is int and 0 <= n < 1 << 63 for n in (*shape, *grid)):
            raise bad("a shape or grid is no array of integers [MAN-002]")
        if not 0 <= codec < len(self.codecs):
            raise bad(f"there is no codec chain {codec!r} [MAN-002]")
        spec = ArraySpec(dtype_named(dtype), tuple(shape), tuple(grid), self.codecs[codec])
        _check_spec(spec)
        self[row] = spec
        return spec


def _check_spec(spec: ArraySpec) -> None:
    if len(spec.shape) > MAX_RANK:
        raise fault(
            "limit-exceeded",
            f"a tensor has {len(spec.shape)} axes",
            found=len(spec.shape),
            expected=f"at most {MAX_RANK}",
        )  # [LIM-002]
    if len(spec.grid) != len(spec.shape):
        raise bad(f"grid {spec.grid} does not fit shape {spec.shape} [MAN-008]")
    sizes = (math.prod(spec.storage_shape), math.prod(spec.grid))
    if 0 not in spec.shape and max(sizes) * spec.dtype.stored.itemsize >= 1 << 62:
        raise bad(f"shape {spec.shape} is too large [LIM-004]")
    if any(not 1 <= side <= max(1, n) for side, n in zip(spec.grid, spec.storage_shape, strict=True)):
        raise bad(f"grid {spec.grid} does not fit shape {spec.shape} [ZARR-002]")
