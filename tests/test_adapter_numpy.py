"""NumPy's adapter, and what exports its elements as an array without an adapter of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ckptfmt_numpy
import numpy as np
import pytest

import ckptfmt
from ckptfmt.format.dtypes import Array
from ckptfmt.testing import assert_same_tree
from ckptfmt.testing.adapters import AdapterSuite
from ckptfmt.testing.strategies import filled


class TestNumpy(AdapterSuite):
    adapter = ckptfmt_numpy.ADAPTER

    def tensor(self, array: Array) -> Any:
        return array.copy()

    def array(self, tensor: Any) -> Array:
        assert type(tensor) is np.ndarray
        return tensor

    def views(self, array: Array) -> list[tuple[Any, Array]]:
        return [(view, view) for view in (array.T, array[::-2, 1:], np.broadcast_to(array[:1], (3, 6)))]


class Exporter:
    """A tensor of a library that exports its elements by DLPack."""

    def __init__(self, array: Array, device: tuple[int, int] = (1, 0), protocol: Exception | None = None) -> None:
        self._array, self._device, self._error = array, device, protocol

    def __dlpack__(self, **options: Any) -> Any:
        if self._error is not None:
            raise self._error
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device


class Interface:
    """A tensor of a library that exports its elements by the array interface."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.__array_interface__ = array.__array_interface__


@pytest.mark.parametrize("kind", [Exporter, Interface])
@pytest.mark.parametrize("dtype", ["float64", "int16", "complex64", "uint8"])
@pytest.mark.parametrize("shape", [(), (0, 3), (4, 5)])
def test_what_exports_its_elements_is_stored(tmp_path: Path, kind: Any, dtype: str, shape: tuple[int, ...]) -> None:
    array = filled(np.dtype(dtype), shape, 5)
    ckptfmt.save(tmp_path / "c", {"a": kind(array)})
    assert_same_tree(ckptfmt.load(tmp_path / "c"), {"a": array})


def test_exported_memory_is_not_copied() -> None:
    array = np.arange(6.0)
    for value in (Exporter(array), Interface(array)):
        assert np.shares_memory(ckptfmt_numpy.ADAPTER.lower(value), array)


def test_one_memory_exported_twice_is_an_alias(tmp_path: Path) -> None:
    array = np.arange(6.0)
    ckptfmt.save(tmp_path / "c", [Exporter(array), Interface(array), array])
    with ckptfmt.open(tmp_path / "c") as checkpoint:
        assert len(checkpoint) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Exporter(np.ones(1), device=(2, 0)), "Exporter is on a device"),
        (Exporter(np.ones(1), protocol=BufferError("no such dtype")), "no such dtype"),
    ],
)
def test_what_cannot_export_is_refused_by_name(tmp_path: Path, value: Exporter, message: str) -> None:
    with pytest.raises(ckptfmt.InputError, match=message) as caught:
        ckptfmt.save(tmp_path / "c", {"layer": {"w": value}})
    assert (caught.value.code, caught.value.tensor) == ("unsupported-leaf", "layer/w")
    assert not any(tmp_path.iterdir())


class Description:
    """A shape and a dtype, as frameworks describe tensors that are to be."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)


def test_descriptions_are_templates(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c", {"a": np.arange(6.0).reshape(2, 3), "b": np.int64(7)})
    like = {"a": Description((2, 3), np.float64), "b": Description((), np.int64)}
    found = ckptfmt.load(tmp_path / "c", like=like)
    assert_same_tree(found, {"a": np.arange(6.0).reshape(2, 3), "b": np.array(7)})
