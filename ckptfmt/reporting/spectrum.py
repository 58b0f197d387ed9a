"""Singular values of a matrix: how many directions it really has."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..format.dtypes import Array
from .words import number

SHORT = 8192  # most rows, or columns, whichever are fewer: the time grows with their cube
ELEMENTS = 1 << 28
POINTS = 200  # of a curve that is drawn


def refusal(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str | None:
    """Why a tensor has no spectrum here, or None if it has one."""
    if len(shape) < 2 or min(shape) == 0:
        return "it is no matrix"
    rows, columns = shape[0], int(np.prod(shape[1:]))
    if min(rows, columns) > SHORT or rows * columns > ELEMENTS:
        return f"it is larger than {SHORT:,} rows or columns, or {ELEMENTS:,} elements"
    return None if dtype.kind in "fcV" or "float" in dtype.name or dtype.kind in "iu" else "it has no numbers"


def spectrum(matrix: Array) -> dict[str, Any] | None:
    """The singular values, the greatest first, thinned to a curve; the effective rank (the exponential of the entropy
    of their shares, Roy and Vetterli 2007) and the stable rank (the squared Frobenius norm over that of the greatest).
    Further axes count as columns. None where not all elements are finite."""
    wide = matrix.reshape(matrix.shape[0], -1)
    is_complex = wide.dtype.kind == "c" or "complex" in wide.dtype.name
    wide = wide.astype(np.complex64 if is_complex else np.float32)
    if not np.isfinite(wide).all():
        return None
    values = np.linalg.svd(wide, compute_uv=False).astype(np.float64)
    total, greatest = float(values.sum()), float(values[0])
    shares = values[values > 0] / total if total else values[:0]
    places = np.unique(np.linspace(0, values.size - 1, min(POINTS, values.size)).astype(int))
    return {
        "values": [[int(place) + 1, number(float(values[place]))] for place in places],
        "count": int(values.size),
        "effective": number(float(np.exp(-(shares * np.log(shares)).sum()))) if shares.size else 0,
        "stable": number(float((values**2).sum()) / greatest**2) if greatest else 0,
    }
