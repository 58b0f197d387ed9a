"""How modules load: what is but memory is filled in place, and all else goes through the module's own code.

Found for each submodule. Where torch would do no more than copy plain tensors into plain parameters and buffers, they
are filled directly. A module that has a say in its loading (hooks, a `_load_from_state_dict` of its own, extra state,
tensors of subclasses) is loaded by torch's `load_state_dict`, with all that is below it, as its code sees that too.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch.nn import Module

from ckptfmt.errors import CkptError
from ckptfmt.format.dtypes import Array
from ckptfmt.format.names import Path, path_label
from ckptfmt.frameworks.receiving import Adopt, Intake, StatePart, StoredState, refusals
from ckptfmt.frameworks.target import MatchReport, castable

from . import own_code
from .dtypes import row_of, tensor_of
from .own_code import Held, Sub, submodules
from .prequantised import Prequantised
from .tensors import blank_like, check, in_host_memory, is_dtensor

_BASE = "torch.nn.modules.module.Module._load_from_state_dict"
# torch's own code that does as the base class's, where the state has all names of the module
_AS_BASE = {
    "torch.nn.modules.batchnorm._NormBase._load_from_state_dict",
    "torch.nn.modules.instancenorm._InstanceNorm._load_from_state_dict",
    "torch.nn.utils.parametrizations.weight_norm.<locals>._weight_norm_compat_hook",
}
# torch's own hooks that look at the module alone, before and after it is filled
_FSDP = "torch.distributed.fsdp._fully_shard._fsdp_param"
_AROUND = {
    f"{_FSDP}_group.FSDPParamGroup._register_state_dict_hooks.<locals>.to_sharded_hook",
    f"{_FSDP}.FSDPParam.__init__.<locals>.<lambda>",
}


class ModuleReceiver:
    """A module of a target; its tensors on the meta device are replaced by new ones on `device`."""

    def __init__(self, module: Module, device: torch.device) -> None:
        self.module, self.device = module, device

    def intake(self, stored: StoredState, strict: bool, cast: bool) -> Intake:
        return _Filling(self.module, self.device, stored, strict, cast).intake()


class _Filling:
    """One load of a module from what a checkpoint has for it."""

    def __init__(self, module: Module, device: torch.device, stored: StoredState, strict: bool, cast: bool) -> None:
        self.module, self.device, self.strict, self.cast = module, device, strict, cast
        self.at, self.stored, self.wanted = stored.at, stored.leaves, stored.wanted
        self.versions = stored.tags.get("torch.state_dict")
        self.keys: dict[Any, list[Path]] = {}  # of the state, with the leaves that each holds
        for path in self.stored:
            if len(path) > len(self.at):
                self.keys.setdefault(path[len(self.at)], []).append(path)
        for sub in submodules(module):
            for hook in sub.module._load_state_dict_pre_hooks.values():
                if _name(hook) in _AROUND:  # which may change which tensors the module has
                    hook({}, sub.prefix, {}, True, [], [], [])
        self.subs = submodules(module)
        self.held = {held.name: held for sub in self.subs for held in sub.held}
        # what is filled under one of its names, is filled
        self.filled = {id(held.value) for held in self.held.values() if held.name in self.keys}
        self.new: dict[int, torch.Tensor] = {}  # by the tensor on the meta device whose place it takes
        self.direct, self.own = self._sorted()

    def intake(self) -> Intake:
        if not self.keys:
            return self._of_nothing()
        claims = self._claims()
        own = [sub for sub in self.own if claims[sub.prefix] or self._is_wanted(sub)]
        report = sum((self._foreseen(sub, claims[sub.prefix]) for sub in own), MatchReport())
        parts = [self._part(sub, claims[sub.prefix]) for sub in own]
        names = sum(self._wants(name) for sub in own for name in own_code.names(self._below(sub)))
        direct, order = self._in_place(), self._parameters()
        calls = (self._adopts, self._skip, self._after)
        return Intake(direct, tuple(parts), report, self._put, names, *calls, parameters=order)

    def _parameters(self) -> dict[Path, int]:
        """Those of the module in its order, as optimizers number them."""
        return {(*self.at, name): id(one) for name, one in self.module.named_parameters() if name in self.keys}

    def _of_nothing(self) -> Intake:
        """No state, or that of a module which has none."""
        direct = self._in_place()
        if self.at in self.stored:
            direct[self.at] = {}
        names = [name for sub in self.own for name in own_code.names(self._below(sub))]
        report = self._report(names) if not self.stored else MatchReport()
        return Intake(direct, report=report, names=len(report.missing), after=self._after)

    def _wants(self, name: str) -> bool:
        return self.wanted((*self.at, name))

    def _is_wanted(self, sub: Sub) -> bool:
        """Whether anything of a submodule is asked for; what has no names always is."""
        names = list(own_code.names(self._below(sub)))
        return not names or any(map(self._wants, names))

    # ---- whose code loads what

    def _below(self, sub: Sub) -> list[Sub]:
        """A submodule and all that are below it."""
        return self.subs[sub.start : sub.end]

    def _sorted(self) -> tuple[list[Sub], list[Sub]]:
        """The submodules that are filled directly, and the topmost of those that their own code loads, in torch's
        order. What shares a tensor with the latter is loaded in turn with them: of two names, the last one wins."""
        own = {sub.start for sub in self.subs if self._has_own_code(sub)}
        while True:
            direct, topmost, end = [], [], 0
            for sub in self.subs:
                if sub.start in own and sub.start >= end:
                    topmost.append(sub)
                    end = sub.end
                elif sub.start >= end:
                    direct.append(sub)
            theirs = {id(held.value) for sub in topmost for part in self._below(sub) for held in part.held}
            sharing = {sub.start for sub in direct if any(id(held.value) in theirs for held in sub.held)}
            if not sharing:
                return direct, topmost
            own |= sharing

    def _has_own_code(self, sub: Sub) -> bool:
        module, kind = sub.module, type(sub.module)
        if module is self.module and own_code.overrides(module):
            return True
        if kind.set_extra_state is not Module.set_extra_state or "_load_from_state_dict" in vars(module):
            return True
        known = {_BASE, *_AROUND}
        if own_code.unwraps(module):
            known.add(own_code.UNWRAP)
        if all(held.name in self.keys for part in self._below(sub) for held in part.held):
            known |= _AS_BASE
        hooks = (*module._load_state_dict_pre_hooks.values(), *module._load_state_dict_post_hooks.values())
        if _name(kind._load_from_state_dict) not in known or any(_name(hook) not in known for hook in hooks):
            return True
        return not all(_is_plain(held.value) and not self._is_otherwise(held) for held in sub.held)

    def _is_otherwise(self, held: Held) -> bool:
        """Whether what is stored is for torch to take: a tensor made of others, or a number with one axis, as torch had
        it once."""
        path = (*self.at, held.name)
        if any(len(leaf) > len(path) for leaf in self.keys.get(held.name, ())):
            return True
        return not held.value.shape and getattr(self.stored.get(path), "shape", None) == (1,)

    def _claims(self) -> dict[str, list[Any]]:
        """The keys of the state that each submodule with code of its own takes, by its prefix."""
        claims: dict[str, list[Any]] = {sub.prefix: [] for sub in self.own}
        if "" in claims:
            return {"": list(self.keys)}
        for key in self.keys if claims else ():
            for dot in re.finditer(r"\.", key) if isinstance(key, str) else ():
                if key[: dot.end()] in claims:
                    claims[key[: dot.end()]].append(key)
                    break
        return claims

    # ---- in place

    def _in_place(self) -> dict[Path, Any]:
        """What is filled directly, but for names that are missing of tensors that are not."""
        return {
            (*self.at, held.name): self._with_memory(held.value)
            for sub in self.direct
            for held in sub.held
            if held.name in self.keys or id(held.value) not in self.filled
        }

    def _with_memory(self, value: torch.Tensor) -> torch.Tensor:
        if not value.is_meta:
            return value
        if id(value) not in self.new:
            self.new[id(value)] = blank_like(value.detach(), self.device)
        return self.new[id(value)]

    def _adopts(self) -> dict[Path, Adopt]:
        """What of that may become a mapping: plain tensors on the host."""
        return {
            (*self.at, held.name): Adopt(id(held.value), partial(self._adopt, held.value))
            for sub in self.direct
            for held in sub.held
            if held.name in self.keys and in_host_memory(self._with_memory(held.value)) and not is_dtensor(held.value)
        }

    def _skip(self, paths: Collection[Path]) -> None:
        """Leave these as they are: what is on the meta device stays there."""
        names = {path[-1] for path in paths if path[:-1] == self.at}
        self.filled -= {id(held.value) for name, held in self.held.items() if name in names}

    def _adopt(self, value: torch.Tensor, array: Array) -> None:
        if value.is_meta:
            self.new[id(value)] = tensor_of(array)
        else:
            value.data = tensor_of(array)

    def _after(self) -> MatchReport:
        """What is left on the meta device."""
        parameters = self.module.named_parameters(remove_duplicate=False)
        buffers = self.module.named_buffers(remove_duplicate=False)
        found = (name for name, value in itertools.chain(parameters, buffers) if value.is_meta)
        return MatchReport(meta=tuple(path_label((*self.at, name)) for name in found))

    def _put(self) -> None:
        """Put new tensors that were filled into their places: tied ones stay tied."""
        made: dict[int, torch.Tensor] = {}
        for held in (held for sub in self.direct for held in sub.held):
            key = id(held.value)
            if key in self.new and key in self.filled:
                if key not in made:
                    made[key] = _as(held.value, self.new[key])
                setattr(held.module, held.attribute, made[key])
        for sub in self.direct:
            for hook in sub.module._load_state_dict_post_hooks.values():
                hook(sub.module, None)  # it is of `_AROUND`

    # ---- by its own code

    def _part(self, sub: Sub, names: list[Any]) -> StatePart:
        paths = frozenset(path for name in names for path in self.keys[name])
        copied = frozenset() if self._is_assigned(sub) else paths & {(*self.at, name) for name in self.held}
        return StatePart(paths, partial(self._take, sub, names), copied=copied)

    def _is_assigned(self, sub: Sub) -> bool:
        """Whether the tensors of the state become the module's, which has none with memory."""
        return any(held.value.is_meta for part in self._below(sub) for held in part.held)

    def _foreseen(self, sub: Sub, names: list[Any]) -> MatchReport:
        """What is known not to fit before the code is called: other dtypes and, where it is given other names or shapes
        than the module has, what it says of them in a trial."""
        prequantised = Prequantised(self._below(sub), names)
        names = [name for name in names if name not in set(prequantised.beside)]
        found: dict[Any, Any] = {name: self.stored.get((*self.at, name), own_code.OPAQUE) for name in names}
        dtypes = []
        differs = set(names) != set(own_code.names(self._below(sub)))
        for name, leaf in found.items():
            held = self.held.get(name)
            if held is None or not hasattr(leaf, "shape") or not _is_plain(held.value):
                continue
            wanted = row_of(held.value.dtype).numpy
            differs |= leaf.shape != tuple(held.value.shape)
            if leaf.dtype != wanted and not (self.cast and castable(leaf.dtype, wanted)):
                dtypes.append((path_label((*self.at, name)), leaf.dtype, wanted))
        report = MatchReport(dtype=tuple(dtypes))
        if not differs:
            return report
        said = own_code.tried(sub, found, self.versions)
        if said is None:
            return report
        said.shapes = [shape for shape in said.shapes if shape[0] not in prequantised.held]
        foreseen = self._said(said)
        return report + (foreseen if self.strict else MatchReport(shape=foreseen.shape))

    def _take(self, sub: Sub, names: list[Any], state: Mapping[Any, Any]) -> MatchReport:
        assign = self._is_assigned(sub)
        mine = OrderedDict((name, self._alike(name, state[name], assign)) for name in names)
        if hasattr(state, "_metadata"):
            mine._metadata = _versions_below(state._metadata, sub.prefix)  # type: ignore[attr-defined]
        if assign:
            self._part_aliases(mine)
        said = own_code.Said()
        with refusals(sub.module, (*self.at, *filter(None, [sub.prefix[:-1]])), lambda: self._said(said)):
            Prequantised(self._below(sub), names).take(mine)
            strict = self.strict and all(map(self._wants, own_code.names(self._below(sub))))
            own_code.load(sub, mine, said, strict=strict, assign=assign)
        if assign:
            self._tie()
        return self._said(said)

    def _alike(self, name: Any, value: Any, assign: bool) -> Any:
        """A loaded value, as torch's code takes it for what the module has under that name."""
        held = self.held.get(name)
        if held is None or not isinstance(value, torch.Tensor):
            return value
        if assign and self.cast:
            value = value.to(held.value.dtype)
        if is_dtensor(held.value) and value.shape == held.value.shape:
            from torch.distributed.tensor import distribute_tensor

            value = value.to(self.device if held.value.is_meta else held.value.device)
            return distribute_tensor(value, held.value.device_mesh, held.value.placements, src_data_rank=None)  # type: ignore[attr-defined]
        return value

    def _part_aliases(self, state: dict[Any, Any]) -> None:
        """Give different tensors of the module, which will be those of the state, memory of their own."""
        owners: dict[int, Any] = {}
        for name, value in state.items():
            owner = self.held[name].value if name in self.held else None
            if isinstance(value, torch.Tensor) and owners.setdefault(id(value), owner) is not owner:
                state[name] = value.clone()

    def _tie(self) -> None:
        """Make tensors one again that were one on the meta device, and of which torch put another in one place."""
        places: dict[int, list[Held]] = {}
        for held in self.held.values():
            if held.value.is_meta:
                places.setdefault(id(held.value), []).append(held)
        for tied in places.values():
            now = [getattr(held.module, held.attribute, None) for held in tied]
            first = next((value for value in now if value is not None and not value.is_meta), None)
            for held, value in zip(tied, now, strict=True):
                if first is not None and value is not first:
                    setattr(held.module, held.attribute, first)

    # ---- reports

    def _said(self, said: own_code.Said) -> MatchReport:
        missing = (n for n in said.missing if n not in self.held or id(self.held[n].value) not in self.filled)
        shapes = ((path_label((*self.at, name)), found, expected) for name, found, expected in said.shapes)
        return self._report(missing, said.unexpected) + MatchReport(shape=tuple(shapes))

    def _report(self, missing: Iterable[str], unexpected: Iterable[str] = ()) -> MatchReport:
        labels = (
            tuple(path_label((*self.at, name)) for name in names)
            for names in (filter(self._wants, missing), unexpected)
        )
        return MatchReport(next(labels), next(labels))


def _versions_below(versions: Mapping[str, Any], prefix: str) -> OrderedDict[str, Any]:
    """A copy of the versions of a submodule and those below it."""
    return OrderedDict(
        (name, copy.deepcopy(of)) for name, of in versions.items() if f"{name}.".startswith(prefix) or not prefix
    )


def _name(code: Any) -> str:
    return f"{getattr(code, '__module__', '')}.{getattr(code, '__qualname__', '')}"


def _is_plain(value: torch.Tensor) -> bool:
    try:
        check(value)
    except CkptError:
        return False
    return True


def _as(before: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    if isinstance(before, torch.nn.Parameter):
        return torch.nn.Parameter(now, before.requires_grad)
    return now.requires_grad_(before.requires_grad)
