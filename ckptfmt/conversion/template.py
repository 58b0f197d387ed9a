"""A model of others as the target: a copy of it, in which tensors are replaced.

What a model has beside tensors (its graph, its keys) a checkpoint cannot tell, and so `template` names one that has it.
A tensor that has the name, dtype and shape of one of the model takes its place, byte for byte: whatever lies raw in a
file of the model can be replaced, and nothing else of it changes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np

from ..errors import fault
from ..format.dtypes import DTYPES, Array, bytes_of, dtype_of
from ..format.names import path_label
from ..format.tree import Tree
from ..storage import disk as disks
from ..storage.folders import entries_below
from .entries import check_folder
from .equality import same_leaf, same_plain
from .fit import Fitted, Holds, KeptMetadata, dtype_name
from .opening import open_source, place_of
from .source import Advance, Loss, SourceTensor, elements, is_tensor, nbytes, place_in_file

COPIED = 4 << 20  # bytes at once
NAMED = 3  # names in an error


def format_of(path: str) -> str:
    """The name of the format of the model at a path."""
    return place_of(path).format


class ModelTemplate:
    """The model at a path. A copy `is_folder` where it has several files."""

    def __init__(self, path: str, format: str, stack: ExitStack, **reading: Any) -> None:
        self._source = stack.enter_context(open_source(path, format, **reading))
        self._path = os.path.abspath(self._source.place.path)
        self._replaced: dict[str, SourceTensor] = {}
        self._folder, files = self._files()
        self.is_folder = os.path.isdir(self._path) or len(files) > 1
        self._names = [os.path.relpath(file, self._folder) for file in files] if self.is_folder else [""]
        self.HOLDS = Holds(dtypes=frozenset(DTYPES), aliases=True, metadata=self._kept)

    def _files(self) -> tuple[str, list[str]]:
        """The folder of the model, and its files."""
        if os.path.isdir(self._path):
            check_folder(self._path)
            return self._path, sorted(entry.path for entry in entries_below(self._path) if entry.is_file())
        places = (_place(leaf) for leaf in self._source.tree.values() if is_tensor(leaf))
        others = {os.path.abspath(place[0].path) for place in places if place is not None}
        return os.path.dirname(self._path), [self._path, *sorted(others - {self._path})]

    def is_copy(self, folder: str) -> bool:
        """Whether a folder has the files of the model, and no other."""
        return set(self._names) == {
            os.path.relpath(entry.path, folder) for entry in entries_below(folder) if not entry.is_dir()
        }

    def main(self, target: str) -> str:
        """What is opened of a copy at `target`."""
        return target if not self.is_folder else os.path.join(target, os.path.relpath(self._path, self._folder))

    def _kept(self, metadata: Tree, tree: Tree) -> KeptMetadata:
        """The metadata of the model stay as they are."""
        own = self._source.metadata or {}
        if metadata is None or same_plain(metadata, own):
            return KeptMetadata(None)
        if not isinstance(metadata, dict):
            return KeptMetadata(None, ("they are left out: the template has its own",))
        odd = [key for key, value in metadata.items() if key not in own or not same_plain(value, own[key])]
        return KeptMetadata(None, tuple(f"{key!r} is left out: the template has its own" for key in odd))

    def filled(self, fitted: Fitted) -> Fitted:
        """All that the model has, with the tensors that take the place of its own; raises `no-match`."""
        own, losses = self._source.tree, list(fitted.losses)
        for name, tensor in fitted.tree.items():
            why = self._refusal(name, tensor)
            if why is None:
                self._replaced[name] = tensor
            else:
                losses.append(Loss("value", path_label((name,)), f"it is left out: {why}"))
        if not any(name in own for name in fitted.tree):
            there, here = (", ".join(map(repr, list(tree)[:NAMED])) or "nothing" for tree in (own, fitted.tree))
            message = f"no tensor has the name of one in the template, which has {there}, where here are {here}"
            advice = "Take a part (root=), or another template"
            raise fault("no-match", message, path=self._path, advice=advice)
        tied = {_identity(own[name]): tensor for name, tensor in self._replaced.items()}
        whole = {name: tied.get(_identity(leaf), leaf) if is_tensor(leaf) else leaf for name, leaf in own.items()}
        return fitted._replace(tree={**whole, **self._replaced}, metadata=None, losses=tuple(losses))

    def _refusal(self, name: str, tensor: SourceTensor) -> str | None:
        """Why a tensor cannot take the place of one of the model."""
        own = self._source.tree.get(name)
        if own is None:
            return "the template has none of that name"
        if not is_tensor(own):
            return "the template has a plain value of that name"
        if own.shape != tensor.shape or own.dtype.newbyteorder("=") != tensor.dtype.newbyteorder("="):
            return f"it is {_said(tensor)}, and the template has {_said(own)}"
        if nbytes(own) and _place(own) is None and not same_leaf(tensor, own, lambda _: None):
            return "the template has its elements in a form that is not replaced"
        return None

    def write(self, path: str, tree: Tree, metadata: Tree, advance: Advance) -> None:
        """Copy the files of the model, and put the tensors where they belong."""
        disk = disks.current()
        with ExitStack() as stack:
            numbers: dict[str, int] = {}
            for name in self._names:
                origin = os.path.join(self._folder, name) if self.is_folder else self._path
                if os.path.dirname(name):
                    os.makedirs(os.path.join(path, os.path.dirname(name)), exist_ok=True)
                copy = os.path.join(path, name) if self.is_folder else path
                file = stack.enter_context(open(copy, "xb" if self.is_folder else "r+b"))
                with open(origin, "rb") as model:
                    shutil.copyfileobj(model, file, COPIED)
                file.flush()
                numbers[os.path.realpath(origin)] = file.fileno()
            for name, tensor in self._replaced.items():
                place = _place(self._source.tree[name])
                if place is not None:
                    at = place[1]
                    for part in _stored(tensor):
                        disk.write_all(numbers[os.path.realpath(place[0].path)], part, at)
                        at += len(part)
        advance(sum(nbytes(leaf) for leaf in tree.values() if is_tensor(leaf)))


def _place(tensor: SourceTensor) -> Any:
    """The file in which the elements of a tensor lie as they are, and where; None if they do not."""
    octets = tensor if isinstance(tensor, np.ndarray) else tensor.octets
    return None if octets is None else place_in_file(octets)


def _identity(tensor: SourceTensor) -> Any:
    """Equal for tensors of a model that are the same bytes, and so are replaced together."""
    place = _place(tensor)
    return id(tensor) if place is None else (place[0].path, place[1], tensor.dtype, tensor.shape)


def _said(tensor: SourceTensor) -> str:
    return f"{dtype_name(tensor.dtype)} of shape {list(tensor.shape)}"


def _stored(tensor: SourceTensor) -> Iterator[memoryview]:
    """The elements as they are stored: those of a few bits one after another, from the lowest bit on."""
    row = dtype_of(tensor.dtype)
    if row is None or row.bits >= 8:
        yield from elements(tensor)
        return
    rest = np.empty(0, np.uint8)
    for piece in elements(tensor):
        cells = np.concatenate([rest, np.frombuffer(piece, np.uint8)])
        whole = cells.size - cells.size % 8  # as many fill bytes
        yield _packed(cells[:whole], row.bits)
        rest = cells[whole:]
    yield _packed(rest, row.bits)


def _packed(cells: Array, bits: int) -> memoryview:
    table = np.unpackbits(cells[:, None], axis=1, count=bits, bitorder="little")
    return bytes_of(np.packbits(table.reshape(-1), bitorder="little"))
