"""Checkpoints in several files, each with some of the tensors: those that an index names (`*.index.json` of Hugging
Face), and those whose names count them (`model-00001-of-00003.safetensors`)."""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import Any

from ..errors import fault
from ..format.dtypes import dtype_of
from ..format.names import Path
from .claims import shown
from .entries import check_inside, read_json
from .source import Loss, OpenedSource, Ours, SourceTensor, is_tensor, nbytes

STATE_DICT = "torch.state_dict"  # a tag: the versions of modules
INDEX_METADATA = "index.metadata"  # metadata: what an index says beside names and sizes, as JSON
_DERIVED = {"total_size", "total_parameters"}  # follow from the tensors
_NUMBERED = re.compile(r"(?P<stem>.*)-(?P<number>[0-9]{5,})-of-(?P<count>[0-9]{5,})(?P<suffix>\.\w+)").fullmatch


@dataclass(frozen=True, slots=True)
class Numbered:
    """What the name of one file of several says: its `number`, from 1 on, and how many there are."""

    number: int
    count: int
    others: Callable[[int], str]
    """The path of the file of a number."""


def numbered(path: str) -> Numbered | None:
    """What a name like `model-00001-of-00003.safetensors` says."""
    found = _NUMBERED(path)
    if found is None:
        return None
    count, suffix = found["count"], found["suffix"]
    width = len(found["number"])
    return Numbered(
        int(found["number"]), int(count), lambda number: f"{found['stem']}-{number:0{width}}-of-{count}{suffix}"
    )


def alone(path: str) -> tuple[Loss, ...]:
    """What is missing where one file of several is all that is read."""
    found = numbered(path)
    if found is None or found.count < 2:
        return ()
    message = f"by its name this file is {found.number} of {found.count}; convert their index, or their folder"
    return (Loss("missing", "", message),)


def read(index: str, read_one: Callable[[str], OpenedSource]) -> OpenedSource:
    """All files that an index names. Each must hold exactly the tensors that the index says."""
    document = read_json(index, distinct)
    weight_map, about = document["weight_map"], dict(document.get("metadata") or {})
    names = _by_file(weight_map)
    tree: dict[str, Any] = {}
    merged, losses, size = Metadata(), list[Loss](), 0
    left_out = (0, 0)
    tags: dict[Path, Sequence[tuple[str, Any]]] = {}
    whole = Versions()
    with ExitStack() as stack:
        for shard, expected in names.items():
            path = os.path.join(os.path.dirname(index), shard)
            if not os.path.exists(path):
                raise fault("bad-source", f"the index names {shard}, which is missing", path=index)
            check_inside(path, os.path.dirname(index))
            source = stack.enter_context(read_one(path))
            if set(source.tree) != set(expected):
                odd = sorted(set(source.tree) ^ set(expected), key=str)[0]
                raise ValueError(f"{shard} and the index differ about the tensor {odd!r}")
            tree.update(source.tree)
            losses += source.losses
            merged.add(shard, source.metadata)
            if source.ours is not None:
                tags |= {path: found for path, found in source.ours.tags.items() if path}
                whole.add(shard, source.ours.tags.get((), ()))
            size += os.path.getsize(path)
            left_out = (left_out[0] + source.left_out[0], left_out[1] + source.left_out[1])
        losses += (
            merged.losses + whole.losses + _unnamed(names) + _size_told(about.get("total_size"), list(tree.values()))
        )
        further = {key: value for key, value in about.items() if key not in _DERIVED}
        metadata = merged.value
        if further:
            metadata = {**(metadata or {}), INDEX_METADATA: json.dumps(further, ensure_ascii=False)}
        ordered: dict[str, Any] = {name: tree[name] for name in weight_map}
        if whole.value is not None:
            ordered, tags[()] = OrderedDict(ordered), [(STATE_DICT, whole.value)]
        ours = Ours(None, tags, {}) if tags else None
        more: Any = {"resources": stack.pop_all(), "ours": ours, "size": size, "left_out": left_out}
        return OpenedSource(ordered, metadata, tuple(losses), **more)


def _by_file(weight_map: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of tensors by the file that an index names for them; raises `unsafe-source`."""
    names: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        if type(shard) is not str or shard != os.path.basename(shard) or shard in ("", ".", ".."):
            raise fault("unsafe-source", f"the index names {shown(shard)}, which is not beside it")
        names.setdefault(shard, []).append(name)
    return names


class Metadata:
    """The metadata of several files as one: `value`, or None, has what any of them says; `losses` names where a later
    one says otherwise."""

    def __init__(self) -> None:
        self.value: dict[str, Any] | None = None
        self.losses: list[Loss] = []

    def add(self, file: str, metadata: Any) -> None:
        if metadata is None:
            return
        self.value = self.value or {}
        for key, said in metadata.items():
            if self.value.setdefault(key, said) != said:
                self.losses.append(Loss("metadata", "", f"{key!r} of {file} differs from that of the files before it"))


class Versions:
    """The versions of modules that the state dicts in several files tell, as those of one: `value`, or None."""

    def __init__(self) -> None:
        self.value: dict[str, Any] | None = None
        self.losses: list[Loss] = []

    def add(self, file: str, tags: Sequence[tuple[str, Any]]) -> None:
        for name, param in tags:
            if name != STATE_DICT:
                self.losses.append(Loss("value", "", f"the tag {name} of {file} is left out"))
                continue
            self.value = self.value or {}
            for module, of in param.items():
                if self.value.setdefault(module, of) != of:
                    message = f"what {file} says of the module {module!r} differs from the files before it"
                    self.losses.append(Loss("value", "", message))


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises ValueError for one that has a name twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {shown(twice)} stands twice")
    return found


def _unnamed(shards: Collection[str]) -> list[Loss]:
    """What is to be said of files that the names of others count, and an index does not name."""
    count = max((found.count for found in map(numbered, shards) if found is not None), default=0)
    if count <= len(shards):
        return []
    return [Loss("missing", "", f"the index names {len(shards)} files, of {count} as they are called")]


def stored_bytes(tensor: SourceTensor) -> int:
    """Bytes of all elements in a file, where two of four bits share one."""
    row = dtype_of(tensor.dtype)
    return nbytes(tensor) if row is None else prod(tensor.shape) * row.bits // 8


def _size_told(told: Any, leaves: list[Any]) -> list[Loss]:
    """What is to be said of the bytes that an index counts: of each tensor, or of tied ones once."""
    tensors: list[SourceTensor] = [leaf for leaf in leaves if is_tensor(leaf)]
    each = sum(map(stored_bytes, tensors))
    once = sum(map(stored_bytes, {id(tensor): tensor for tensor in tensors}.values()))
    if told is None or told in (each, once):
        return []
    return [Loss("missing", "", f"the index counts {told!s:.40} bytes of tensors, where its files have {each:,}")]
