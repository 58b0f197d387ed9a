"""Tags (SPEC.md section 13): what tagged nodes stand for, and which params and children they may have. [TAG-002]"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..tuples import NamedTuple
from . import values
from .node import Accepts, Node, Restore

_TIME_UNIT = re.compile(r"([1-9][0-9]{0,9})?(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)|generic").fullmatch


TENSOR_SUBCLASS = "torch.tensor_subclass"
BESIDE_TENSORS = ("context", "shape", "stride", "requires_grad")  # keys of its child of what is none of its tensors


class Tag(NamedTuple):
    """`restore` makes the value; where it is None, an adapter or a template does, and without one the child is given
    [TAG-004], with a warning where `hint` says how to get more. `binds`: whether a template's param must be the stored
    one. `is_leaf`: whether the node is one value, whatever its child is made of, and holds no tensor."""

    accepts: Accepts
    restore: Restore | None = None
    hint: str = ""
    binds: bool = False
    is_leaf: bool = False


def _is_time(param: Node, child: Node, dtypes: Sequence[str]) -> bool:
    unit = _TIME_UNIT(param) if type(param) is str else None
    if unit is None or int(unit[1] or 1) >= 1 << 31:
        return False
    match child:
        case ["tensor", index]:
            return bool(dtypes[index] == "int64")
        case ["scalar", "int64", _]:
            return True
    return False


def _plain(kind: type) -> Accepts:
    """No param, and a child of a type that msgpack has."""
    return lambda param, child, _: param is None and type(child) is kind


def _node(kind: str, param_type: type) -> Accepts:
    """A param of a type, and a child of a kind of node."""
    return lambda param, child, _: type(param) is param_type and type(child) is list and child[0] == kind


def _is_tensor(param: Node, child: Node, _: Sequence[str]) -> bool:
    return param is None and type(child) is list and child[0] == "tensor"


def _is_state(param: Node, child: Node, _: Sequence[str]) -> bool:
    match param, child:
        case ["dict", keys, items], ["tag", "collections.OrderedDict", None, _]:
            return all(type(key) is str for key in keys) and all(type(i) is list and i[0] == "dict" for i in items)
    return False


def _is_made_of_tensors(param: Node, child: Node, _: Sequence[str]) -> bool:
    match param, child:
        case str(), ["dict", keys, items] if all(type(key) is str for key in keys):
            found = dict(zip(keys, items, strict=True))
            sides = (found.get(key) for key in ("shape", "stride"))
            return "context" in found and all(map(_are_sides, sides)) and type(found.get("requires_grad", True)) is bool
    return False


def _are_sides(node: Node) -> bool:
    match node:
        case ["tuple", items]:
            return all(type(item) is int and item >= 0 for item in items)
    return False


def _is_key(param: Node, child: Node, dtypes: Sequence[str]) -> bool:
    return _node("tensor", str)(param, child, dtypes) and dtypes[child[1]] == "uint32"


def _time(prefix: str) -> Restore:
    def restore(unit: str, value: Any) -> Any:
        try:
            dtype = np.dtype(prefix if unit == "generic" else f"{prefix}[{unit}]")
        except (TypeError, ValueError):  # NumPy is giving up times without a unit
            return NotImplemented
        return value.view(dtype)

    return restore


def _is_enum(param: Node, child: Node, _: Sequence[str]) -> bool:
    return type(param) is str and not _holds_tensor(child)


def _holds_tensor(node: Node) -> bool:
    match node:
        case ["tensor", _]:
            return True
        case ["dict", _, items] | ["list" | "tuple", items]:
            return any(map(_holds_tensor, items))
        case ["tag", _, _, child]:
            return _holds_tensor(child)
    return False


_RECORD = Tag(_node("dict", str), hint="was read as a dict; like= and ckptfmt.register give it back")
_NO_UNIT = "was read as int64, as this NumPy has no times without a unit"
_OF_TENSORS = "was read as a dict of what it is made of; torch gives it back where its class is imported, or registered"
_HINTS = {"collections.defaultdict": "was read as a dict, as what makes its values is none of those that are known"}

TAGS: dict[str, Tag] = {
    "collections.OrderedDict": Tag(_node("dict", type(None)), lambda _, value: OrderedDict(value)),
    "numpy.ndarray": Tag(_is_tensor),
    "numpy.datetime64": Tag(_is_time, _time("M8"), _NO_UNIT),
    "numpy.timedelta64": Tag(_is_time, _time("m8"), _NO_UNIT),
    "numpy.str_": Tag(_plain(str), lambda _, value: np.str_(value)),
    "numpy.bytes_": Tag(_plain(bytes), lambda _, value: np.bytes_(value)),
    **{name: Tag(*forms, _HINTS.get(name, "")) for name, forms in values.CONTAINERS.items()},
    **{name: Tag(*forms, is_leaf=True) for name, forms in values.ATOMS.items()},
    "python.enum": Tag(_is_enum, hint="was read as its value; like= and ckptfmt.register give it back"),
    "python.namedtuple": _RECORD,
    "python.dataclass": _RECORD,
    "jax.pytree": Tag(_node("dict", str), hint="was read as a dict; like= gives it back"),
    "jax.key": Tag(_is_key, binds=True),
    "torch.state_dict": Tag(_is_state),
    "torch.Parameter": Tag(_node("tensor", bool)),
    TENSOR_SUBCLASS: Tag(_is_made_of_tensors, hint=_OF_TENSORS, binds=True),
    "torch.Size": Tag(_node("tuple", type(None))),
    "torch.dtype": Tag(_plain(str)),
    "torch.device": Tag(_plain(str)),
    "torch.Generator": Tag(lambda param, child, _: type(param) is str and type(child) is bytes, is_leaf=True),
    "torch.saved": Tag(_plain(bytes)),
}

# whose children are fields, and only what knows the class makes the value
RECORDS = frozenset({"python.namedtuple", "python.dataclass", "jax.pytree"})


def child_of(_: Node, value: Any) -> Any:
    """The value of a tagged node's child, for the node."""
    return value


# for trees of tensors that are not read: what their nodes stand for matters once they are loaded. Such a tree has no
# containers but dicts, lists and tuples
CHILDREN: dict[str, Restore] = {
    **{name: child_of for name, tag in TAGS.items() if tag.restore is None},
    **dict.fromkeys(("collections.deque", "types.SimpleNamespace", "argparse.Namespace"), child_of),
}
TIMES = frozenset({"numpy.datetime64", "numpy.timedelta64"})
# whose values all trees of NumPy have; to conversions and migrations, any other tag is said beside its child
NATIVE = TIMES | {"collections.OrderedDict", "numpy.str_", "numpy.bytes_"}


def made(tag: str, param: Any, child: Any) -> Any:
    """The value of a tag that a program can make without a framework, else the child. [TAG-004]"""
    restore = TAGS[tag].restore
    value = NotImplemented if restore is None else restore(param, child)
    return child if value is NotImplemented else value
