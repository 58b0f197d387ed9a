"""Nodes of the tree (SPEC.md section 2) as msgpack gives them, and the functions that a tag has for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import CkptError

Node = Any  # nil, bool, int, float, str, bytes, or a list whose first item names its kind
Accepts = Callable[[Node, Node, Sequence[str]], bool]  # param, child node, dtypes of the manifest's tensors
Restore = Callable[[Any, Any], Any]  # param, value of the child; NotImplemented where it cannot be made [TAG-004]


class PagedNode:
    """The tree of a manifest that keeps parts of it in pages, which are read when they are asked for."""

    __slots__ = ()

    @property
    def whole(self) -> Node:
        """The tree, checked; raises `bad-manifest` or `manifest-digest`."""
        raise NotImplementedError

    def exact(self, path: Any) -> tuple[str | int, ...] | None:
        """The typed path that a caller's can only mean; None where that takes a look at all of the tree."""
        raise NotImplementedError

    def leaf(self, path: tuple[str | int, ...]) -> Node | None:
        """The plain value or tensor at a path, checked, with the tags over it; None where there is none, or a
        container."""
        raise NotImplementedError

    def damage(self) -> Iterator[CkptError]:
        """What is wrong with each page that does not match its sha256."""
        raise NotImplementedError
