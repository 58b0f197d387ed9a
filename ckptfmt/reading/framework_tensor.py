"""Tensors that have not been read, and come as those of a framework."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import fault
from ..format.dtypes import Array, dtype_of
from ..format.grid import Shape
from ..format.names import Path, path_label
from ..frameworks.adapter import Adapter
from ..frameworks.overflows import name_of
from ..frameworks.sources import Region
from .tensor import ArrayLike


class FrameworkTensor:
    """A tensor that has not been read, and is read as one of a framework: index it with ints, slices and `...`, or
    `read()` it whole. `array` is the same for NumPy. Raises what reading raises, and `framework-dtype`."""

    __slots__ = ("_adapter", "array")

    def __init__(self, array: ArrayLike, adapter: Adapter) -> None:
        is_time = array.dtype.kind in "mM" and adapter.framework != "numpy"  # which frameworks lack
        self.array: ArrayLike = array.view(np.dtype(np.int64)) if is_time else array
        self._adapter = adapter

    @property
    def path(self) -> Path:
        return self.array.path

    @property
    def shape(self) -> Shape:
        """The shape in elements."""
        return self.array.shape

    @property
    def ndim(self) -> int:
        return self.array.ndim

    @property
    def dtype(self) -> Any:
        """The framework's dtype."""
        return self._wrap(np.empty(0, self.array.dtype)).dtype

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        return self._wrap(np.asarray(self.array[index]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self.array, dtype)

    def read(self, out: Any = None, *, region: Region | None = None) -> Any:
        """The whole tensor, or filled into `out`: a tensor of the same shape and dtype, on any device; raises
        `mismatch`. With `region`, one slice with start and stop for each axis, just that part."""
        return self._wrap(self.array.read(region=region)) if out is None else self.array.read(out, region=region)

    def __repr__(self) -> str:
        return f"<{self._adapter.framework} tensor {path_label(self.path)!r} {name_of(self.array.dtype)} {self.shape}>"

    def _wrap(self, array: Array) -> Any:
        row = dtype_of(array.dtype)
        if row is None or not self._adapter.supports(row.name):
            name = name_of(array.dtype)
            raise fault(
                "framework-dtype",
                f"{self._adapter.framework} has no tensors of the dtype {name}",
                tensor=path_label(self.path),
                advice="Read it as a NumPy array: tensor.array[...]",
            )
        return self._adapter.wrap(array)
