"""Loading a submodule by its own code: torch's `load_state_dict`, as it would come to that submodule."""

from __future__ import annotations

import copy
import inspect
import itertools
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.nn import Module

from ckptfmt.errors import fault
from ckptfmt.format.dtypes import dtype_of

from .dtypes import TORCH

# torch's hook of wrappers for activation checkpointing, whose own name stands in no state
UNWRAP = "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.ActivationWrapper._pre_load_state_dict_hook"

_SIZE_MISMATCH = re.compile(
    r"size mismatch for (.+?): copying a param with shape torch\.Size\((.*?)\) from checkpoint, "
    r"the shape in current model is torch\.Size\((.*?)\)"
)


class Held(NamedTuple):
    """A parameter, or a buffer that a state has: `module.attribute`, under `name`."""

    name: str
    module: Module
    attribute: str
    value: torch.Tensor


class Sub(NamedTuple):
    """A submodule: the prefix of its names in a state ("" or "layers.0."), its own tensors, and where in the list of
    all it and those below it stand."""

    prefix: str
    module: Module
    held: tuple[Held, ...]
    start: int
    end: int


@dataclass(slots=True)
class Said:
    """What a module's code said of a state: names, and (name, shape there, shape here)."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shapes: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)


def submodules(module: Module) -> list[Sub]:
    """All in the order in which torch loads them, by all of their names."""
    found: list[Sub] = []
    _collect(module, "", found)
    return found


def _collect(module: Module, prefix: str, found: list[Sub]) -> None:
    start = len(found)
    found.append(Sub(prefix, module, tuple(_held(module, prefix)), start, start))
    below = prefix if unwraps(module) else None
    for name, child in module._modules.items():
        if child is not None:
            _collect(child, f"{prefix}{name}." if below is None else below, found)
    found[start] = found[start]._replace(end=len(found))


def _held(module: Module, prefix: str) -> Iterator[Held]:
    passing = module._non_persistent_buffers_set
    buffers = ((name, value) for name, value in module._buffers.items() if name not in passing)
    for name, value in itertools.chain(module._parameters.items(), buffers):
        if value is not None:
            yield Held(prefix + name, module, name, value)


def names(subs: Iterable[Sub]) -> Iterator[str]:
    """The names that torch expects in a state."""
    for sub in subs:
        yield from (held.name for held in sub.held)
        if type(sub.module).set_extra_state is not Module.set_extra_state:
            yield f"{sub.prefix}_extra_state"


def unwraps(module: Module) -> bool:
    """Whether a module is a wrapper whose own name stands in no state."""
    hooks = module._load_state_dict_pre_hooks
    if not hooks:
        return False
    return any(f"{getattr(h, '__module__', '')}.{getattr(h, '__qualname__', '')}" == UNWRAP for h in hooks.values())


def overrides(module: Module) -> bool:
    """Whether a module has a `load_state_dict` of its own."""
    return type(module).load_state_dict is not Module.load_state_dict or "load_state_dict" in vars(module)


def load(sub: Sub, state: OrderedDict[str, Any], said: Said, *, strict: bool, assign: bool) -> None:
    """Load a state, whose names have the prefix, into a submodule. Fills `said`, also where it raises what the code
    raises. A `load_state_dict` of its own is told of `strict`; torch's own always names all that does not fit."""
    root = _in_its_place(sub)
    options: dict[str, Any] = {"strict": False, "assign": assign}
    if overrides(root):
        asked = {} if strict else {"strict": False}
        asked |= {"assign": True} if assign else {}
        options = {name: value for name, value in asked.items() if _accepts(root, name)}
        if assign and "assign" not in options:
            text = f"load_state_dict of {type(root).__qualname__} takes no assign=; give it memory first: to_empty()"
            raise fault("mismatch", f"a module on the meta device cannot be filled: {text}")

    def listen(_: Module, keys: Any) -> None:
        said.missing, said.unexpected = list(keys.missing_keys), list(keys.unexpected_keys)

    handle = root.register_load_state_dict_post_hook(listen)  # type: ignore[no-untyped-call]
    try:
        root.load_state_dict(state, **options)
    except RuntimeError as error:
        said.shapes = [(name, _shape(there), _shape(here)) for name, there, here in _SIZE_MISMATCH.findall(str(error))]
        raise
    finally:
        handle.remove()


OPAQUE = object()  # for a value of several leaves, which is for the module's code alone


def tried(sub: Sub, found: Mapping[str, Any], versions: Mapping[str, Any] | None) -> Said | None:
    """What the code of a submodule says of a state, all on the meta device and to a copy; None if it needs values.
    Without its extra state, if that is opaque: what else it knows with that, it is not asked."""
    opaque = {name for name, leaf in found.items() if leaf is OPAQUE}
    if any(not name.endswith("_extra_state") for name in opaque):
        return None
    state: OrderedDict[str, Any] = OrderedDict()
    for name, leaf in found.items():
        row = dtype_of(leaf.dtype) if hasattr(leaf, "shape") else None
        if row is not None and (row.name not in TORCH or row.per > 1):
            return None
        state[name] = leaf if row is None else torch.empty(leaf.shape, dtype=TORCH[row.name], device="meta")
    if versions is not None:
        state._metadata = copy.deepcopy(OrderedDict(versions))  # type: ignore[attr-defined]
    said = Said()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = _on_meta(sub.module)
            for part in trial.modules() if opaque else ():
                part.set_extra_state = lambda _: None  # type: ignore[method-assign, assignment]
            load(sub._replace(module=trial), state, said, strict=True, assign=False)
    except RuntimeError:
        if not said.shapes:
            return None
    except Exception:
        return None
    if opaque:
        said.unexpected = []
    return said


def _on_meta(module: Module) -> Module:
    """A copy of a module whose tensors take no memory."""
    tensors = (t for part in module.modules() for t in (*part._parameters.values(), *part._buffers.values()))
    memo: dict[int, Any] = {}
    for tensor in tensors:
        if tensor is not None and not torch.nn.parameter.is_lazy(tensor):
            bare = torch.empty_like(tensor.detach(), device="meta")
            is_parameter = isinstance(tensor, torch.nn.Parameter)
            memo[id(tensor)] = torch.nn.Parameter(bare, tensor.requires_grad) if is_parameter else bare
    return copy.deepcopy(module, memo)


def _in_its_place(sub: Sub) -> Module:
    """A module in which a submodule has its prefix, and which holds nothing besides."""
    root = sub.module
    for name in reversed(sub.prefix[:-1].split(".") if sub.prefix else []):
        outer = Module()
        outer._modules[name] = root
        root = outer
    return root


def _accepts(module: Module, name: str) -> bool:
    parameters = inspect.signature(module.load_state_dict).parameters.values()
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))
