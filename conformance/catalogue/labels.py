"""How errors name a tensor: by the label of its first path. SPEC.md sections 2 and 6."""

from __future__ import annotations

from typing import Any

from ..build import Checkpoint
from ..model import path_value, tensor
from ..pages import Paging
from . import chunk, fault, valid

ODD: dict[Any, Any] = {
    "plain": tensor("int8", (2,), "1"),
    "a/b": tensor("int8", (2,), "2"),
    "0": tensor("int8", (2,), "3"),
    "-1": tensor("int8", (2,), "4"),
    "": tensor("int8", (2,), "5"),
    0: [tensor("int8", (2,), "6")],
    "x": {"": {"7": (tensor("int8", (2,), "7"), None)}},
    "ü": {"é/ü": tensor("int8", (2,), "8")},
}
LABELS: dict[str, tuple[list[Any], str]] = {
    "plain": (["plain"], "plain"),
    "slash": (["a/b"], "'a/b'"),
    "digits": (["0"], "'0'"),
    "negative": (["-1"], "'-1'"),
    "empty": ([""], "''"),
    "ints": ([0, 0], "0/0"),
    "nested": (["x", "", "7", 0], "x/''/'7'/0"),
    "not-ascii": (["ü", "é/ü"], "ü/'é/ü'"),
}
for _base, _checkpoint in {
    "label-base": Checkpoint(ODD),
    "label-pages-base": Checkpoint(ODD, paged=Paging(3, 10_000)),
}.items():
    valid(_base, "Keys that could be mistaken in the text of a path.", "NAME-003 BLK-009", _checkpoint)
    for _name, (_path, _label) in LABELS.items():
        fault(
            f"{_base.removesuffix('base')}{_name}",
            f"Damage of the tensor whose label is {_label}.",
            "BLK-009 BLK-004",
            _base,
            [{"do": "flip_bit", "at": chunk(_path, 0, 1), "bit": 0}],
            {"error": {"any_of": ["block-digest"], "tensor": _label, "chunk": 0, "block": 0}},
            {"op": "read", "path": path_value(_path)},
        )
