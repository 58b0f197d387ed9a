"""What pickles of torch name: storages, the functions that rebuild tensors from them, dtypes and sizes.

Nothing of torch is imported. A tensor becomes a NumPy array over its storage, with its strides; two that are the same
part of one storage become one array, so that tied weights stay tied. Sizes, dtypes, devices and Parameters become plain
values with the tags of SPEC.md section 13.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import fault
from ..format.dtypes import DTYPES, Array
from ..format.names import Path, path_label, path_text
from ..format.tree import MAX_DEPTH, Tree
from . import pickles
from .claims import count as count_of
from .claims import shown
from .gate import FEW
from .pairs import unpacked
from .pickles import AttributedDict, Global, Readable, Record
from .source import LEAVES, Loss, Tensor, is_tensor, walk

_STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexDouble": "complex128",
    "ComplexFloat": "complex64",
}
# named as in torch; those that it has and we have not are refused when a tensor has them
TORCH_DTYPES = {
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "bfloat16"),
    *("float32", "float64", "complex32", "complex64", "complex128"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
}
PACKED = {"float4_e2m1fn_x2": "float4_e2m1fn"}  # two elements in a byte, which is what torch counts
OTHER_DTYPES = ("quint8", "qint8", "qint32", "quint4x2", "quint2x4")
_LAYOUTS = ("strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "_mkldnn")

FindStorage = Callable[[str], Array]  # the bytes of a storage, by its key


class Storage:
    """A storage that a pickle refers to: its bytes, and the dtype by which it counts its elements."""

    __slots__ = ("data", "dtype", "key")

    def __init__(self, key: str, data: Array, dtype: np.dtype[Any]) -> None:
        self.key, self.data, self.dtype = key, data, dtype


class Size(tuple[Any, ...]):
    """A `torch.Size`."""


@dataclass(slots=True, eq=False, repr=False)
class Attributed:
    """A tensor with more than its elements: of a Parameter, whether it `requires_grad`; and the attributes of its
    own."""

    tensor: Any
    requires_grad: bool | None = None
    attributes: Any = None


class TensorPickle:
    """Reads pickles whose tensors lie in storages that `find` gives, with elements in `byteorder` ("<" or ">"). Their
    values stand at the path `root` of a tree.

    Without `find` tensors are left empty, and `itemsizes` tells the storages: the bytes of an element, by key.
    """

    def __init__(self, find: FindStorage | None, byteorder: Literal["<", ">"] = "<", root: Path = ()) -> None:
        self._find, self._byteorder, self._root = find, byteorder, root
        self._tensors: dict[Any, Tensor] = {}
        self._storages: dict[str, Array] = {}
        self._met, self._most = 0, FEW  # leaves and containers: containers that share items can stand for any number
        self.itemsizes: dict[str, int] = {}
        self.losses: list[Loss] = []
        self.attributes: dict[str, Tree] = {}
        self.tags: dict[Path, list[tuple[str, Any]]] = {}

    def load(self, file: Readable) -> Any:
        """The value of a pickle, with arrays for its tensors; see `plain`."""
        start = file.tell()
        value = pickles.load(file, self._table(), self._persistent)
        self._most += file.tell() - start
        return value

    def _table(self) -> Mapping[str, Callable[..., Any]]:
        table: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": _ordered,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor_v2,
            "torch._utils._rebuild_tensor_v3": self._tensor_v3,
            "torch._utils._rebuild_parameter": _parameter,
            "torch._utils._rebuild_parameter_with_state": _parameter,
            "torch._tensor._rebuild_from_type_v2": _attributed,
            "torch.Size": Size,
            "torch.device": lambda *parts: Record("torch.device", parts),
            "torch.serialization._get_layout": lambda name: Record("torch.layout", (name,)),
            "_codecs.encode": _latin1,
            "builtins.set": lambda items=(): set(items),
            "builtins.frozenset": lambda items=(): frozenset(items),
            "builtins.complex": lambda real, imag: complex(real, imag),
            "builtins.bytearray": _bytearray,
            "builtins.bytes": lambda: b"",  # as protocol 2 writes it
        }
        for module in ("torch", "torch.cuda", "torch.storage"):
            table |= {f"{module}.{name}Storage": _never for name in (*_STORAGES, "Untyped", "Typed", "QInt8", "QUInt8")}
        table |= {f"torch.{name}": _never for name in (*TORCH_DTYPES, *PACKED, *OTHER_DTYPES, *_LAYOUTS)}
        table |= {f"torch.{name}": _never for name in ("Tensor", "per_tensor_affine", "per_channel_affine")}
        table |= {f"torch.nn.parameter.{name}": _never for name in ("Parameter", "Buffer")}
        for name, kind in _UNSUPPORTED.items():
            table[f"torch._utils.{name}"] = _refusal(kind)
        return table

    def _persistent(self, identity: Any) -> Storage:
        if type(identity) is not tuple or len(identity) < 5 or _text(identity[0]) != "storage":
            raise fault("unsafe-source", f"the pickle refers to {shown(identity)}, which is no storage")
        _, kind, key, _, count, *view = identity
        if view and view[0] is not None:
            raise fault("unsupported-source", "storages that are views of others, as torch wrote before 0.4")
        name = kind.name.rpartition(".")[2].removesuffix("Storage")
        dtype = np.dtype(np.uint8) if name == "Untyped" else self._dtype(_STORAGES.get(name, name))
        key = _text(key)
        self.itemsizes.setdefault(key, dtype.itemsize)
        if self._find is None:
            return Storage(key, np.empty(0, np.uint8), dtype)
        if key not in self._storages:
            self._storages[key] = self._find(key)
        data = self._storages[key]
        if data.size < count_of(count) * dtype.itemsize:
            raise ValueError(f"storage {key} has {data.size} bytes, where {count} elements of {dtype} are said to be")
        return Storage(key, data, dtype)

    def _dtype(self, name: str) -> np.dtype[Any]:
        if name not in TORCH_DTYPES:
            raise fault("unsupported-source", f"tensors of torch's dtype {name}")
        return DTYPES[name].numpy.newbyteorder(self._byteorder)

    def _tensor_v2(
        self, storage: Storage, offset: int, size: Any, stride: Any, grad: bool, hooks: Any, metadata: Any = None
    ) -> Tensor:
        if metadata:
            raise fault("unsupported-source", "tensors that are lazily conjugated or negated")
        return self._tensor(storage, offset, size, stride)

    def _tensor_v3(
        self, storage: Storage, offset: int, size: Any, stride: Any, grad: bool, hooks: Any, dtype: Global, *more: Any
    ) -> Tensor:
        name = dtype.name.removeprefix("torch.")
        stored = np.dtype(np.uint8) if name in PACKED else self._dtype(name)
        tensor = self._tensor_v2(Storage(storage.key, storage.data, stored), offset, size, stride, grad, hooks, *more)
        if name not in PACKED:
            return tensor
        if not isinstance(tensor, np.ndarray) or not tensor.ndim:
            raise fault("unsupported-source", f"tensors of {name} without axes")
        identity = (name, id(tensor))  # the array is kept, and so its id
        return self._tensors.setdefault(identity, unpacked(tensor, DTYPES[PACKED[name]]))

    def _tensor(self, storage: Storage, offset: int, size: Any, stride: Any) -> Tensor:
        dtype = storage.dtype
        numbers = [count_of(n) for n in (offset, *size, *stride)]
        if len(size) != len(stride):
            raise ValueError(f"a tensor with offset {offset}, size {shown(size)} and stride {shown(stride)}")
        identity = (storage.key, dtype.str, dtype.name, tuple(numbers))
        if identity not in self._tensors:
            shape, strides = numbers[1 : 1 + len(size)], [n * dtype.itemsize for n in numbers[1 + len(size) :]]
            array: Array
            if 0 in shape or self._find is None:
                array = np.empty(shape if 0 in shape else 0, dtype)
            else:  # NumPy checks that it lies within the storage
                array = np.ndarray(shape, dtype, storage.data, numbers[0] * dtype.itemsize, strides)
            self._tensors[identity] = array
        return self._tensors[identity]

    def tree(self, value: Any) -> Tree:
        """A loaded value as a tree of dicts, lists, tuples, tensors and plain values; `losses`, `tags` (by path) and
        `attributes` (by path text, of OrderedDicts and tensors) say what that leaves out."""
        return self._plain(value, self._root)

    def _plain(self, value: Any, path: Path) -> Tree:
        self._met += 1
        if len(path) > MAX_DEPTH:
            raise fault("too-deep", f"containers nested deeper than {MAX_DEPTH} below {path_label(path[:8])!r}")
        if self._met > min(self._most, LEAVES):
            raise fault("limit-exceeded", f"more than {min(self._most, LEAVES):,} leaves and containers")
        kind = type(value)
        if isinstance(value, dict):
            return self._dict(value, path)
        if kind is Size:
            self.tags.setdefault(path, []).append(("torch.Size", None))
        if kind in (list, tuple, Size):
            items = (self._plain(item, (*path, i)) for i, item in enumerate(value))
            return list(items) if kind is list else tuple(items)
        if kind in (set, frozenset):
            self._lose("value", path, f"a {kind.__name__} becomes a sorted list")
            return [self._plain(item, (*path, i)) for i, item in enumerate(sorted(value, key=repr))]
        if kind is bytearray:
            self._lose("value", path, "a bytearray becomes bytes")
            return bytes(value)
        if kind is Attributed:
            return self._attributed(value, path)
        if isinstance(value, Global | Record | Storage):
            return self._named(value, path)
        return value

    def _dict(self, value: dict[Any, Any], path: Path) -> Tree:
        items: dict[Any, Any] = {}
        for key, item in value.items():
            name = key
            if type(key) not in (str, int):
                name = key.name if isinstance(key, Global) else str(key)[:200]
                self._lose("nesting", path, f"the key {name!r} becomes a string")
            if name in items:
                raise fault("name-collision", f"two keys would both be {name!r}", tensor=path_label((*path, name)))
            items[name] = self._plain(item, (*path, name))
        if not isinstance(value, AttributedDict):
            return items
        if value.attributes:
            self._keep_attributes(value.attributes, path)
        return OrderedDict(items)

    def _attributed(self, value: Attributed, path: Path) -> Tree:
        if value.requires_grad is not None:
            self.tags.setdefault(path, []).append(("torch.Parameter", value.requires_grad))
        if value.attributes:
            self._keep_attributes(value.attributes, path)
        return self._plain(value.tensor, path)

    def _keep_attributes(self, attributes: Any, path: Path) -> None:
        """Attributes become metadata, as far as they are plain values."""
        reader = TensorPickle(None)
        reader._met, reader._most = self._met, self._most
        plain = reader.tree(attributes)
        self._met = reader._met
        is_plain = type(plain) in (dict, OrderedDict) and not any(is_tensor(leaf) for _, leaf in walk(plain))
        if reader.losses or reader.tags or reader.attributes or not is_plain or path_text(path) in self.attributes:
            names = ", ".join(map(str, attributes)) if isinstance(attributes, dict) else type(attributes).__name__
            self._lose("metadata", path, f"attributes are left out: {names:.200}")
        else:
            self.attributes[path_text(path)] = plain

    def _named(self, value: Global | Record | Storage, path: Path) -> Tree:
        if isinstance(value, Storage):
            self._lose("value", path, "a storage becomes a tensor")
            return self._tensor(value, 0, (value.data.size // value.dtype.itemsize,), (1,))
        name = value.name.removeprefix("torch.")
        if isinstance(value, Global) and name in (*TORCH_DTYPES, *PACKED, *OTHER_DTYPES):
            self.tags.setdefault(path, []).append(("torch.dtype", None))
            return name
        if isinstance(value, Record) and name == "device":
            self.tags.setdefault(path, []).append(("torch.device", None))
            return ":".join(str(part) if type(part) in (str, int) else shown(part) for part in value.arguments)
        text = value.name if isinstance(value, Global) else f"{value.name} of {shown(value.arguments)}"
        self._lose("value", path, f"{text} becomes a string")
        return text

    def _lose(self, kind: str, path: Path, message: str) -> None:
        self.losses.append(Loss(kind, path_label(path), message))


_UNSUPPORTED = {
    "_rebuild_sparse_tensor": "sparse tensors",
    "_rebuild_sparse_csr_tensor": "sparse tensors",
    "_rebuild_qtensor": "quantised tensors",
    "_rebuild_nested_tensor": "nested tensors",
    "_rebuild_meta_tensor_no_storage": "tensors of the meta device, which have no values",
    "_rebuild_wrapper_subclass": "tensors of wrapper subclasses",
    "_rebuild_device_tensor_from_numpy": "tensors of devices that are saved through NumPy",
    "_rebuild_device_tensor_from_cpu_tensor": "tensors of devices that are saved through the CPU",
}


def _refusal(kind: str) -> Callable[..., Any]:
    def refuse(*_: Any) -> Any:
        raise fault("unsupported-source", kind)

    return refuse


def _never(*_: Any) -> Any:
    raise fault("unsafe-source", "the pickle calls what only stands for a dtype or a class")


def _ordered(items: Any = ()) -> AttributedDict:
    return AttributedDict(items)


def _parameter(tensor: Any, requires_grad: Any, hooks: Any, state: Any = None) -> Attributed:
    return Attributed(tensor, bool(requires_grad), state)


def _attributed(made: Global, kind: Any, arguments: Any, state: Any) -> Attributed:
    """A tensor with attributes of its own, of a class that the table knows."""
    found = made.make(*arguments)
    if isinstance(found, Attributed):
        return Attributed(found.tensor, found.requires_grad, state)
    return Attributed(found, None, state)


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise fault("unsafe-source", f"the pickle encodes a string as {encoding!r}")
    return text.encode("latin1")


def _bytearray(data: Any = b"", encoding: str = "latin1") -> bytearray:
    if isinstance(data, int):  # would be that many zeros
        raise fault("unsafe-source", "the pickle asks for memory by a number")
    return bytearray(_latin1(data, encoding) if isinstance(data, str) else data)


def _text(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise ValueError(f"{shown(value)} stands for a text")
    return value.decode("ascii") if isinstance(value, bytes) else value
