"""The array formats: NumPy's npz, HDF5 through h5py, Zarr through zarr-python and TensorStore."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from benchmarks import disk
from benchmarks.contenders.contender import Contender, SliceCode, as_uint16
from benchmarks.states import Array


class UintContender(Contender):
    """A format without bfloat16: the same bytes go in as uint16."""

    def adopt(self, arrays: Mapping[str, Array]) -> Any:
        return {name: as_uint16(array) for name, array in arrays.items()}


class Npz(UintContender):
    """NumPy's own container."""

    name = "np.savez"
    note = "uint16 views. A slice reads the whole member: the format has no other way."
    requires = ("numpy",)
    faces = frozenset({"open"})
    slice = SliceCode("import numpy as np", "part = np.load(path)[name][start:stop]")

    def save(self, path: Path, tree: Any) -> None:
        import numpy as np

        # A handle, because np.savez appends ".npz" to a name without it.
        with path.open("wb") as file:
            np.savez(file, **tree)

    def load(self, path: Path) -> Mapping[str, Any]:
        import numpy as np

        with np.load(path) as archive:
            return dict(archive)

    def open(self, path: Path) -> Collection[str]:
        import numpy as np

        with np.load(path) as archive:
            return list(archive)


class Hdf5(UintContender):
    """HDF5 with contiguous datasets."""

    name = "h5py"
    note = "uint16 views, contiguous datasets, defaults."
    requires = ("h5py",)
    faces = frozenset({"open"})
    slice = SliceCode("import h5py", 'with h5py.File(path, "r") as file: part = file[name][start:stop]')

    def save(self, path: Path, tree: Any) -> None:
        import h5py

        with h5py.File(path, "w") as file:
            for name, array in tree.items():
                file.create_dataset(name, data=array)

    def load(self, path: Path) -> Mapping[str, Any]:
        import h5py

        with h5py.File(path, "r") as file:
            return {name: dataset[()] for name, dataset in file.items()}

    def open(self, path: Path) -> Collection[str]:
        import h5py

        with h5py.File(path, "r") as file:
            return list(file)


class ZarrPython(UintContender):
    """zarr-python over a LocalStore."""

    name = "zarr-python"
    note = (
        "Zarr v3, LocalStore, uint16 views, raw, one chunk a tensor; a slice reads the whole chunk. "
        "Left out of the 20,000 small tensors: about 4 ms each to write, 1.5 ms each to read."
    )
    requires = ("zarr",)
    faces = frozenset({"open"})
    slice = SliceCode("import zarr", 'part = zarr.open_group(path, mode="r")[name][start:stop]')
    slow = True
    tedious = True

    def save(self, path: Path, tree: Any) -> None:
        import zarr

        group = zarr.create_group(path)
        for name, array in tree.items():
            group.create_array(name, data=array, chunks=array.shape, compressors=None)

    def load(self, path: Path) -> Mapping[str, Any]:
        import zarr

        return {name: array[...] for name, array in zarr.open_group(path, mode="r").arrays()}

    def open(self, path: Path) -> Collection[str]:
        import zarr

        return [name for name, _ in zarr.open_group(path, mode="r").arrays()]


class TensorStore(Contender):
    """TensorStore's zarr3 driver over files, everything in flight at once."""

    name = "TensorStore"
    note = "zarr3 driver, defaults, all tensors in flight at once; not durable: `file_io_sync` off."
    requires = ("tensorstore",)
    slice: SliceCode | None = SliceCode(
        "import tensorstore as ts",
        'spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path + "/" + name}}\n'
        "part = ts.open(spec).result()[start:stop].read().result()",
    )
    slow = True

    def _spec(self, path: Path, name: str) -> dict[str, Any]:
        return {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / name)}}

    def _save(self, path: Path, tree: Any, *, sync: bool) -> None:
        import tensorstore as ts

        context = ts.Context({"file_io_sync": sync})
        opening = {
            name: ts.open(self._spec(path, name), create=True, dtype=array.dtype, shape=array.shape, context=context)
            for name, array in tree.items()
        }
        writing = [
            opening[name].result().write(array, can_reference_source_data_indefinitely=True)
            for name, array in tree.items()
        ]
        for write in writing:
            write.result()

    def save(self, path: Path, tree: Any) -> None:
        self._save(path, tree, sync=False)

    def save_durable(self, path: Path, tree: Any) -> None:
        self._save(path, tree, sync=True)
        disk.fsync(path)

    def load(self, path: Path) -> Mapping[str, Any]:
        import tensorstore as ts

        opening = {name: ts.open(self._spec(path, name)) for name in os.listdir(path)}
        reading = {name: store.result().read() for name, store in opening.items()}
        return {name: read.result() for name, read in reading.items()}
