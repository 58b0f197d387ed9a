"""HDF5 through h5py: groups are dicts, datasets tensors, hard links to one dataset aliases. Keras's `.weights.h5` too.

Bytes are mapped as they lie only where the stored type is the very one that NumPy has; whatever else HDF5 knows how to
convert (other precisions, offsets, complex numbers laid out otherwise) it converts as it reads. Chunks that are not
there are the fill value, as HDF5 says. Links to other files and datasets whose bytes lie in other files are refused.
Attributes become metadata.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import CkptError, fault
from ...format.dtypes import DTYPES, Array, DType, dtype_of
from ...format.names import Path, path_label, path_text
from ...format.tree import MAX_DEPTH, Tree
from ...packages import package
from .. import hdf5_attributes
from ..archive import Window
from ..fit import CORE, Holds
from ..hdf5_attributes import ATTRIBUTES, DTYPE, OPAQUE, is_opaque, kept
from ..hdf5_bounds import Bounds, leads_out
from ..losses import LeftOut
from ..probe import Probe
from ..source import (
    Advance,
    LazyArray,
    Loss,
    OpenedSource,
    SourceTensor,
    array_over,
    check_strings,
    cut_off,
    is_tensor,
    mapped_file,
    nbytes,
    parsing,
    slabs,
    truths,
)

SIGNATURE = b"\x89HDF\r\n\x1a\n"
USER_BLOCKS = (0, 512, 1024, 2048)  # bytes that may stand before the signature; larger ones are rare
KERAS = "keras_version"  # an attribute of the older form of Keras's files
KERAS_INDEX = ".weights.json"
KERAS_SHARD = re.compile(r"(.+)_\d{5}\.weights\.h5").fullmatch
_is_cut_off = re.compile(r"truncated file: eof = ([0-9]+), .*stored_eof = ([0-9]+)").search  # as HDF5 says it
BFLOAT16 = ((15, 7, 8, 0, 7), 16, 127)  # sign, exponent and mantissa (bits), precision, bias; as HDF5 2.0 has it


def check_name(name: str, _: Collection[str]) -> None:
    """Refuse names that no link can have; raises `unsupported-key`."""
    if name in ("", ".", "..") or set(name) & {"/", "\0"}:
        raise fault("unsupported-key", f"HDF5 has no links with the name {name!r}")


HOLDS = Holds(dtypes=CORE | {OPAQUE}, containers=(dict,), check_name=check_name, aliases=True, metadata=kept)


def looks_like(probe: Probe) -> bool:
    return any(probe.head.startswith(SIGNATURE, at) for at in USER_BLOCKS)


def read(path: str) -> OpenedSource:
    source = read_file(path)
    return replace(source, losses=(*_shards(path), *source.losses))


def read_file(path: str, data: Array | None = None) -> OpenedSource:
    """What is in a file, or in `data`, which is a part of it, whatever lies beside it."""
    h5py = package("h5py", "HDF5")
    with ExitStack() as stack:
        file = stack.enter_context(_opened(h5py, path if data is None else Window(data)))
        walker = _Hdf5Walker(h5py, path, file, mapped_file(path) if data is None else data)
        tree = walker.group(file, ())
        walker.left_out.check(tree)
        metadata = {ATTRIBUTES: walker.attributes} if walker.attributes else None
        return OpenedSource(tree, metadata, tuple(walker.losses), resources=stack.pop_all())


def _opened(h5py: Any, file: str | Window) -> Any:
    try:
        # chunks are decoded once, in rows of them: a cache with each dataset would hold a part of each until the end
        return h5py.File(file, "r", rdcc_nbytes=0)
    except OSError as error:
        if (found := _is_cut_off(str(error))) is not None:
            raise cut_off(int(found[1]), int(found[2])) from error
        raise


def _shards(path: str) -> list[Loss]:
    """What a file says by its name that there is beside it: Keras's other shards."""
    found = KERAS_SHARD(os.path.basename(path))
    index = None if found is None else f"{found[1]}{KERAS_INDEX}"
    if index is None or not os.path.isfile(os.path.join(os.path.dirname(path), index)):
        return []
    return [Loss("missing", "", f"it is one of the shards of {index}, whose others are not read")]


class _Hdf5Walker:
    def __init__(self, h5py: Any, path: str, file: Any, data: Array) -> None:
        self.h5py, self.path = h5py, path
        self.number = h5py.h5o.get_info(file.id).fileno
        self.file, self.data = file, data
        self.bounds = Bounds(h5py, self.data)
        self.tensors: dict[Any, Any] = {}
        self.attributes: dict[str, Tree] = {}
        self.losses: list[Loss] = []
        self.left_out = LeftOut(self.losses)

    def lose(self, kind: str, path: Path, message: str) -> None:
        self.losses.append(Loss(kind, path_label(path), message))

    def group(self, group: Any, path: Path) -> Tree:
        if len(path) > MAX_DEPTH:  # also where a group holds itself
            raise fault("too-deep", f"groups nested deeper than {MAX_DEPTH}")
        self.bounds.visit()
        self.note_attributes(group, path)
        tree: dict[str, Any] = {}
        for name in group:
            if isinstance(name, bytes):
                raise fault("unsupported-source", f"the name {name!r} below {path_label(path)!r} is not UTF-8")
            place = (*path, name)
            item = self.item(group, name, place)
            if isinstance(item, self.h5py.Group):
                tree[name] = self.group(item, place)
            elif isinstance(item, self.h5py.Dataset):
                key = self.h5py.h5o.get_info(item.id).addr
                try:
                    tree[name] = self.tensors[key] if key in self.tensors else self.dataset(item, place)
                except CkptError as error:
                    self.left_out.add(error)
                    self.attributes.pop(path_text(place), None)
                else:
                    self.tensors[key] = tree[name]
            elif item is not None:
                self.lose("value", place, "a named datatype is left out")
        return tree

    def item(self, group: Any, name: str, path: Path) -> Any:
        """What a link leads to; None where it leads nowhere. Raises `unsafe-source` where it leads out of the file."""
        link = group.get(name, getlink=True, getclass=True)
        outside = fault("unsafe-source", f"{path_label(path)!r} is a link into another file")
        if leads_out(self.h5py, self.file, group, name):
            raise outside
        try:
            item = group[name]
        except KeyError:
            if link is not self.h5py.SoftLink:
                raise
            self.lose("value", path, "a link that leads nowhere is left out")
            return None
        if self.h5py.h5o.get_info(item.id).fileno != self.number:
            raise outside
        return item

    def dataset(self, dataset: Any, path: Path) -> Any:
        where = path_label(path)
        self.note_attributes(dataset, path, without=None if self.told(dataset) is None else DTYPE)
        if dataset.external or dataset.is_virtual:
            raise fault("unsafe-source", f"the bytes of {where!r} lie in other files", tensor=where)
        dtype = self.dtype(dataset, where)
        if dataset.shape is None:
            self.lose("value", path, "a dataset that has a type alone, and no elements, becomes None")
            return None
        self.check_filters(dataset, where)
        unit = self.bounds.check_chunks(dataset, where)
        if self.h5py.check_string_dtype(dataset.dtype) is not None:
            check_strings(dataset.shape, dataset.dtype, where)
            return self.bounds.strings(dataset, where)
        if self.h5py.check_enum_dtype(dataset.dtype):
            self.lose("metadata", path, "the names of an enumeration's values are left out")
        # of one that was never written, HDF5 gives a wrong place, not none, where the file has a user block
        offset = dataset.id.get_offset() if self.is_written(dataset) else None
        if offset is not None and self.is_raw(dataset):  # contiguous
            return array_over(self.data, offset, dtype, dataset.shape)

        def part(index: tuple[slice, ...]) -> Any:
            with parsing(self.path):
                if self.is_bfloat16(dataset):
                    return self.unconverted(dataset, index).view(dtype)
                found = np.asarray(dataset[index] if dataset.shape else dataset[()])
                return found.view(dtype) if found.dtype.kind == "V" else found

        return LazyArray(dataset.shape, dtype, part, dataset.chunks[0] if dataset.chunks else 1, unit=unit)

    def dtype(self, dataset: Any, where: str) -> np.dtype[Any]:
        """The dtype of a dataset's elements as they are read; raises `unsupported-source`."""
        try:
            found: np.dtype[Any] = dataset.dtype
        except (TypeError, ValueError) as error:  # that NumPy has none for it
            why = f"{where!r} has a type that NumPy lacks: {error}"
            raise fault("unsupported-source", why, tensor=where) from error
        if self.is_bfloat16(dataset):
            is_big = dataset.id.get_type().get_order() == self.h5py.h5t.ORDER_BE
            return DTYPES["bfloat16"].numpy.newbyteorder(">" if is_big else "<")
        row = self.told(dataset)
        if row is not None:
            return row.numpy
        is_text = self.h5py.check_string_dtype(found) is not None
        if found.kind not in "mM" and dtype_of(found) is None and not is_text:
            raise fault("unsupported-source", f"{where!r} has the dtype {found}", tensor=where)
        return found if is_text else np.dtype(found.str)  # without what h5py notes with it

    def told(self, dataset: Any) -> DType | None:
        """What the elements of a dataset are that are stored as opaque bytes, as Keras says it in an attribute, or does
        not in its older form of files: there two bytes can be nothing else."""
        if not isinstance(dataset.id.get_type(), self.h5py.h5t.TypeOpaqueID):
            return None
        if DTYPE in dataset.attrs:
            self.bounds.check_attribute(dataset.attrs, DTYPE)
            said = dataset.attrs[DTYPE]
        else:
            said = OPAQUE if KERAS in self.file.attrs else None
        row = DTYPES.get(said) if isinstance(said, str) else None
        is_it = row is not None and dataset.dtype.kind == "V" and row.numpy.itemsize == dataset.dtype.itemsize
        return row if is_it else None

    def is_written(self, dataset: Any) -> bool:
        """Whether a dataset that is not cut into chunks has its bytes; if not, it is its fill value."""
        return bool(dataset.id.get_space_status() == self.h5py.h5d.SPACE_STATUS_ALLOCATED)

    def is_raw(self, dataset: Any) -> bool:
        """Whether elements lie in the file as they do in memory."""
        stored = dataset.id.get_type()
        return bool(stored.equal(self.h5py.h5t.py_create(dataset.dtype, logical=True))) or self.is_bfloat16(dataset)

    def is_bfloat16(self, dataset: Any) -> bool:
        """Whether the stored type is a float of the very bits of bfloat16, which HDF5 gives as float32."""
        stored = dataset.id.get_type()
        if not isinstance(stored, self.h5py.h5t.TypeFloatID) or stored.get_size() != 2:
            return False
        return (stored.get_fields(), stored.get_precision(), stored.get_ebias()) == BFLOAT16

    def unconverted(self, dataset: Any, index: tuple[slice, ...]) -> Array:
        """A part of a dataset with elements of 2 bytes, as they are stored."""
        bounds = [axis.indices(n) for axis, n in zip(index, dataset.shape, strict=False)]
        bounds += [(0, n, 1) for n in dataset.shape[len(bounds) :]]
        count = tuple(stop - start for start, stop, _ in bounds)
        found = np.empty(count, np.uint16)
        space = dataset.id.get_space()
        if count:
            space.select_hyperslab(tuple(start for start, _, _ in bounds), count)
        if found.size:
            memory = self.h5py.h5s.create_simple(count) if count else self.h5py.h5s.create(self.h5py.h5s.SCALAR)
            dataset.id.read(memory, space, found, dataset.id.get_type())
        return found

    def check_filters(self, dataset: Any, where: str) -> None:
        """Refuse chunks that went through a filter which this HDF5 lacks; raises `unsupported-source`."""
        applied = dataset.id.get_create_plist()
        for number in range(applied.get_nfilters()):
            code, _, _, name = applied.get_filter(number)
            if self.h5py.h5z.filter_avail(code) or not _is_used(dataset, number):
                continue
            text = f"{where!r} has the filter {code} ({name.decode(errors='replace')}), which this h5py lacks"
            raise fault("unsupported-source", text, tensor=where)

    def note_attributes(self, item: Any, path: Path, without: str | None = None) -> None:
        for name in item.attrs:
            if name == without:
                continue
            try:
                self.bounds.check_attribute(item.attrs, name)
                value = hdf5_attributes.plain(item.attrs[name])
                f"{name}".encode()
            except (TypeError, OSError, ValueError):
                self.lose("metadata", path, f"the attribute {name!r} is left out")
            else:
                self.attributes.setdefault(path_text(path), {})[name] = value


def _is_used(dataset: Any, filter: int) -> bool:
    """Whether any chunk went through a filter, which an optional one need not."""
    return any(not dataset.id.get_chunk_info(i).filter_mask >> filter & 1 for i in range(dataset.id.get_num_chunks()))


def write(path: str, tree: Tree, metadata: Tree, advance: Advance) -> None:
    """Write contiguous datasets in groups, with their attributes; what stands twice is linked."""
    h5py = package("h5py", "HDF5")
    attributes = (metadata or {}).get(ATTRIBUTES, {})
    written: dict[int, Any] = {}

    def fill(group: Any, items: dict[str, Any], path: Path) -> None:
        hdf5_attributes.write(h5py, group, attributes.get(path_text(path), {}))
        for name, item in items.items():
            place = (*path, name)
            if not is_tensor(item):
                fill(group.create_group(name), item, place)
            elif id(item) in written:
                group[name] = written[id(item)]
            else:
                dataset = written[id(item)] = _dataset(group, name, item, advance)
                hdf5_attributes.write(h5py, dataset, attributes.get(path_text(place), {}))

    with h5py.File(path, "w", track_order=True, locking=False) as file:
        fill(file, tree, ())


def _dataset(group: Any, name: str, tensor: SourceTensor, advance: Advance) -> Any:
    """A dataset with the elements of a tensor; bfloat16 as Keras has it, which HDF5 lacked before 2.0."""
    opaque = is_opaque(tensor)
    dtype = np.dtype(f"V{tensor.dtype.itemsize}") if opaque else tensor.dtype.newbyteorder("<")
    dataset = group.create_dataset(name, tensor.shape, dtype)
    if opaque:
        dataset.attrs[DTYPE] = OPAQUE
    if nbytes(tensor):
        for index in slabs(tensor):
            part = truths(tensor[index])
            if opaque:
                part = np.ascontiguousarray(part, part.dtype.newbyteorder("<")).view(dtype)
            dataset[index if tensor.shape else ()] = part
    advance(nbytes(tensor))
    return dataset
