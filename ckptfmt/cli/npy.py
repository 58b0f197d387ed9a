"""Arrays as other dtypes, and as .npy files."""

from __future__ import annotations

import os
from typing import Any

import click
import numpy as np

from ..errors import os_fault
from ..format.dtypes import DTYPES, Array, dtype_of
from ..frameworks.overflows import cast_aloud
from ..frameworks.target import castable

BITS = "bits"
AS = [*(name for name, row in DTYPES.items() if row.is_core), BITS]


def converted(path: str, array: Array, wanted: str | None) -> Array:
    """`array` with its values as another dtype of the same or a wider kind, or with its bits as unsigned integers."""
    if wanted is None:
        return array
    if wanted == BITS:
        if array.dtype.itemsize > 8:
            raise click.UsageError(f"no unsigned integer is as wide as {array.dtype}: leave out --as bits")
        return array.view(f"u{array.dtype.itemsize}")
    if not castable(array.dtype, np.dtype(wanted)):
        raise click.UsageError(f"{array.dtype} does not convert to {wanted}, which is of a narrower kind")
    return cast_aloud(path, array, np.dtype(wanted))


def check_storable(dtype: np.dtype[Any], wanted: str | None) -> None:
    """Refuse a dtype that .npy cannot carry, unless it is to be converted."""
    row = dtype_of(dtype)
    if wanted is None and row is not None and not row.is_core:
        wide = "complex64" if "complex" in row.name else "int8" if row.name.startswith("int") else "uint8"
        wide = "float32" if "float" in row.name else wide
        raise click.UsageError(
            f".npy has no {row.name}: give --as {wide} for the values, or --as bits for their bits as unsigned integers"
        )


def check_target(path: str, checkpoint: str, overwrite: bool) -> None:
    """Refuse to write where there is something that must stay."""
    inside = os.path.commonpath([os.path.realpath(path), root := os.path.realpath(checkpoint)]) == root
    if inside or (os.path.exists(path) and os.path.samefile(path, checkpoint)):
        raise click.UsageError(f"{path} is the checkpoint itself, or lies in it")
    if os.path.lexists(path) and not overwrite:
        raise click.UsageError(f"{path} exists: give --overwrite to replace it")


def write(path: str, array: Array, overwrite: bool) -> None:
    """Write an array as .npy; raises `StorageError` and its like."""
    try:
        with open(path, "wb" if overwrite else "xb") as file:
            try:
                np.lib.format.write_array(file, array, allow_pickle=False)
                file.flush()
            except BaseException:
                if os.path.isfile(path):  # no half of an array
                    os.unlink(path)
                raise
    except OSError as error:
        raise os_fault(error, "cannot write the array", path) from error
