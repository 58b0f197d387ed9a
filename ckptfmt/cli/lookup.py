"""Values by path, as a user writes it: a path text, or the exact typed path as a JSON array."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import fault
from ..format.names import Key, Path, label, path_label, path_text
from ..near import did_you_mean


def find(tree: Any, written: str, checkpoint: str) -> tuple[Path, Any]:
    """The typed path and the value at `written` ("model/wte", or '["model", "wte"]' where that leaves doubt).
    Keys may be written as they are shown, the str "0" as '0'. Raises `no-such-path`, and `ambiguous-path` for a text
    that fits several values.
    """
    fits = list(_fits(tree, written, ())) or list(_exact(tree, written))
    if not fits:
        hint = did_you_mean(written, map(path_label, _paths(tree, ())))
        raise fault("no-such-path", f"there is no {written!r} in the tree", path=checkpoint, hint=hint)
    if len(fits) > 1:
        ways = " or ".join(f"'{json.dumps(path)}'" for path, _ in fits)
        raise fault("ambiguous-path", f"{written!r} fits {len(fits)} values: write {ways}", path=checkpoint)
    return fits[0]


def _fits(value: Any, rest: str, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every value at which `rest` can lead; a key may itself contain `/`."""
    if not path and not rest:
        yield path, value
    for key, item in _items(value):
        for segment in {path_text((key,)), label(key)}:
            if rest == segment:
                yield (*path, key), item
            elif rest.startswith(f"{segment}/"):
                yield from _fits(item, rest[len(segment) + 1 :], (*path, key))


def _exact(value: Any, written: str) -> Iterator[tuple[Path, Any]]:
    """The value at a typed path, if `written` is one and leads somewhere."""
    try:
        keys = json.loads(written)
    except (ValueError, RecursionError):
        return
    if type(keys) is not list:
        return
    for key in keys:
        if type(key) not in (str, int):
            return
        found = [item for candidate, item in _items(value) if candidate == key]
        if not found:
            return
        value = found[0]
    yield tuple(keys), value


def _paths(value: Any, path: Path) -> Iterator[Path]:
    """Every path below a value but its own."""
    for key, item in _items(value):
        yield (*path, key)
        yield from _paths(item, (*path, key))


def _items(value: Any) -> Iterable[tuple[Key, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple) else ()
