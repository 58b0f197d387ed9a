"""Tensors that lie in a mapped file as they are in memory, with a checksum beside them. What is asked for is checked
when it is first read; what is not asked for is not looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ..format.dtypes import Array
from ..format.tree import Tree
from ..frameworks.target import rebuild
from ..threads import Pool
from .source import LazyArray, LeadingSlices, SourceTensor, walk

THREADS = 2

BytesCheck = Callable[[], None]  # of the bytes below a tensor; raises ValueError where they are damaged


def checked(tensor: SourceTensor, check: BytesCheck) -> LazyArray:
    """A tensor of which no element is given before `check` was called."""
    if isinstance(tensor, LazyArray):
        return replace(tensor, read=partial(_part, check, tensor.read))
    whole = partial(_whole, check, tensor)
    return LazyArray(tensor.shape, tensor.dtype, partial(_part, check, tensor.__getitem__), mapped=whole)


def _part(check: BytesCheck, read: Callable[[LeadingSlices], Array], index: LeadingSlices) -> Array:
    check()
    return read(index)


def _whole(check: BytesCheck, array: Array) -> Array:
    check()
    return array


def lying(tensor: SourceTensor) -> SourceTensor:
    """The array, checked, where a tensor lies in a mapped file as it is in memory; any other one as it is."""
    return tensor.mapped() if isinstance(tensor, LazyArray) and tensor.mapped is not None else tensor


def with_arrays(tree: Tree) -> Tree:
    """The same tree with arrays, checked, for all tensors that lie in mapped files as they are in memory."""
    found = {id(leaf): leaf for _, leaf in walk(tree) if isinstance(leaf, LazyArray) and leaf.mapped is not None}
    if not found:
        return tree
    with Pool(THREADS, "ckptfmt-convert") as pool:
        arrays = dict(zip(found, pool.map(lying, found.values()), strict=True))
    return rebuild(tree, lambda _, leaf: arrays.get(id(leaf), leaf))
