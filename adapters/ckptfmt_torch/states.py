"""States of modules and optimizers: what of them the tree's containers cannot say by themselves, and what of an
optimizer's is known before it is loaded."""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ckptfmt.errors import fault
from ckptfmt.format.dtypes import dtype_of
from ckptfmt.format.names import Path, is_int_text, path_label
from ckptfmt.frameworks.adapter import Tagged
from ckptfmt.frameworks.receiving import Intake, StoredState, Whole
from ckptfmt.frameworks.target import MatchReport

from .dtypes import TORCH
from .int_keys import with_int_keys
from .tensors import is_dtensor

_SCALARS = (type(None), bool, int, float, str, bytes)


def tagged(state: OrderedDict[Any, Any]) -> Tagged:
    """A state dict with its `_metadata`: the versions of modules, which tell their code how to read it. What of that
    is no plain value, is left out."""
    kept = state._metadata  # type: ignore[attr-defined]
    versions = {name: _plain(of) for name, of in kept.items() if isinstance(name, str) and isinstance(of, dict)}
    items = OrderedDict((key, with_arrays(value)) for key, value in state.items())
    return Tagged("torch.state_dict", versions, items, lambda child: state_dict(versions, child))


def state_dict(versions: Mapping[str, Any], items: Mapping[Any, Any]) -> OrderedDict[Any, Any]:
    state = OrderedDict(items)
    state._metadata = OrderedDict(versions)  # type: ignore[attr-defined]
    return state


def _plain(values: Mapping[Any, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(name, str) and isinstance(value, dict):
            kept[name] = _plain(value)
        elif isinstance(name, str) and type(value) in _SCALARS:
            kept[name] = value
    return kept


def with_arrays(state: Any) -> Any:
    """A state whose NumPy arrays come back as such, not as the tensors that a tree for torch has; itself where it has
    none."""
    kind = type(state)
    if kind is np.ndarray and state.dtype.kind not in "mM":  # times are tagged already
        return Tagged("numpy.ndarray", None, state, lambda child: child)
    if kind in (dict, OrderedDict, defaultdict):
        changed = {key: new for key, value in state.items() if (new := with_arrays(value)) is not value}
        if changed:
            made = copy.copy(state)  # with its default, or what it says besides
            made.update(changed)
            return made
    elif kind in (list, tuple, deque):
        items = list(map(with_arrays, state))
        if any(new is not old for new, old in zip(items, state, strict=True)):
            return deque(items, state.maxlen) if kind is deque else kind(items)
    return state


def check_whole(value: Any) -> None:
    """Refuse an object whose state is but a piece that this process has of another, which nothing in it says
    (`unsupported-leaf`): the flat tensors of FSDP 1, and the partitions of DeepSpeed's ZeRO."""
    if isinstance(value, torch.optim.Optimizer):
        params = (one for group in value.param_groups for one in group["params"])
        if any(getattr(one, "_fsdp_flattened", False) for one in params) and torch.distributed.get_world_size() > 1:
            raise fault("unsupported-leaf", _FSDP_1)
    if "deepspeed" not in sys.modules:
        return
    held = getattr(value, "optimizer", value)  # within the wrapper of accelerate
    is_zero = any(kind.__module__.startswith("deepspeed.runtime.zero") for kind in type(held).__mro__)
    if isinstance(value, torch.nn.Module):
        is_zero = any(getattr(one, "ds_status", None) is not None for one in value.parameters())  # of ZeRO 3
    if is_zero:
        raise fault("unsupported-leaf", _ZERO)


_FSDP_1 = (
    "the optimizer of a model in FSDP 1, which holds pieces of flat tensors: save what get_state_dict(model, "
    "optimizer) of torch.distributed.checkpoint.state_dict gives, by ckptfmt_torch.dcp, or use fully_shard"
)
_ZERO = (
    "what DeepSpeed has partitioned: save the run by save_checkpoint of its engine, which ckptfmt.convert reads, and "
    "weights alone as accelerator.get_state_dict(model) gives them"
)


class StateReceiver(Whole):
    """An optimizer or scheduler gets its state with the int keys that it had before another tool made text of them."""

    def given(self, state: Any) -> Any:
        return super().given(with_int_keys(state, self.value.state_dict()))


class OptimizerReceiver(StateReceiver):
    """An optimizer gets its state by its `load_state_dict()`; the groups of its parameters are compared before, and
    whether its state is that of parameters in them."""

    def _numbered(self, stored: StoredState) -> frozenset[int]:
        """The parameters, if there is a state of any, and the state does not say their names, too."""
        inside = [path[len(stored.at) :] for path in stored.leaves]
        if any(path[:1] == ("param_groups",) and "param_names" in path for path in inside):
            return frozenset()
        has_state = any(len(path) > 1 and path[0] == "state" for path in inside)
        return frozenset(id(one) for group in self.value.param_groups for one in group["params"] if has_state)

    def intake(self, stored: StoredState, strict: bool, cast: bool) -> Intake:
        intake = super().intake(stored, strict, cast)
        optimizer = self.value
        check_whole(optimizer)
        if not intake.parts or not intake.report.ok:
            return intake
        own = type(optimizer).load_state_dict is not torch.optim.Optimizer.load_state_dict
        if own or optimizer._optimizer_load_state_dict_pre_hooks:
            return self._in_shards(stored, intake)
        strays = _strays(stored.at, stored.leaves)
        if strays:
            kind = (
                strays[0],
                "the state of a parameter",
                f"the number of one in {path_label((*stored.at, 'param_groups'))!r}",
            )
            return Intake(report=MatchReport(kind=(kind,)), parts=intake.parts)
        here = [len(group["params"]) for group in optimizer.param_groups]
        there = _group_sizes(stored.at, stored.leaves)
        if here == there:
            return replace(self._in_shards(stored, intake), numbered=self._numbered(stored))
        where = path_label((*stored.at, "param_groups"))
        return Intake(report=MatchReport(kind=((where, _groups(there), _groups(here)),)), parts=intake.parts)

    def _in_shards(self, stored: StoredState, intake: Intake) -> Intake:
        """The same, but that of the states of DTensors just the parts are read that are here."""
        at, shards = stored.at, self._shards(stored)
        if not shards:
            return intake
        [part] = intake.parts

        def take(state: Any) -> MatchReport:
            for path, shard in shards.items():
                *above, name = path[len(at) :]
                place = state
                for key in above:
                    place = place.setdefault(key, {})
                place[name] = shard
            return part.take(state)

        rest = part._replace(paths=part.paths - shards.keys(), take=take)
        return replace(intake, direct=shards, parts=(rest,))

    def _shards(self, stored: StoredState) -> dict[Path, torch.Tensor]:
        """DTensors to be filled for what a checkpoint has of the states of others, by their paths there: placed as the
        optimizer's own state is, or else as the parameter."""
        owners = [one for group in self.value.param_groups for one in group["params"]]
        if not any(map(is_dtensor, owners)):
            return {}
        from ckptfmt.reading.tensor import ArrayLike  # here, as a save needs none of it

        numbers = [str(leaf) for path, leaf in stored.leaves.items() if _is_number(path[len(stored.at) :])]
        numbered, shards = dict(zip(numbers, owners, strict=False)), dict[Path, torch.Tensor]()
        for path, leaf in stored.leaves.items():
            match path[len(stored.at) :]:
                case ("state", key, name) if isinstance(leaf, ArrayLike) and str(key) in numbered:
                    owner = numbered[str(key)]
                    like, row = self.value.state.get(owner, {}).get(name, owner), dtype_of(leaf.dtype)
                    if is_dtensor(like) and tuple(like.shape) == leaf.shape and row is not None and row.name in TORCH:
                        shards[path] = torch.empty_like(like.detach(), dtype=TORCH[row.name])
        return shards


def _is_number(path: Path) -> bool:
    """Whether the number of a parameter stands at a path in the state of an optimizer."""
    return len(path) == 4 and (path[0], path[2]) == ("param_groups", "params")


def _group_sizes(at: Path, stored: Mapping[Path, Any]) -> list[int]:
    """The numbers of parameters in the groups of a state."""
    sizes: dict[Any, int] = {}
    for path in stored:
        match path[len(at) :]:
            case ("param_groups", group, "params", _):
                sizes[group] = sizes.get(group, 0) + 1
            case ("param_groups", group, *_):
                sizes.setdefault(group, 0)
    return list(sizes.values())


def _strays(at: Path, stored: Mapping[Path, Any]) -> list[str]:
    """The labels of states whose key is the text of a number that no parameter has: torch takes and forgets them."""
    numbers, states = set(), {}
    for path, leaf in stored.items():
        match path[len(at) :]:
            case ("param_groups", _, "params", _):
                numbers.add(str(leaf))
            case ("state", key, *_) if is_int_text(key):
                states[key] = path_label((*at, "state", key))
    return [label for key, label in states.items() if key not in numbers]


def _groups(sizes: list[int]) -> str:
    return f"{len(sizes)} group{'s' * (len(sizes) != 1)} of parameters ({', '.join(map(str, sizes))})"
