"""Checkpoints of DeepSpeed: ZeRO 1, 2 and 3, and universal ones. Read as one tree, whatever the number of processes.

`module` has the weights, those in float32 that ZeRO keeps where it does, frozen ones and buffers as the model has them;
`optimizer` the state of each parameter by its name, as `get_optimizer_state_dict` of torch has it; the rest is what the
program saved beside. The copy of the weights in lower precision, which DeepSpeed makes of them, is not read.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any

import numpy as np

from ...errors import fault
from ...format.grid import Shape
from ..claims import shown
from ..entries import check_inside, read_file
from ..folders import has_weights
from ..parts import reshaped
from ..probe import Probe
from ..source import Loss, OpenedSource, Ours, SourceTensor, is_tensor
from ..zero_partitions import in_runs, in_shares, same_on_all, shapes_of
from . import torch_file

LATEST = ("latest", "latest_universal")  # files that name the step to be read
UNIVERSAL = "zero"  # a folder with one for each parameter
STATE = "optimizer_state_dict"
_MODEL = re.compile(r"(?:zero_pp_rank_(?P<rank>[0-9]+)_)?mp_rank_(?P<model>[0-9]+)_model_states\.pt").fullmatch
_OPTIMIZER = re.compile(r"(?:\w+_)?zero_pp_rank_(?P<rank>[0-9]+)_mp_rank_(?P<model>[0-9]+)_optim_states\.pt").fullmatch
_OF_OTHERS = re.compile(r".*[_-](model|optim)_states\.pt").fullmatch
# of a file of the model, what says how it is put together
_PARTS = {"module", "optimizer", "buffer_names", "param_shapes", "shared_params"}
_PARTS |= {"frozen_param_shapes", "frozen_param_fragments"}


def looks_like(probe: Probe) -> bool:
    if not probe.is_directory:
        return False
    if any(map(_MODEL, probe.entries)):
        return True
    if not set(LATEST) & probe.entries or has_weights(sorted(probe.entries)):
        return False
    step = _latest(probe.path)
    return os.path.isdir(step) and any(map(_MODEL, os.listdir(step)))


def _latest(path: str) -> str:
    """The folder of the step that a run names; raises `unsafe-source` where it lies elsewhere."""
    name = next(name for name in LATEST if os.path.isfile(os.path.join(path, name)))
    step = read_file(os.path.join(path, name), path, 4096).decode().strip()
    if step in ("", ".", "..") or step != os.path.basename(step) or "\0" in step:
        raise fault("unsafe-source", f"{name!r} names {shown(step)}, which is not beside it")
    check_inside(os.path.join(path, step), path)
    return os.path.join(path, step)


def read(path: str) -> OpenedSource:
    if not any(map(_MODEL, os.listdir(path))):
        path = _latest(path)
    return _ZeroReader(path).source()


JoinedWeights = Callable[[int, list[Any]], dict[str, SourceTensor]]  # of parameters, by number and ranks


class _ZeroReader:
    """Reads a step. `models` and `optimizers` are files by rank, opened."""

    def __init__(self, path: str) -> None:
        self.path, self.size = path, 0
        self.losses: list[Loss] = []
        names = sorted(os.listdir(path))
        if odd := [name for name in names if _OF_OTHERS(name) and not (_MODEL(name) or _OPTIMIZER(name))]:
            message = f"{odd[0]!r}: experts and pipelines in files of their own; convert them to a universal checkpoint"
            raise fault("unsupported-source", message)
        self.models = self.ranked(names, _MODEL)
        self.optimizers = self.ranked(names, _OPTIMIZER)
        self.model = self.models[0].tree
        self.shapes = shapes_of(self.model.get("param_shapes") or [])
        self.is_universal = os.path.isdir(os.path.join(path, UNIVERSAL))

    def ranked(self, names: list[str], pattern: Any) -> list[OpenedSource]:
        """The files of each rank; raises `unsupported-source` for model parallelism, and ValueError unless they are
        those from 0 on."""
        found: dict[int, str] = {}
        for name in names:
            match = pattern(name)
            if match is None:
                continue
            if int(match["model"]):
                message = f"{name!r}: tensors divided by model parallelism; convert them to a universal checkpoint"
                raise fault("unsupported-source", message)
            if found.setdefault(int(match["rank"] or 0), name) != name:
                raise ValueError(f"{name!r} and {found[int(match['rank'] or 0)]!r} are both of one rank")
        if missing := sorted(set(range(max(found, default=-1) + 1)) - set(found)):
            raise ValueError(f"the files of rank {missing[0]} are missing, of {max(found) + 1} or more")
        return [self.opened(found[rank]) for rank in sorted(found)]

    def opened(self, name: str) -> OpenedSource:
        file = os.path.join(self.path, name)
        check_inside(file, self.path)
        self.size += os.path.getsize(file)
        found = torch_file.read(file)
        if not isinstance(found.tree, dict):
            raise ValueError(f"{name!r} is no dict")
        return found

    def source(self) -> OpenedSource:
        optimizer: Any = self.model.get("optimizer")
        if self.is_universal:
            weights, optimizer = self.universal()
        elif self.optimizers:
            weights, optimizer = self.partitioned()
        else:
            weights = {}
            if self.shapes:
                message = "the partitions are not there: weights are as the model has them, and no optimizer's state"
                self.losses.append(Loss("missing", "", message))
        rest = {key: value for key, value in self.model.items() if key not in _PARTS}
        tree = {"module": self.module(weights), **({} if optimizer is None else {"optimizer": optimizer}), **rest}
        first = self.models[0]
        held = [*rest] if self.optimizers or self.is_universal else [*rest, "optimizer"]
        self.losses += [loss for loss in first.losses if loss.path.partition("/")[0] not in _PARTS - {*held}]
        tags = {} if first.ours is None else first.ours.tags
        kept = {at: found for at, found in tags.items() if at[:1] in [(key,) for key in held] or at == ("module",)}
        return OpenedSource(tree, first.metadata, tuple(self.losses), ours=Ours(None, kept, {}), size=self.size)

    def module(self, weights: Mapping[str, SourceTensor]) -> dict[str, Any]:
        """All weights and buffers, in the order of the model."""
        shared = self.model.get("shared_params") or {}
        found: dict[str, Any] = OrderedDict()
        whole = {**weights, **self.frozen()}
        for name, value in self.model["module"].items():
            if name in whole:
                found[name] = whole.pop(name)
            elif name not in shared:
                found[name] = value
                self.check_whole(name, value)
            else:
                found[name] = None  # its place in the order
        found |= whole
        for name, first in shared.items():
            if not is_tensor(found.get(first)):
                raise ValueError(f"{name!r} is shared with {first!r}, which is not there")
            found[name] = found[first]
        return found

    def check_whole(self, name: str, value: Any) -> None:
        """Refuse a weight of which ZeRO 3 has left an empty one in the model."""
        if len(self.models) > 1 and is_tensor(value) and value.shape == (0,):
            raise ValueError(f"{name!r} is empty in the model, and its partitions are not there")

    def frozen(self) -> dict[str, SourceTensor]:
        """Parameters that are not trained, which lie with the model."""
        (shapes,) = shapes_of([self.model.get("frozen_param_shapes") or {}])
        fragments = [found.tree.get("frozen_param_fragments") or {} for found in self.models]
        if len(self.models) == 1:
            for name, shape in shapes.items():
                if fragments[0][name].shape != shape:
                    raise ValueError(f"{name!r} has the shape {fragments[0][name].shape}, where {shape} is said")
            return {name: fragments[0][name] for name in shapes}
        found: dict[str, SourceTensor] = {}
        for name, shape in shapes.items():
            found |= in_shares({name: shape}, [[fragment[name]] for fragment in fragments])
        return found

    # ---- partitions

    def partitioned(self) -> tuple[dict[str, SourceTensor], Any]:
        """The weights in full precision, and the state of the optimizer."""
        said = [found.tree[STATE] for found in self.optimizers]
        counts = [of["partition_count"] for of in said]
        world = same_on_all("partition_count", [max(number) if type(number) is list else number for number in counts])
        if world != len(said):
            raise ValueError(f"there are {len(said)} partitions, where {shown(world)} are said to be")
        told = self.model.get("dp_world_size")
        if told not in (None, world):
            raise ValueError(f"the model was saved by {shown(told)} processes, its partitions by {world}")
        same_on_all("ds_version", [found.tree.get("ds_version") for found in (*self.models, *self.optimizers)])
        for key in ("global_steps", "param_shapes"):
            same_on_all(key, [found.tree.get(key) for found in self.models])
        if "fp32_flat_groups" in said[0]:
            if len(self.models) != world:
                raise ValueError(f"there are {len(self.models)} files of the model, where {world} are said to be")
            return self.by_shares(said)
        return self.by_runs(said)

    def by_runs(self, said: list[dict[str, Any]]) -> tuple[dict[str, SourceTensor], Any]:
        """Of ZeRO 1 and 2."""
        groups = [of["single_partition_of_fp32_groups"] for of in said]
        if any(len(of) != len(self.shapes) for of in groups):
            raise ValueError(f"there are partitions of {len(groups[0])} groups, where {len(self.shapes)} have shapes")
        paddings = said[0].get("param_alignment_paddings") or [None] * len(self.shapes)
        weights: dict[str, SourceTensor] = {}
        for number, shapes in enumerate(self.shapes):
            weights |= in_runs(shapes, [of[number] for of in groups], paddings[number])
        bases = [of.get("base_optimizer_state") for of in said]
        if not all(isinstance(base, dict) and "param_groups" in base for base in bases):
            self.losses.append(Loss("missing", "optimizer", "its state is not in the form of a torch optimizer"))
            return weights, None
        return weights, self.optimizer(bases, lambda of, ranks: in_runs(self.shapes[of], ranks, paddings[of]))

    def by_shares(self, said: list[dict[str, Any]]) -> tuple[dict[str, SourceTensor], Any]:
        """Of ZeRO 3, whose groups may be cut into smaller ones."""
        all_shapes = {name: shape for group in self.shapes for name, shape in group.items()}
        weights = in_shares(all_shapes, [of["fp32_flat_groups"] for of in said])
        bases = [of[STATE] for of in said]
        return weights, self.optimizer(bases, lambda of, ranks: in_shares(self.shapes[of], [[rank] for rank in ranks]))

    def optimizer(self, bases: list[Any], joined: JoinedWeights) -> dict[str, Any]:
        """The state of each parameter by its name, and the groups with names for parameters. `joined` puts the tensors
        of some parameters together, of which each rank has an array."""
        groups = self.named(same_on_all("the groups of parameters", [base["param_groups"] for base in bases]))
        state: dict[str, dict[str, Any]] = {}
        for of, shapes in enumerate(self.shapes):
            found: dict[str, dict[str, Any]] = {name: {} for name in shapes}
            for key in bases[0]["state"].get(of, ()):
                values = [base["state"][of][key] for base in bases]
                if is_tensor(values[0]) and values[0].ndim:
                    tensors = joined(of, values)
                else:
                    tensors = _of_each(shapes, same_on_all(f"{key!r} of the optimizer", values))
                for name in shapes:
                    found[name][key] = tensors[name]
            state |= {name: of for name, of in found.items() if of}
        return {"state": state, "param_groups": groups}

    def named(self, groups: Any) -> list[dict[str, Any]]:
        """The groups of an optimizer with names for their parameters, of which the optimizer knows some as one."""
        held = [of for group in groups for of in group["params"]]
        if sorted(held) != list(range(len(self.shapes))):
            raise ValueError(f"the optimizer has the parameters {shown(held)}, where {len(self.shapes)} have shapes")
        return [{**group, "params": [name for of in group["params"] for name in self.shapes[of]]} for group in groups]

    # ---- universal checkpoints

    def universal(self) -> tuple[dict[str, SourceTensor], Any]:
        """The weights in full precision, and the state of the optimizer, of which each parameter has a folder."""
        weights: dict[str, SourceTensor] = {}
        state: dict[str, dict[str, Any]] = {}
        for shapes in self.shapes:
            for name, shape in shapes.items():
                state[name] = self.folder(name, shape)
                if not is_tensor(state[name].get("fp32")):
                    raise ValueError(f"there is no fp32.pt of {name!r}")
                weights[name] = state[name].pop("fp32")
        common = self.opened(os.path.join(UNIVERSAL, "optimizer_state.pt")).tree
        groups = self.named(common["param_groups"])
        held = (common.get(STATE) or {}).get("state") or {}
        for of, shapes in enumerate(self.shapes):  # what ZeRO 3 has for all alike
            for key, value in (held.get(of) or {}).items():
                if not (is_tensor(value) and value.ndim):
                    for name, one in _of_each(shapes, value).items():
                        state[name].setdefault(key, one)
        return weights, {"state": {name: of for name, of in state.items() if of}, "param_groups": groups}

    def folder(self, name: str, shape: Shape) -> dict[str, Any]:
        """What the folder of a parameter has, by the names of files: tensors of its shape, and numbers."""
        if name != os.path.basename(name) or name in ("", ".", ".."):
            raise fault("unsafe-source", f"a parameter is called {shown(name)}, which is no folder here")
        place = os.path.join(self.path, UNIVERSAL, name)
        check_inside(place, self.path)
        if not os.path.isdir(place):
            raise ValueError(f"there is no folder of {name!r}")
        found: dict[str, Any] = {}
        for file in sorted(file for file in os.listdir(place) if file.endswith(".pt")):
            value = self.value(os.path.join(UNIVERSAL, name, file))
            if is_tensor(value) and value.ndim and value.shape != shape:
                if value.shape != (prod(shape),):  # as ZeRO 3 has it
                    raise ValueError(f"{file!r} of {name!r} has the shape {value.shape}, where {shape} is said")
                value = reshaped(value, shape)
            found[file.removesuffix(".pt")] = value
        return found

    def value(self, name: str) -> Any:
        """The value of a file, which may say beside it how it was put together."""
        file = os.path.join(self.path, name)
        check_inside(file, self.path)
        self.size += os.path.getsize(file)
        found = torch_file.read(file).tree
        return found["param"] if isinstance(found, dict) else found


def _of_each(names: Iterable[str], value: Any) -> dict[str, Any]:
    """A value for each name, which is not one for all: that would be a tied tensor."""
    return {name: np.array(value[()]) if is_tensor(value) else value for name in names}
