"""Values that pickles of torch make without a storage of their own: sizes, devices, paths, containers of other classes,
and tensors of several tensors. `TABLE` maps their names to what makes them. Nothing of torch is imported.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID

import numpy as np

from ..errors import fault
from ..format.dtypes import Array
from ..format.tags import BESIDE_TENSORS, TENSOR_SUBCLASS
from ..format.values import FACTORIES
from ..frameworks.quantisers import ENUMS, RECORDS
from ..frameworks.values import Lowered
from . import numpy_pickle
from .pickles import AttributedDict, Global, OtherDict, OtherList, Record, record
from .source import LazyArray, LeadingSlices

PLAIN_TENSORS = {"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}
PATH_LENGTH = 4096  # most characters of a path
_LAYOUTS = ("strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "_mkldnn")
_SCHEMES = ["per_tensor_affine", "per_channel_affine", "per_tensor_symmetric", "per_channel_symmetric"]
_SCHEMES += ["per_channel_affine_float_qparams"]
PATHS = [
    f"{module}.{name}"
    for module in ("pathlib", "pathlib._local")
    for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
]


class TorchSize(tuple[Any, ...]):
    """A `torch.Size`."""


@dataclass(slots=True, eq=False, repr=False)
class Attributed:
    """A tensor with more than its elements: of a Parameter, whether it `requires_grad`; the attributes of its own; and
    the name of its class."""

    tensor: Any
    requires_grad: bool | None = None
    attributes: Any = None
    name: str = "torch.Tensor"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Replaced:
    """A value that becomes another one, `value`, and what becomes what."""

    message: str
    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Nothing:
    """A value of which nothing can be kept, and what it is called."""

    name: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Wrapper:
    """A tensor of a class whose elements are tensors among its attributes, before it gets these: what it says of
    itself."""

    dtype: Any
    size: Any
    stride: Any = None
    requires_grad: Any = None


def never(*_: Any) -> Any:
    raise fault("unsafe-source", "the pickle calls what only stands for a dtype or a class")


def short(found: Any) -> str:
    """The name of an object in torch."""
    return str(getattr(found, "name", found)).removeprefix("torch.")


# ---- tensors


def _parameter(tensor: Any, requires_grad: Any, hooks: Any, state: Any = None) -> Attributed:
    return Attributed(tensor, bool(requires_grad), state)


def _attributed(made: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor with attributes of its own, or of a class of its own."""
    if not isinstance(made, Global):
        return made
    found, name = made.make(*arguments), str(getattr(kind, "name", type(kind).__name__))
    if isinstance(found, Wrapper):
        return _parts(found, name, state)
    if isinstance(found, Attributed):
        return Attributed(found.tensor, found.requires_grad, state, name)
    return Attributed(found, None, state, name)


def _wrapper(kind: Any, dtype: Any, size: Any, stride: Any = None, *others: Any) -> Wrapper:
    return Wrapper(dtype, size, stride, others[3] if len(others) > 3 else None)


def _parts(wrapper: Wrapper, name: str, state: Any) -> Any:
    """The attributes of a tensor of a class such as torchao has for quantised ones, which are what it is made of."""
    if type(state) is tuple and len(state) == 2 and isinstance(state[1], dict):  # with slots
        state = {**(state[0] or {}), **state[1]}
    if not isinstance(state, dict) or not state:
        return Nothing(f"a {name}")
    tensors = {key: item for key, item in state.items() if _is_tensor(item)}
    others = {key: item for key, item in state.items() if key not in tensors and key != "_is_param"}
    if not _are_sides(wrapper.size) or not _are_sides(wrapper.stride) or not tensors.keys().isdisjoint(BESIDE_TENSORS):
        parts = {"dtype": wrapper.dtype, "size": wrapper.size, **state}
        return Replaced(f"a {name} becomes a dict of its parts", parts)
    sides = {"shape": tuple(wrapper.size), "stride": tuple(wrapper.stride)}
    beside: dict[str, Any] = {"context": {"dtype": wrapper.dtype, **others}, **sides}
    if state.get("_is_param"):
        beside["requires_grad"] = bool(wrapper.requires_grad)
    return Lowered(TENSOR_SUBCLASS, name, {**tensors, **beside})


def _is_tensor(value: Any) -> bool:
    is_one = isinstance(value, np.ndarray | LazyArray | Attributed)
    return is_one or (isinstance(value, Lowered) and value.tag == TENSOR_SUBCLASS)


def _are_sides(sides: Any) -> bool:
    return isinstance(sides, tuple) and all(type(side) is int and side >= 0 for side in sides)


def _sparse(layout: Any, data: Any) -> Replaced:
    """The parts of a sparse tensor, by the names that torch has for them."""
    name = short(layout.arguments[0] if isinstance(layout, Record) else layout)
    names: tuple[str, ...] = ("ccol_indices", "row_indices", "values", "size")
    if name == "sparse_coo":
        names = ("indices", "values", "size", "is_coalesced")
    elif name in ("sparse_csr", "sparse_bsr"):
        names = ("crow_indices", "col_indices", "values", "size")
    parts = dict(zip(names, data, strict=name != "sparse_coo"))
    return Replaced("a sparse tensor becomes a dict of its parts", {"layout": name, **parts})


def _nested(buffer: Any, sizes: Any, strides: Any, offsets: Any) -> Replaced:
    parts = {"values": buffer, "sizes": sizes, "strides": strides, "storage_offsets": offsets}
    return Replaced("a nested tensor becomes a dict of its parts", parts)


def quantised(tensor: Any, dtype: str, scheme: Any) -> Replaced:
    parts = dict(zip(("qscheme", "scale", "zero_point", "axis"), scheme, strict=False))
    parts["qscheme"] = short(parts["qscheme"])
    return Replaced("a quantised tensor becomes a dict of its parts", {"int_repr": tensor, "dtype": dtype, **parts})


def _of_device(data: Any, dtype: Any, *_: Any) -> Any:
    """A tensor that torch saves through NumPy because of its device."""
    found = numpy_pickle.value_of(data) if isinstance(data, Record) else None
    is_same = isinstance(found, np.ndarray) and found.dtype.name == short(dtype)
    return found if is_same else Nothing("a tensor that was saved through NumPy")


def lazily(array: Array, *, conj: bool, neg: bool) -> LazyArray:
    """The elements of a tensor that torch conjugates, or negates, when they are looked at."""

    def read(index: LeadingSlices) -> Array:
        part: Array = array[index]
        part = np.conj(part) if conj else part
        return np.negative(part) if neg else part

    return LazyArray(array.shape, array.dtype.newbyteorder("="), read)


# ---- other values


def _ordered(items: Any = ()) -> AttributedDict:
    return AttributedDict(items)


def _counter(items: Any = ()) -> OtherDict:
    made = OtherDict(items)
    made.tag = "collections.Counter"
    return made


def _default_dict(factory: Any = None, *_: Any) -> OtherDict:
    made = OtherDict()
    name = None if factory is None else str(getattr(factory, "name", type(factory).__name__))
    short_name = None if name is None else name.removeprefix("builtins.")
    made.name, made.param = f"collections.defaultdict of {name}", short_name
    made.tag = "collections.defaultdict" if name is None or short_name in FACTORIES else ""
    return made


def _deque(items: Any = (), maxlen: Any = None, *_: Any) -> OtherList:
    made = OtherList(items)
    made.name, made.param = "collections.deque", maxlen
    made.tag = "collections.deque" if maxlen is None or type(maxlen) is int else ""
    return made


def joined_path(*parts: Any) -> str:
    """A path of pathlib as text; raises `limit-exceeded` for one that is too long for any system."""
    if sum(map(len, parts)) > PATH_LENGTH:
        raise fault("limit-exceeded", f"the pickle has a path of more than {PATH_LENGTH:,} characters")
    return os.path.join(*parts) if parts else "."


def _path(name: str, *parts: Any) -> Lowered:
    joined_path(*parts)  # which bounds it
    system = "windows" if "Windows" in name else "posix"
    pure: type[PurePath] = PureWindowsPath if system == "windows" else PurePosixPath
    return Lowered("pathlib.PurePath" if "Pure" in name else "pathlib.Path", system, str(pure(*parts)))


def _moment(kind: Callable[..., Any]) -> Callable[..., Any]:
    def make(state: Any, zone: Any = None) -> Any:
        if type(state) is not bytes or type(zone) not in (type(None), datetime.timezone):
            return Nothing("a time in a time zone of another class")
        return kind(state) if zone is None else kind(state, zone)

    return make


def _zone(offset: Any, name: Any = None) -> datetime.timezone:
    return datetime.timezone(offset) if name is None else datetime.timezone(offset, name)


def _decimal(text: Any) -> Any:
    if type(text) is not str:
        raise ValueError("a Decimal that is no text")
    return Decimal(text)


def _fraction(numerator: Any, denominator: Any = None) -> Lowered:
    text = numerator if denominator is None else f"{int(numerator)}/{int(denominator)}"
    return Lowered("fractions.Fraction", None, text if "/" in text else f"{text}/1")


def of_record(found: Record) -> Lowered | None:
    """The tag of an object that its state makes; None for any other."""
    match found:
        case Record("argparse.Namespace" | "types.SimpleNamespace" as name, (), dict() | None as state):
            return Lowered(name, None, {} if state is None else state)
        case Record("uuid.UUID", (), {"int": int(number)}) if 0 <= number < 1 << 128:
            return Lowered("uuid.UUID", None, str(UUID(int=number)))
        case Record("random.Random", (), tuple() as state):
            return Lowered("random.Random", None, state)
        case Record(name, (), dict() | None as state) if name in RECORDS:
            return Lowered("python.dataclass", name, state or {})
    return None


def _member(name: str, value: Any) -> Lowered:
    return Lowered("python.enum", name, value)


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise fault("unsafe-source", f"the pickle encodes a string as {encoding!r}")
    return text.encode("latin1")


def _bytearray(data: Any = b"", encoding: str = "latin1") -> bytearray:
    if isinstance(data, int):  # would be that many zeros
        raise fault("unsafe-source", "the pickle asks for memory by a number")
    return bytearray(_latin1(data, encoding) if isinstance(data, str) else data)


TABLE: Mapping[str, Callable[..., Any]] = {
    **{name: partial(_member, name) for name in ENUMS},
    **{name: record(name) for name in RECORDS},
    "collections.OrderedDict": _ordered,
    "collections.Counter": _counter,
    "collections.defaultdict": _default_dict,
    "collections.deque": _deque,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _attributed,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_nested_tensor": _nested,
    "torch._utils._rebuild_meta_tensor_no_storage": lambda *_: Nothing("a tensor of the meta device"),
    "torch._utils._rebuild_wrapper_subclass": _wrapper,
    "torch._utils._rebuild_device_tensor_from_numpy": _of_device,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": lambda tensor, *_: tensor,
    "torch.Size": TorchSize,
    "torch.torch_version.TorchVersion": lambda text: Replaced("the version of torch becomes a string", text),
    "torch.device": lambda *parts: Record("torch.device", parts),
    "torch.serialization._get_layout": record("torch.layout"),
    "_codecs.encode": _latin1,
    "builtins.set": lambda items=(): set(items),
    "builtins.frozenset": lambda items=(): frozenset(items),
    "builtins.complex": lambda real, imag: complex(real, imag),
    "builtins.bytearray": _bytearray,
    "builtins.bytes": lambda: b"",  # as protocol 2 writes it
    **{name: partial(_path, name) for name in PATHS},
    **{f"builtins.{name}": never for name in ("bool", "int", "float", "str", "list", "tuple", "dict")},  # of defaults
    "builtins.range": lambda *items: range(*items),
    "builtins.slice": lambda *items: slice(*items),
    "datetime.date": _moment(datetime.date),
    "datetime.time": _moment(datetime.time),
    "datetime.datetime": _moment(datetime.datetime),
    "datetime.timedelta": lambda *parts: datetime.timedelta(*parts),
    "datetime.timezone": _zone,
    "decimal.Decimal": _decimal,
    "fractions.Fraction": _fraction,
    **{name: record(name) for name in ("argparse.Namespace", "types.SimpleNamespace", "uuid.UUID", "random.Random")},
    **dict.fromkeys(PLAIN_TENSORS, never),
    **dict.fromkeys((f"torch.{name}" for name in (*_LAYOUTS, *_SCHEMES)), never),
    **numpy_pickle.TABLE,
}
