"""The tensors as zarr-python arrays of their logical dtypes: bfloat16, the float8 kinds, packed integers, …

zarr-python has no data types of these names, and takes such as others register. Importing this module registers those
that it lacks, for all of the process.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ..format.arrays import ArraySpec
from ..format.codecs import RAW
from ..format.dtypes import DTYPES, DType
from ..packages import missing
from .tensor import Tensor
from .zarr_store import ManifestStore

if TYPE_CHECKING:
    from .checkpoint import StoredCheckpoint

try:
    import zarr
    from zarr.core.dtype.common import HasItemSize  # which zarr.dtype does not name, though its byte codec asks for it
    from zarr.dtype import ZDType, data_type_registry
except Exception as error:
    raise missing("a checkpoint as Zarr arrays", error, "zarr") from error
try:
    from zarr.errors import DataTypeValidationError  # type: ignore[attr-defined, unused-ignore]
except ImportError:  # before zarr 3.2
    from zarr.dtype import DataTypeValidationError


def open_typed(checkpoint: StoredCheckpoint) -> zarr.Group | zarr.Array[Any]:
    """The hierarchy under `tensors/`, with logical dtypes and shapes; the checkpoint must stay open while it is
    used."""
    return zarr.open(TypedStore(checkpoint), mode="r")


class TypedStore(ManifestStore):
    """As `ManifestStore`, but for tensors whose logical dtype is not their storage type: those have their logical
    shape, and chunks of unpacked elements as ml_dtypes has them in memory."""

    def _value(self, key: str) -> bytes | memoryview | None:
        found = super()._chunk(key)
        name = key.rpartition("/")[0]
        tensor = self._tensors.get(name) if found is None else found[0]
        if tensor is None or (spec := self._checkpoint.manifest.specs[tensor]).dtype.is_core:
            return super()._value(key)
        if found is not None:
            return self._elements(*found)
        document = super()._value(key)
        return document and json.dumps(json.loads(bytes(document)) | _typed(spec)).encode()

    def _elements(self, tensor: int, chunk: int) -> bytes:
        """A whole chunk; beyond the tensor's edge with zeros."""
        spec = self._checkpoint.manifest.specs[tensor]
        region = spec.chunk_region(chunk)
        elements = np.zeros(_chunk_shape(spec), spec.dtype.numpy)
        elements[tuple(slice(side.stop - side.start) for side in region)] = Tensor(
            self._checkpoint.fetcher, tensor, (), self._checkpoint.verifies
        ).read(region=region)
        return elements.tobytes()


def _chunk_shape(spec: ArraySpec) -> tuple[int, ...]:
    return (*spec.grid[:-1], spec.grid[-1] * spec.dtype.per) if spec.grid else ()


def _typed(spec: ArraySpec) -> dict[str, Any]:
    """What a node document of a logical dtype says otherwise."""
    return {
        "shape": list(spec.shape),
        "data_type": spec.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(_chunk_shape(spec))}},
        "codecs": RAW.chain,
        "attributes": {},
    }


# ---- data types of zarr-python


@dataclass(frozen=True, kw_only=True)
class _DataType(ZDType[Any, Any], HasItemSize):
    """A data type of ml_dtypes. What is stored in such arrays has no use of fill values: their JSON is that of a
    number."""

    dtype_cls: ClassVar[Any]
    row: ClassVar[DType]

    @classmethod
    def from_native_dtype(cls, dtype: np.dtype[Any]) -> Self:
        if dtype == cls.row.numpy:
            return cls()
        raise DataTypeValidationError(f"{dtype} is not {cls.row.name}")

    def to_native_dtype(self) -> np.dtype[Any]:
        return self.row.numpy

    @classmethod
    def _from_json_v2(cls, data: Any) -> Self:
        raise DataTypeValidationError(f"{cls.row.name} is no data type of Zarr 2")

    @classmethod
    def _from_json_v3(cls, data: Any) -> Self:
        if data == cls.row.name:
            return cls()
        raise DataTypeValidationError(f"{data!r} is not {cls.row.name!r}")

    def to_json(self, zarr_format: int) -> Any:
        return self.row.name

    def _check_scalar(self, data: object) -> bool:
        return True

    def cast_scalar(self, data: Any) -> Any:
        return self.row.numpy.type(data)

    def default_scalar(self) -> Any:
        return self.row.numpy.type(0)

    def from_json_scalar(self, data: Any, *, zarr_format: int) -> Any:
        return self.row.numpy.type(data)

    def to_json_scalar(self, data: Any, *, zarr_format: int) -> Any:
        return float(data)

    @property
    def item_size(self) -> int:
        return self.row.numpy.itemsize


def _register() -> None:
    for row in DTYPES.values():
        if not row.is_core and row.name not in data_type_registry.contents:
            members = {"row": row, "dtype_cls": type(row.numpy), "_zarr_v3_name": row.name}
            data_type_registry.register(row.name, type(row.name, (_DataType,), members))


_register()
