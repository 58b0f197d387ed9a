"""Which tensors a step computes gradients for beside those that it is given: the parameters of modules, and what
functions have taken from around them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType
from typing import Any

import torch

DIVIDED = {"FSDPModule", "FullyShardedDataParallel"}  # classes of modules with other parameters while they are called
CONTAINERS = (list, tuple, set, frozenset)


def parameters_of(step: Any) -> list[torch.Tensor]:
    """Each tensor once that requires grad, of what a step is made of: a module, a function with a closure, defaults and
    globals, a partial, a method of a module."""
    found: dict[int, torch.Tensor] = {}
    for value in _values(step):
        tensors = [*value.parameters(), *value.buffers()] if isinstance(value, torch.nn.Module) else [value]
        found |= {id(tensor): tensor for tensor in tensors if tensor.requires_grad}
    return list(found.values())


def modules_of(step: Any) -> list[torch.nn.Module]:
    return [value for value in _values(step) if isinstance(value, torch.nn.Module)]


def divided_in(step: Any) -> torch.nn.Module | None:
    """A module in a step whose parameters FSDP puts together for each call."""
    within = (module for value in modules_of(step) for module in value.modules())
    return next((module for module in within if DIVIDED & {kind.__name__ for kind in type(module).__mro__}), None)


def _values(step: Any) -> Iterator[torch.nn.Module | torch.Tensor]:
    """Modules and tensors that a step has at hand."""
    waiting, known = [step], set()
    while waiting:
        value = waiting.pop()
        if id(value) in known:
            continue
        known.add(id(value))
        if isinstance(value, torch.nn.Module | torch.Tensor):
            yield value
        elif isinstance(value, CONTAINERS):
            waiting += value
        elif isinstance(value, Mapping):
            waiting += value.values()
        else:
            waiting += _around(value)


def _around(value: Any) -> list[Any]:
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if not isinstance(value, FunctionType):
        return []
    around = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    for cell in value.__closure__ or ():
        try:
            around.append(cell.cell_contents)
        except ValueError:  # it is set later, or was deleted
            continue
    names = (value.__globals__.get(name) for name in value.__code__.co_names)
    return around + [there for there in names if _is_followed(there, value)]


def _is_followed(there: Any, function: FunctionType) -> bool:
    """Whether it is looked into what a function has found among its globals: not the functions of other modules."""
    if isinstance(there, FunctionType):
        return there.__globals__ is function.__globals__
    return isinstance(there, (torch.nn.Module, torch.Tensor, functools.partial, MethodType, *CONTAINERS, dict))


Edge = tuple[Any, int]


def unknown_leaf(outputs: list[torch.Tensor], known: list[torch.Tensor]) -> torch.Tensor | None:
    """A tensor that requires grad, that the graph of some outputs comes to, and that is none of those known."""
    leaves = {id(tensor) for tensor in known if tensor.grad_fn is None}
    edges: set[Edge] = {(tensor.grad_fn, tensor.output_nr) for tensor in known if tensor.grad_fn is not None}
    waiting: list[Edge] = [(output.grad_fn, output.output_nr) for output in outputs if output.grad_fn is not None]
    visited: set[Any] = set()
    while waiting:
        node, _ = edge = waiting.pop()
        if node is None or edge in edges or node in visited:
            continue
        visited.add(node)
        variable = getattr(node, "variable", None) if not node.next_functions else None
        if variable is not None and id(variable) not in leaves:
            return variable  # type: ignore[no-any-return]
        waiting += node.next_functions
    return None
