"""Drawings of tensors by Matplotlib: histograms, and heat maps of matrices. Of a large one some elements are drawn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import fault
from ..format.names import path_label
from ..packages import package

if TYPE_CHECKING:
    from ..format.dtypes import Array
    from .tensor import Tensor

MOST = 1 << 20  # elements of a histogram
SIDE = 512  # cells of a side of a heat map
KINDS = ("histogram", "heat map")


def plot(tensor: Tensor, kind: str, axes: Any, bins: int) -> Any:
    """As `Tensor.plot` says."""
    if kind not in KINDS:
        raise fault("bad-option", "kind=", found=kind, expected=" or ".join(map(repr, KINDS)))
    if kind == "heat map" and len(tensor.shape) != 2:
        advice = "Index it to two axes and draw that with Matplotlib, or take a histogram"
        raise fault(
            "bad-option", f"a heat map of {len(tensor.shape)} axes", tensor=path_label(tensor.path), advice=advice
        )
    if axes is None:
        axes = package("matplotlib.pyplot", "plot()").subplots(layout="constrained")[1]
    steps = steps_of(tensor.shape, MOST) if kind == "histogram" else [max(1, -(-n // SIDE)) for n in tensor.shape]
    values = _numbers(np.asarray(tensor[(*(slice(None, None, step) for step in steps), ...)]))
    title = f"{path_label(tensor.path)}\n{tensor.dtype_name} {list(tensor.shape)}"
    if math.prod(steps) > 1:
        title += f", every {' × '.join(map(str, steps))}"
    if kind == "histogram":
        finite = values[np.isfinite(values)]
        axes.hist(finite, bins=bins)
        axes.set_xlabel("value")
        axes.set_ylabel("elements")
        title += f", without {values.size - finite.size:,} NaN or infinite" if finite.size < values.size else ""
    else:
        image = axes.imshow(
            values, aspect="auto", extent=(0, tensor.shape[1], tensor.shape[0], 0), interpolation="nearest"
        )
        axes.figure.colorbar(image, ax=axes)
    axes.set_title(title, parse_math=False, wrap=True)
    return axes


def steps_of(shape: tuple[int, ...], most: int) -> list[int]:
    """Steps along the axes that leave at most so many elements, the longest axes first."""
    left = list(shape)
    steps = [1] * len(shape)
    while math.prod(left) > most:
        axis = max(range(len(shape)), key=left.__getitem__)
        steps[axis] = max(steps[axis] + 1, steps[axis] * math.prod(left) // (2 * most))
        left[axis] = -(-shape[axis] // steps[axis])
    return steps


def _numbers(values: Array) -> Array:
    """Elements as numbers that Matplotlib knows; of complex ones the absolute values, of times their counts."""
    if values.dtype.kind in "mM":
        return values.astype(np.int64).astype(np.float64)
    if values.dtype.kind == "c" or "complex" in values.dtype.name:
        return np.abs(values.astype(np.complex128))
    return values.astype(np.float64)
