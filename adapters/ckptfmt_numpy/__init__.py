"""NumPy's adapter: the smallest one, and the general one for tensors of libraries without an adapter of their own.

The core handles NumPy arrays itself. What is left is whatever exports its elements on the host by DLPack or the array
interface, as CuPy's pinned, MLX's and TensorFlow's tensors do: it is stored as the array that it exports.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from ckptfmt.errors import fault
from ckptfmt.format.dtypes import Array
from ckptfmt.format.node import Restore
from ckptfmt.frameworks.adapter import Slot, Template, blank_array, register

__all__ = ["ADAPTER", "NumpyAdapter"]

_ON_HOST = (1, 3)  # kDLCPU and kDLCUDAHost of dlpack.h


class NumpyAdapter:
    """Arrays, and what exports itself as one."""

    framework = "numpy"
    on_host = True
    restores: Mapping[str, Restore] = MappingProxyType({})

    def lower(self, value: Any) -> Array | None:
        """Return the array that a value exports; raises `unsupported-leaf` for tensors on a device."""
        if isinstance(value, np.ndarray | np.generic | type):
            return None
        if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            if value.__dlpack_device__()[0] not in _ON_HOST:
                raise fault("unsupported-leaf", f"a {kind} is on a device; copy it to the host first")
            try:
                exported: Array = np.from_dlpack(value)
            except (BufferError, RuntimeError, TypeError) as error:
                raise fault("unsupported-leaf", f"a {kind} does not export its elements: {error}") from error
            return exported
        if hasattr(value, "__array_interface__"):
            return np.asarray(value)
        return None

    def wrap(self, array: Array) -> Array:
        """Return the array itself."""
        return array

    def supports(self, dtype: str) -> bool:
        """Tell whether NumPy has a dtype: with ml_dtypes it has all."""
        return True

    def slot(self, leaf: Any) -> Slot | None:
        """Return None, as arrays are the core's own."""
        return None

    def template(self, leaf: Any) -> Template | None:
        """Describe an array: anything with a shape and a dtype that NumPy has does."""
        shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
        if type(shape) is not tuple or not isinstance(dtype, np.dtype) or isinstance(leaf, np.generic):
            return None
        return Template(shape, dtype, blank_array)


ADAPTER = NumpyAdapter()
register(ADAPTER)
