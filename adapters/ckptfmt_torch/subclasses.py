"""Tensors that are made of others: the wrapper subclasses of torch, as torchao quantises weights and optimizers' state.

Such a class says by `__tensor_flatten__` which tensors one of its kind is made of and what says how to compute with
them, and makes one of those by `__tensor_unflatten__`. They are stored as a tagged node, so that every reader has the
plain tensors. Which classes come back is named here and in the program, never in a file. [TAG-002]
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

import torch

from ckptfmt.calls import takes
from ckptfmt.errors import fault
from ckptfmt.format.node import Restore
from ckptfmt.format.tags import BESIDE_TENSORS, TENSOR_SUBCLASS
from ckptfmt.frameworks import registry
from ckptfmt.frameworks.adapter import Tagged
from ckptfmt.frameworks.quantisers import ENUMS, RECORDS, TENSORS

from .tensors import is_dtensor

K = TypeVar("K", bound=type)

_KNOWN = frozenset((*TENSORS, *ENUMS, *RECORDS))
_registered: dict[str, type] = {}


@takes()
def register_tensor_class(kind: K) -> K:
    """Register a subclass of `torch.Tensor` that is made of other tensors: loads give its values back as such; also as
    a decorator of the class. Those of torchao and optimum-quanto are known once the program has imported them.

    The class needs `__tensor_flatten__` and `__tensor_unflatten__`, which loading calls. Classes of what else it keeps
    (enums, dataclasses, NamedTuples) are registered by `ckptfmt.register`. Raises `bad-option` for another class.
    """
    if not (issubclass(kind, torch.Tensor) and _is_wrapper(kind)):
        expected = "a subclass of torch.Tensor with __tensor_flatten__ and __tensor_unflatten__"
        raise fault("bad-option", "register_tensor_class() takes a class", found=kind.__qualname__, expected=expected)
    _registered[_name(kind)] = kind
    return kind


def is_made_of_others(value: torch.Tensor) -> bool:
    """Whether a tensor is one of a class that says what it is made of. DTensors are stored as what they are parts of,
    and nested tensors say of themselves what cannot be stored."""
    return _is_wrapper(type(value)) and not is_dtensor(value) and not value.is_nested


def lowered(value: Any) -> Tagged:
    """What is stored of such a tensor."""
    names, context = value.__tensor_flatten__()
    inner = {name: getattr(value, name) for name in names}
    others = {"context": context, "shape": tuple(value.shape), "stride": tuple(value.stride())}
    if isinstance(value, torch.nn.Parameter):
        others["requires_grad"] = value.requires_grad
    if any(name in BESIDE_TENSORS for name in names):
        raise fault("unsupported-leaf", f"a {_name(type(value))} has tensors of the names {', '.join(names)}")
    return Tagged(TENSOR_SUBCLASS, _name(type(value)), inner | others, partial(_rebuilt, value, inner))


def _rebuilt(value: Any, inner: Mapping[str, Any], child: Mapping[str, Any]) -> Any:
    """What is filled in place stays the very tensor."""
    return value if all(child.get(name) is tensor for name, tensor in inner.items()) else _made(type(value), child)


def _made(kind: Any, child: Mapping[str, Any]) -> Any:
    inner = {name: tensor for name, tensor in child.items() if name not in BESIDE_TENSORS}
    made = kind.__tensor_unflatten__(inner, child["context"], torch.Size(child["shape"]), tuple(child["stride"]))
    return torch.nn.Parameter(made, child["requires_grad"]) if "requires_grad" in child else made


def _restored(name: str, child: Mapping[str, Any]) -> Any:
    kind = _class(name)
    if kind is None or not _is_wrapper(kind):
        return NotImplemented
    try:
        return _made(kind, child)
    except Exception:  # whatever the class finds wrong with them: another version of it, or a context that is not known
        return NotImplemented


def _member(name: str, value: Any) -> Any:
    kind = _class(name)
    if kind is None or not issubclass(kind, enum.Enum):
        return registry.RESTORES["python.enum"](name, value)
    try:
        return kind(value)
    except (ValueError, TypeError):
        return NotImplemented


def _record(tag: str) -> Restore:
    def restore(name: str, fields: Mapping[str, Any]) -> Any:
        kind = _class(name)
        if kind is None or issubclass(kind, enum.Enum):
            return registry.RESTORES[tag](name, fields)
        try:
            return kind(**fields)
        except (ValueError, TypeError):
            return NotImplemented

    return restore


RESTORES: Mapping[str, Restore] = {
    TENSOR_SUBCLASS: _restored,
    "python.enum": _member,
    **{tag: _record(tag) for tag in ("python.namedtuple", "python.dataclass")},
}


def _class(name: str) -> Any:
    """A class that was registered, or one that is known whose module the program has imported."""
    if name in _registered:
        return _registered[name]
    module, _, qualname = name.rpartition(".")
    found = getattr(sys.modules.get(module), qualname, None) if name in _KNOWN else None
    return found if isinstance(found, type) else None


def _is_wrapper(kind: type) -> bool:
    return hasattr(kind, "__tensor_flatten__") and hasattr(kind, "__tensor_unflatten__")


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
