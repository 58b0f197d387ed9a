"""msgpack documents (SPEC.md section 7), decoded within bounds of depth and memory. Pure."""

from __future__ import annotations

from typing import Any

import msgpack

from ..errors import CkptError, fault
from .limits import DEFAULT, Budget, costs_at_most, exceeded


def unpack(raw: bytes, memory: int | Budget | None = None) -> dict[str, Any]:
    """One msgpack map [MAN-001], whose values take at most `memory` bytes, or what is left of it [LIM-007]."""
    document = unpack_item(raw, memory)
    if type(document) is not dict:
        raise bad(f"a {type(document).__name__}, not a map [MAN-001]")
    return document


def unpack_item(raw: bytes, memory: int | Budget | None = None) -> Any:
    """One msgpack item of any type, within the same bounds."""
    hooks: dict[str, Any] = {}
    if isinstance(memory, Budget):
        hooks = _counting(memory)
    else:
        memory = DEFAULT.values(len(raw)) if memory is None else memory
        hooks = {} if costs_at_most(raw, memory) else _counting(Budget(memory))
    try:
        document = msgpack.unpackb(
            raw, **{"raw": False, "strict_map_key": True, "object_pairs_hook": _map, "ext_hook": _no_extension, **hooks}
        )
    except CkptError:
        raise
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        if hooks and "exceeds max_" in str(error):
            raise exceeded(memory.limit if isinstance(memory, Budget) else memory) from error
        raise bad(f"not one msgpack value: {error} [MAN-001]") from error
    return document


def _map(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise bad("a map repeats a key [MAN-001]")
    if not all(type(key) is str for key in found):
        raise bad("a map has a key that is no string [MAN-001]")
    if any(type(value) is msgpack.Timestamp for value in found.values()):  # which ext_hook does not see
        raise bad("msgpack extension type -1 [MAN-001]")
    return found


def _counting(budget: Budget) -> dict[str, Any]:
    """Options of msgpack that stop where the memory ends."""

    def counted(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        found = _map(pairs)
        budget.take([item for pair in pairs for item in pair], found)
        return found

    # what the items of one container take before they can be counted
    most = {"max_array_len": budget.left // 72, "max_map_len": budget.left // 250}
    return {"list_hook": budget.take, "object_pairs_hook": counted, **most}


def _no_extension(code: int, _: bytes) -> Any:
    raise bad(f"msgpack extension type {code} [MAN-001]")


def bad(message: str) -> CkptError:
    """What a breach of the specification is."""
    return fault("bad-manifest", message)
