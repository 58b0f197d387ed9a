"""Nodes of the tree (SPEC.md section 2) as msgpack gives them, and the functions that a tag has for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Node = Any  # nil, bool, int, float, str, bytes, or a list whose first item names its kind
Accepts = Callable[[Node, Node, Sequence[str]], bool]  # param, child node, dtypes of the manifest's tensors
Restore = Callable[[Any, Any], Any]  # param, value of the child; NotImplemented where it cannot be made [TAG-004]
