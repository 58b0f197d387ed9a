"""The columns of tensors: what is just inside the limits, and what is just beyond them."""

from __future__ import annotations

from typing import Any

import pytest

from ckptfmt.errors import CkptError
from ckptfmt.format.codecs import RAW
from ckptfmt.format.spec_columns import decode_specs


def decoded(*rows: tuple[Any, Any, Any, Any]) -> Any:
    dtypes, shapes, grids, codecs = zip(*rows, strict=True)
    columns = {"dtype": list(dtypes), "shape": list(shapes), "grid": list(grids), "codec": list(codecs)}
    return decode_specs(columns, [RAW])


def refusal(row: tuple[Any, Any, Any, Any]) -> tuple[str, str]:
    with pytest.raises(CkptError) as caught:
        decoded(("int8", [1], [1], 0), row)
    return caught.value.code, str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "shape", "grid"),
    [
        ("int8", [1] * 64, [1] * 64),  # [LIM-002]
        ("int8", [(1 << 62) - 1], [1]),  # [LIM-004]
        ("int8", [(1 << 62) - 1], [(1 << 62) - 1]),
        ("float64", [(1 << 59) - 1], [1]),
        ("int4", [(1 << 63) - 3], [1]),  # two elements in a byte
        ("int8", [0, (1 << 63) - 1, (1 << 63) - 1], [1, 1 << 62, 1 << 62]),  # nothing, however long its other sides are
        ("int8", [3], [3]),
        ("int8", [], []),
    ],
)
def test_what_is_just_inside(dtype: str, shape: list[int], grid: list[int]) -> None:
    first, other, again = decoded((dtype, shape, grid, 0), ("bool", [2], [1], 0), (dtype, list(shape), list(grid), 0))
    assert (first.dtype.name, first.shape, first.grid, first.codec) == (dtype, tuple(shape), tuple(grid), RAW)
    assert (other.dtype.name, other.shape, other.grid) == ("bool", (2,), (1,))
    assert again is first


@pytest.mark.parametrize(
    ("row", "code", "words"),
    [
        (("int8", [1] * 65, [1] * 65, 0), "limit-exceeded", "65 axes"),
        (("int8", [1 << 62], [1], 0), "bad-manifest", "LIM-004"),
        (("float64", [1 << 59], [1], 0), "bad-manifest", "LIM-004"),
        (("int4", [(1 << 63) - 1], [1], 0), "bad-manifest", "LIM-004"),
        (("int8", [4, 4], [4], 0), "bad-manifest", "MAN-008"),
        (("int8", [4], [4, 4], 0), "bad-manifest", "MAN-008"),
        (("int8", [4], [0], 0), "bad-manifest", "ZARR-002"),
        (("int8", [4], [5], 0), "bad-manifest", "ZARR-002"),
        (("int8", [0], [0], 0), "bad-manifest", "ZARR-002"),
        (("int4", [4], [3], 0), "bad-manifest", "ZARR-002"),
        (("int8", [1 << 63], [1], 0), "bad-manifest", "MAN-002"),
        (("int8", [-1], [1], 0), "bad-manifest", "MAN-002"),
        (("int8", [True], [1], 0), "bad-manifest", "MAN-002"),
        (("int8", [1.0], [1], 0), "bad-manifest", "MAN-002"),
        (("int8", b"\1", [1], 0), "bad-manifest", "MAN-002"),
        (("int8", [1], None, 0), "bad-manifest", "MAN-002"),
        (("int8", [1], [1], 1), "bad-manifest", "MAN-002"),
        (("int8", [1], [1], -1), "bad-manifest", "MAN-002"),
        (("int8", [1], [1], False), "bad-manifest", "MAN-002"),
        ((b"int8", [1], [1], 0), "bad-manifest", "MAN-002"),
        (("int9", [1], [1], 0), "unknown-dtype", "int9"),
    ],
)
def test_what_is_just_beyond(row: tuple[Any, Any, Any, Any], code: str, words: str) -> None:
    found, message = refusal(row)
    assert found == code
    assert words in message


@pytest.mark.parametrize("missing", ["dtype", "shape", "grid", "codec"])
def test_columns_of_different_lengths(missing: str) -> None:
    columns: dict[str, Any] = {"dtype": ["int8"] * 2, "shape": [[1]] * 2, "grid": [[1]] * 2, "codec": [0] * 2}
    for wrong, words in ((columns[missing][:1], "MAN-007"), (None, "MAN-002"), (tuple(columns[missing]), "MAN-002")):
        with pytest.raises(CkptError, match=words) as caught:
            decode_specs({**columns, missing: wrong}, [RAW])
        assert caught.value.code == "bad-manifest"
