"""How cases of migrations are described, and the tensors that they share.

What a migration gives is worked out from the values of its source.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from ..build import Checkpoint
from ..cases import INPUT, Case
from ..model import Tensor, tensor
from ..provenance import document_digest
from . import FORMAT, SINCE, Entry, add, plain, value_of

Document = dict[str, Any]
RESULT = "MIG-017 MIG-018 MIG-019"  # what is checked of every result
EXTERN = "conformance.reverse@1"


def ints(*values: int, shape: tuple[int, ...] | None = None, dtype: str = "int32") -> Tensor:
    code = {"int8": "b", "int32": "i", "uint16": "H", "bfloat16": "H"}[dtype]
    return Tensor(dtype, shape or (len(values),), struct.pack(f"<{len(values)}{code}", *values))


def floats(*values: float, dtype: str = "float32") -> Tensor:
    return Tensor(dtype, (len(values),), struct.pack(f"<{len(values)}{'f' if dtype == 'float32' else 'd'}", *values))


def words(*values: int) -> Tensor:
    """Elements of float32 by their bits."""
    return Tensor("float32", (len(values),), struct.pack(f"<{len(values)}I", *values))


def move(source: Any, target: Any, *operators: Document, **more: Any) -> Document:
    """A rule."""
    return {"from": source, **({"with": list(operators)} if operators else {}), "to": target, **more}


def document(*rules: Document, start: str = "1", end: str = "2", **more: Any) -> Document:
    return {"ckptfmt_migration": 1, "schema": "s", "from": start, "to": end, "rules": list(rules), **more}


def raw(text: str | bytes) -> Document:
    """A file of migrations that is written as it stands."""
    return {"hex": (text.encode() if isinstance(text, str) else text).hex()}


def link(
    made: Document, loss: str = "exact", *, inverse: bool = False, parameters: dict[str, int] | None = None
) -> Document:
    """One step of the chain that a result records. [MIG-017]"""
    start, end = (made["to"], made["from"]) if inverse else (made["from"], made["to"])
    record = {"from": start, "to": end, "document": document_digest(made).hex(), "inverse": inverse, "class": loss}
    return {**record, "parameters": parameters or {}}


def migrated(
    identity: str,
    title: str,
    spec: str,
    source: Checkpoint,
    documents: list[Any],
    result: Any,
    chain: list[Document] | None = None,
    *,
    needs: Iterable[str] = (),
    level: str = "must",
    to: str = "2",
    loss: str = "exact",
    ordered: bool = False,
    **options: Any,
) -> None:
    """A checkpoint that is migrated. `result`: the tree that comes out; `chain`: the steps that it records, by default
    all documents; `loss`: the class of the chain."""
    operation = {"op": "migrate", "migrations": documents, "to": to, **options}
    chain = [link(one, loss) for one in documents] if chain is None else chain
    expect: dict[str, Any] = {"tree": value_of(result), "metadata": source.values()[1]}
    expect |= {"schema": {"id": "s", "version": to}, "class": loss, "chain": chain}
    if ordered:
        expect["ordered"] = True
    features = ["migrate", *needs, *source.features()]
    statements = list(dict.fromkeys(f"{spec} {RESULT}".split()))
    case = Case(identity, title, statements, level, features, SINCE, FORMAT, {"path": INPUT}, operation, expect)
    add(Entry(case, source.build()))


def refused(
    identity: str,
    title: str,
    spec: str,
    documents: list[Any],
    codes: str,
    *,
    base: str = "migrate-move",
    steps: Iterable[Document] = (),
    faults: int | None = None,
    needs: Iterable[str] = (),
    to: str = "2",
    **options: Any,
) -> None:
    """A migration of the input of the case `base` that must be refused, without leaving anything. `faults`: how many
    have to be reported together, at least."""
    expect: dict[str, Any] = {"error": {"any_of": codes.split()}} | ({} if faults is None else {"faults": faults})
    source = {"mutation": {"base": base, "steps": list(steps)}, "generated": True}
    operation = {"op": "migrate", "migrations": documents, "to": to, **options}
    needs = ["migrate", *needs, "layout:file", "digest:sha256"]
    plain(identity, title, f"{spec} MIG-019", source, operation, expect, needs=needs)


def source(tree: Any, version: str = "1", **options: Any) -> Checkpoint:
    return Checkpoint(tree, schema=("s", version), **options)


A, B, C, D = (tensor("int8", (2,), seed) for seed in "abcd")
W = ints(1, 2, 3, 4, 5, 6, shape=(2, 3))

TURN = {"op": "rearrange", "pattern": "a b -> b a"}
TURNED = ints(1, 4, 2, 5, 3, 6, shape=(3, 2))
WIDEN = {"op": "cast", "from": "float32", "dtype": "float64"}
ONE, TWO = document(move("a", "b")), document(move("b", "c"), start="2", end="3")
