"""What a migrated or upgraded checkpoint says of where it comes from. SPEC.md MIG-017, MIG-018 and FMT-004."""

from __future__ import annotations

import hashlib
from typing import Any

from .packing import pack
from .recipes import Flat, Mutation

Record = dict[str, Any]


def document_digest(document: Any) -> bytes:
    """The digest of a migration document. [MIG-018]"""
    return hashlib.sha256(pack(_sorted(document))).digest()


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=str.encode)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def difference(result: Record, source: Flat, expected: Record) -> str:
    """How the provenance of `result`, a manifest, differs from that of its `source` and one more record, "" if it does
    not. `expected`: the record but for `generator` and `source`; digests in it are hex."""
    before = Mutation(source)
    earlier = before.document.get("provenance", [])
    found = result.get("provenance")
    if not isinstance(found, list) or len(found) != len(earlier) + 1 or found[:-1] != earlier:
        return f"`provenance` is not what the source had ({len(earlier)} records) and one more [MIG-017]"
    last = found[-1]
    if not isinstance(last, dict) or not isinstance(last.get("generator"), str):
        return "the last record of `provenance` is no map with a `generator` [MIG-017]"
    if last.get("source") != hashlib.sha256(before.manifest).digest():
        return "`source` of the last record is not the sha256 of the source's manifest [MIG-017]"
    for key, value in expected.items():
        if (shown := _shown(last.get(key))) != value:
            return f"`{key}` of the last record is {shown} instead of {value} [MIG-017] [MIG-018]"
    lost = sorted(before.document.keys() - result.keys())
    return f"the manifest has lost its keys {lost} [MAN-003]" if lost and "version" not in lost else ""


def _shown(value: Any) -> Any:
    """A value with hex in place of bytes."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value
