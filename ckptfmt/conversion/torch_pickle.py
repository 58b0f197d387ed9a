"""What pickles of torch name: storages, the functions that rebuild tensors from them, dtypes and sizes.

Nothing of torch is imported. A tensor becomes a NumPy array over its storage, with its strides; two that are the same
part of one storage become one array, so that tied weights stay tied. Sizes, dtypes, devices and Parameters become plain
values with the tags of SPEC.md section 13. What has no place among them is left out, and its place becomes a loss.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from ..errors import CkptError, fault
from ..format.dtypes import DTYPES, Array
from ..format.names import Path, path_label, path_text
from ..format.tags import TAGS, TENSOR_SUBCLASS
from ..format.tree import MAX_DEPTH, Tree
from ..format.values import CONTAINERS
from ..frameworks.values import Lowered, order, parts_of
from ..writing.encoder import encode
from . import numpy_pickle, pickles, torch_values
from .checked import BytesCheck, checked
from .claims import count as count_of
from .claims import shown
from .gate import FEW
from .pairs import unpacked
from .pickles import AttributedDict, Global, OtherDict, OtherList, Readable, Record, Unknown
from .source import LEAVES, LazyArray, Loss, SourceTensor, check_strings, is_tensor, nbytes, plain_text, walk
from .torch_values import (
    PLAIN_TENSORS,
    Attributed,
    Nothing,
    Replaced,
    TorchSize,
    lazily,
    never,
    of_record,
    quantised,
    short,
)

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
_QUANTISED = {"QInt8": "int8", "QUInt8": "uint8", "QInt32": "int32"}  # storages, and what lies in them
_OTHER_STORAGES = ("Untyped", "Typed", *_QUANTISED, "QUInt4x2", "QUInt2x4")
LEFT: Any = object()  # stands for what is left out

FindStorage = Callable[[str], tuple[Array, BytesCheck | None]]  # bytes of a storage by its key, and what checks them


class TorchStorage:
    """A storage that a pickle refers to: its bytes, the dtype by which it counts its elements (None where NumPy has
    none), and the name of its kind."""

    __slots__ = ("data", "dtype", "key", "kind")

    def __init__(self, key: str, data: Array, dtype: np.dtype[Any] | None, kind: str) -> None:
        self.key, self.data, self.dtype, self.kind = key, data, dtype, kind


class TensorPickle:
    """Reads pickles whose tensors lie in storages that `find` gives, with elements in `byteorder` ("<" or ">"). Their
    values stand at the path `root` of a tree. Storages are checked when a tensor of them is read.

    Without `find` tensors are left empty, and `itemsizes` tells the storages: the bytes of an element, by key.
    """

    def __init__(self, find: FindStorage | None, byteorder: Literal["<", ">"] = "<", root: Path = ()) -> None:
        self._find, self._byteorder, self._root = find, byteorder, root
        self._tensors: dict[Any, SourceTensor] = {}
        self._storages: dict[str, tuple[Array, BytesCheck | None]] = {}
        self._checks: dict[int, BytesCheck] = {}  # of tensors, by identity: of the storages in which they lie
        self._checked: dict[int, LazyArray] = {}  # the tensors of these, as the tree has them
        self._met, self._most = 0, FEW  # leaves and containers: containers that share items can stand for any number
        self._users: dict[str, set[int]] = {}  # the tensors over each storage, by its key
        self._lazily: dict[int, str] = {}  # those that are conjugated or negated, and the key of their storage
        self._placed: set[int] = set()  # the tensors that the tree holds
        self._numpy: dict[int, Any] = {}  # arrays and scalars, by the identity of their record
        self.itemsizes: dict[str, int] = {}
        self.losses: list[Loss] = []
        self.attributes: dict[str, Tree] = {}
        self.tags: dict[Path, list[tuple[str, Any]]] = {}

    def load(self, file: Readable, data: Array | None = None) -> Any:
        """The value of a pickle, with arrays for its tensors; see `plain`. `data`: as of `pickles.load`."""
        start = file.tell()
        value = pickles.load(file, self._table(), self._persistent, is_strict=False, data=data)
        self._most += file.tell() - start
        return value

    def _table(self) -> Mapping[str, Callable[..., Any]]:
        table: dict[str, Callable[..., Any]] = {
            **torch_values.TABLE,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor_v2,
            "torch._utils._rebuild_tensor_v3": self._tensor_v3,
            "torch._utils._rebuild_qtensor": self._quantised,
        }
        for module in ("torch", "torch.cuda", "torch.storage"):
            table |= {f"{module}.{name}Storage": never for name in (*_STORAGES, *_OTHER_STORAGES)}
        return table | {f"torch.{name}": never for name in (*TORCH_DTYPES, *PACKED, *OTHER_DTYPES)}

    def _persistent(self, identity: Any) -> TorchStorage:
        if type(identity) is not tuple or len(identity) < 5 or _text(identity[0]) != "storage":
            raise fault("unsafe-source", f"the pickle refers to {shown(identity)}, which is no storage")
        _, kind, key, _, count, *view = identity
        if view and view[0] is not None:
            raise fault("unsupported-source", "storages that are views of others, as torch wrote before 0.4")
        name = kind.name.rpartition(".")[2].removesuffix("Storage")
        dtype = np.dtype(np.uint8) if name == "Untyped" else self._dtype(_STORAGES.get(name) or _QUANTISED.get(name))
        key = _text(key)
        if dtype is not None:
            self.itemsizes.setdefault(key, dtype.itemsize)
        if self._find is None:
            return TorchStorage(key, np.empty(0, np.uint8), dtype, name)
        if key not in self._storages:
            self._storages[key] = self._find(key)
        data, _ = self._storages[key]
        if dtype is not None and data.size < count_of(count) * dtype.itemsize:
            raise ValueError(f"storage {key} has {data.size} bytes, where {count} elements of {dtype} are said to be")
        return TorchStorage(key, data, dtype, name)

    def _dtype(self, name: str | None) -> np.dtype[Any] | None:
        """That of a name of torch, in the file's byte order; None if there is none."""
        return DTYPES[name].in_order(self._byteorder) if name in TORCH_DTYPES and name in DTYPES else None

    def _tensor_v2(
        self, storage: TorchStorage, offset: int, size: Any, stride: Any, grad: bool, hooks: Any, metadata: Any = None
    ) -> Any:
        tensor = self._tensor(storage, offset, size, stride)
        if metadata and type(tensor) is not Nothing:
            tensor = self._resolved(tensor, metadata, storage.key)
        self._users.setdefault(storage.key, set()).add(id(tensor))
        return tensor

    def _resolved(self, tensor: Array, metadata: Any, key: str) -> SourceTensor:
        """The elements of a tensor that torch conjugates or negates when they are looked at."""
        kinds = {name: bool(metadata.get(name)) for name in ("conj", "neg")}
        if not set(metadata) <= set(kinds) or not isinstance(tensor, np.ndarray):
            raise ValueError(f"a tensor with {shown(metadata)}")
        identity = (*kinds.items(), id(tensor))  # the array is kept, and so its id
        resolved = self._tensors.setdefault(identity, lazily(tensor, **kinds))
        self._lazily[id(resolved)] = key
        return self._to_check(resolved, key)

    def _tensor_v3(
        self, storage: TorchStorage, offset: int, size: Any, stride: Any, grad: bool, hooks: Any, dtype: Any, *more: Any
    ) -> Any:
        name = dtype.name.removeprefix("torch.")
        stored = np.dtype(np.uint8) if name in PACKED else self._dtype(name)
        whole = TorchStorage(storage.key, storage.data, stored, name)
        tensor = self._tensor_v2(whole, offset, size, stride, grad, hooks, *more)
        if name not in PACKED or type(tensor) is Nothing:
            return tensor
        if not isinstance(tensor, np.ndarray) or not tensor.ndim:
            return Nothing(f"a tensor of {name} without axes")
        identity = (name, id(tensor))  # the array is kept, and so its id
        found = self._tensors.setdefault(identity, unpacked(tensor, DTYPES[PACKED[name]]))
        return self._to_check(found, storage.key)

    def _quantised(self, storage: TorchStorage, offset: int, size: Any, stride: Any, scheme: Any, *_: Any) -> Any:
        if storage.kind not in _QUANTISED:
            return Nothing(f"a quantised tensor of {storage.kind}")
        return quantised(self._tensor(storage, offset, size, stride), storage.kind.lower(), scheme)

    def _tensor(self, storage: TorchStorage, offset: int, size: Any, stride: Any) -> Any:
        dtype = storage.dtype
        if dtype is None:
            return Nothing(f"a tensor of {storage.kind}")
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
        return self._to_check(self._tensors[identity], storage.key)

    def _to_check(self, tensor: SourceTensor, key: str) -> SourceTensor:
        """A tensor of a storage, which is checked when it is read."""
        _, check = self._storages.get(key, (None, None))
        if check is not None:
            self._checks[id(tensor)] = check
        return tensor

    def tree(self, value: Any) -> Tree:
        """A loaded value as a tree of dicts, lists, tuples, tensors and plain values; `losses`, `tags` (by path) and
        `attributes` (by path text, of OrderedDicts and tensors) say what that leaves out. `LEFT` if it is all of it."""
        return self._plain(value, self._root)

    def left_out(self) -> tuple[int, int]:
        """How many tensors, and bytes of them, the pickle has that the tree does not hold."""
        placed = set(self._placed)
        left: list[SourceTensor] = []
        for identity, tensor in reversed(self._tensors.items()):  # what is made of another one comes after it
            if type(identity[-1]) is tuple:
                left += [] if id(tensor) in placed else [tensor]
            elif id(tensor) in placed:
                placed.add(identity[-1])
        return len(left), sum(map(nbytes, left))

    def _plain(self, value: Any, path: Path) -> Any:
        self._met += 1
        if len(path) > MAX_DEPTH:
            raise fault("too-deep", f"containers nested deeper than {MAX_DEPTH} below {path_label(path[:8])!r}")
        if self._met > min(self._most, LEAVES):
            raise fault("limit-exceeded", f"more than {min(self._most, LEAVES):,} leaves and containers")
        match value:
            case Lowered() | Record() if (
                parts := of_record(value) if isinstance(value, Record) else value
            ) is not None:
                plain = self._plain(parts.child, path)
                self._say(parts._replace(child=plain), path, "its parts")
                return plain
            case dict():
                return self._dict(value, path)
            case list() | tuple():
                return self._sequence(value, path)
            case set() | frozenset():
                return self._set(value, path)
            case Attributed():
                return self._attributed(value, path)
            case Replaced(message, other):
                self._lose("value", path, message)
                return self._plain(other, path)
            case Unknown(name, True):
                self._lose("value", path, f"the module {name} is left out: save its state_dict() instead")
                return LEFT
            case Unknown(name) | Nothing(name):
                self._lose("value", path, f"{name} is left out: it is neither a tensor nor plain data")
                return LEFT
            case Global() | Record() | TorchStorage():
                return self._named(value, path)
            case LazyArray() if len(self._users.get(self._lazily.get(id(value), ""), ())) > 1:
                self._lose("alias", path, "shares a storage with others, and becomes a copy")
        if isinstance(value, np.ndarray | LazyArray):
            return self._array(self._taken(value), path)
        parts = None if isinstance(value, np.generic) else parts_of(value)
        return value if parts is None else self._plain(parts, path)

    def _taken(self, tensor: SourceTensor) -> SourceTensor:
        """A tensor as the tree has it."""
        self._placed.add(id(tensor))
        check = self._checks.get(id(tensor))
        return tensor if check is None else self._checked.setdefault(id(tensor), checked(tensor, check))

    def _array(self, value: SourceTensor, path: Path) -> Any:
        return value

    def _say(self, parts: Lowered, path: Path, other: str) -> None:
        """That the child that was given stands for a value; a loss, if it does not."""
        try:
            node = encode(parts.child, allow_tensors=False).node
            is_fit = TAGS[parts.tag].accepts(encode(parts.param).node, node, ())
        except CkptError:
            is_fit = parts.tag in CONTAINERS or parts.tag == TENSOR_SUBCLASS  # which may hold tensors
        if is_fit:
            self._tag(path, parts.tag, parts.param)
        else:
            self._lose("value", path, f"a {parts.tag.removeprefix('python.')} becomes {other}")

    def _set(self, value: set[Any] | frozenset[Any], path: Path) -> Tree:
        members = sorted(value, key=self._order)
        found = [self._plain(item, (*path, i)) for i, item in enumerate(members)]
        kept = [item for item in found if item is not LEFT]
        if len(kept) == len(found) and not any(map(is_tensor, found)):
            self._tag(path, f"python.{type(value).__name__}")
        else:
            self._lose("value", path, f"a {type(value).__name__} becomes a sorted list")
        return kept

    def _sequence(self, value: list[Any] | tuple[Any, ...], path: Path) -> Tree:
        if isinstance(value, OtherList):
            self._kind(value, path, "list")
        if isinstance(value, TorchSize):
            self._tag(path, "torch.Size")
        items = [self._plain(item, (*path, i)) for i, item in enumerate(value)]
        if any(item is LEFT for item in items):
            items = [None if item is LEFT else item for item in items]  # what follows keeps its place
        return items if isinstance(value, list) else tuple(items)

    def _dict(self, value: dict[Any, Any], path: Path) -> Tree:
        if isinstance(value, OtherDict):
            self._kind(value, path, "dict")
        items: dict[Any, Any] = {}
        for key, item in value.items():
            name = self._key(key, path)
            if name in items:
                message, advice = f"two keys would both be {name!r}", "Rename one of them where the file is made"
                raise fault("name-collision", message, tensor=path_label((*path, name)), advice=advice)
            plain = LEFT if name is LEFT else self._plain(item, (*path, name))
            if plain is not LEFT:
                items[name] = plain
        if not isinstance(value, AttributedDict):
            return items
        if value.attributes:
            self._keep_attributes(value.attributes, path, of_dict=True)
        return OrderedDict(items)

    def _kind(self, value: OtherList | OtherDict, path: Path, other: str) -> None:
        if value.tag:
            self._tag(path, value.tag, value.param)
        else:
            self._lose("value", path, f"a {value.name} becomes a {other}")

    def _key(self, key: Any, path: Path) -> Any:
        """The key of a dict as text or an int; `LEFT` if nothing is known of it."""
        if type(key) in (str, int):
            return key
        if isinstance(key, Record) and isinstance(found := self._of_numpy(key), np.generic):
            key = found
        if isinstance(key, Lowered):
            key = key.child
        if isinstance(key, Global):
            name = key.name
        elif _is_plain_key(key):
            name = str(key)[:200]
        else:
            called = getattr(key, "name", type(key).__name__)
            self._lose("nesting", path, f"an item is left out whose key is a {called}")
            return LEFT
        self._lose("nesting", path, f"the key {name!r} becomes a string")
        return name

    def _order(self, item: Any) -> tuple[Any, ...]:
        """By which the items of a set are sorted."""
        found = self._of_numpy(item) if isinstance(item, Record) else None
        return order(getattr(item, "name", item) if found is None else found)

    def _of_numpy(self, found: Record) -> Any:
        """The array or scalar of NumPy that a record stands for, the same each time; None if it is none."""
        if id(found) not in self._numpy:
            self._numpy[id(found)] = numpy_pickle.value_of(found)
        return self._numpy[id(found)]

    def _attributed(self, value: Attributed, path: Path) -> Any:
        if value.requires_grad is not None:
            self._tag(path, "torch.Parameter", value.requires_grad)
        if value.attributes:
            self._keep_attributes(value.attributes, path)
        if value.name not in PLAIN_TENSORS:
            self._lose("value", path, f"a {value.name} becomes a plain tensor")
        return self._plain(value.tensor, path)

    def _keep_attributes(self, attributes: Any, path: Path, *, of_dict: bool = False) -> None:
        """Attributes become metadata, as far as they are plain values; those of a state dict, its tag."""
        reader = TensorPickle(None)
        reader._met, reader._most = self._met, self._most
        plain = reader.tree(attributes)
        self._met = reader._met
        is_plain = type(plain) in (dict, OrderedDict) and not any(
            is_tensor(leaf) or isinstance(leaf, np.generic) for _, leaf in walk(plain)
        )
        if reader.losses or reader.tags or reader.attributes or not is_plain or path_text(path) in self.attributes:
            names = ", ".join(map(str, attributes)) if isinstance(attributes, dict) else type(attributes).__name__
            self._lose("metadata", path, f"attributes are left out: {names:.200}")
        elif of_dict and (versions := _versions(plain)) is not None:
            self._tag(path, "torch.state_dict", versions)
        else:
            self.attributes[path_text(path)] = plain

    def _named(self, value: Global | Record | TorchStorage, path: Path) -> Any:
        if isinstance(value, TorchStorage):
            self._lose("value", path, "a storage becomes a tensor")
            itemsize = 1 if value.dtype is None else value.dtype.itemsize
            return self._plain(self._tensor(value, 0, (value.data.size // itemsize,), (1,)), path)
        name = short(value)
        if isinstance(value, Global) and name in (*TORCH_DTYPES, *PACKED, *OTHER_DTYPES):
            self._tag(path, "torch.dtype")
            return name
        if isinstance(value, Record) and name == "device":
            self._tag(path, "torch.device")
            return ":".join(str(part) if type(part) in (str, int) else shown(part) for part in value.arguments)
        if isinstance(value, Record) and name != "layout":
            return self._numpy_value(value, path)
        text = value.name if isinstance(value, Global) else f"{value.name} of {shown(value.arguments)}"
        self._lose("value", path, f"{text} becomes a string")
        return text

    def _numpy_value(self, value: Record, path: Path) -> Any:
        found = self._of_numpy(value)
        if found is None:
            return self._plain(Nothing(value.name), path)
        if isinstance(found, np.ndarray) and found.dtype.kind in "SU":
            check_strings(found.shape, found.dtype, path_label(path))
            self._lose("value", path, "a NumPy array of text becomes nested lists")
            return plain_text(found)
        if isinstance(found, np.ndarray) and found.dtype.kind not in "Mm":  # whose tag says that
            self._tag(path, "numpy.ndarray")
        return found

    def _tag(self, path: Path, name: str, param: Any = None) -> None:
        self.tags.setdefault(path, []).append((name, param))

    def _lose(self, kind: str, path: Path, message: str) -> None:
        self.losses.append(Loss(kind, path_label(path), message))


def _is_plain_key(key: Any) -> bool:
    """Whether the text of a key says what it is."""
    if isinstance(key, tuple | frozenset):
        return all(map(_is_plain_key, key))
    return key is None or isinstance(key, str | bytes | bool | int | float | complex | np.generic)


def _text(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise ValueError(f"{shown(value)} stands for a text")
    return value.decode("ascii") if isinstance(value, bytes) else value


def _versions(attributes: dict[Any, Any]) -> dict[str, Any] | None:
    """The `_metadata` of a state dict, by the names of modules, if that is all that its attributes are."""
    kept = attributes.get("_metadata")
    if len(attributes) > 1 or not isinstance(kept, dict):
        return None
    if not all(type(name) is str and isinstance(of, dict) for name, of in kept.items()):
        return None
    return {name: dict(of) for name, of in kept.items()}
