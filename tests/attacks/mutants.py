"""Documents with a hostile value in each place: what every reader of claims meets sooner or later.

`mutants` puts each of `VALUES` in the place of each part of a document of dicts and lists (as JSON and msgpack hold
them), and leaves each part out. Which of them a run takes is said by `asked`: a few of each kind, or with `--all` all.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from ckptfmt.conversion import FORMATS
from ckptfmt.conversion.table import reader_of

T = TypeVar("T")

for _format in FORMATS.values():
    reader_of(_format)  # its memory is not what is measured

VALUES: dict[str, Any] = {
    "-1": -1,
    "0": 0,
    "true": True,
    "1.5": 1.5,
    "nan": float("nan"),
    "2^31": 1 << 31,
    "2^62": 1 << 62,
    "2^63": 1 << 63,
    "2^64-1": (1 << 64) - 1,
    "none": None,
    "empty text": "",
    "long text": "9" * 5000,
    "control": "\x1b[2J\r\n\u202e/../..",
    "empty list": [],
    "huge list": [1 << 40] * 4,
    "many axes": [1] * 100_000,
    "negative list": [-2, -2],
    "empty dict": {},
    "deep": [[[[[[[[{"a": [[]]}]]]]]]]],
}


def mutants(document: Any, titles: Iterable[str] = VALUES) -> Iterator[tuple[str, Any]]:
    """(what was changed, the changed document) for each place and value."""
    for path in _places(document, ()):
        where = "/".join(map(str, path)) or "(all)"
        for title in titles:
            yield f"{where} = {title}", _changed(document, path, VALUES[title])
        if path:
            yield f"{where} left out", _changed(document, path, _GONE)


_GONE = object()


def _places(document: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield path
    items = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if type(document) in (list, tuple)
        else ()
    )
    for key, item in items:
        yield from _places(item, (*path, key))


def _changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    if isinstance(document, dict):
        items = {key: _changed(item, path[1:], value) if key == path[0] else item for key, item in document.items()}
        return {key: item for key, item in items.items() if item is not _GONE}
    items_ = [_changed(item, path[1:], value) if number == path[0] else item for number, item in enumerate(document)]
    return type(document)(item for item in items_ if item is not _GONE)


def asked(made: Iterable[T], every: int) -> Iterator[T]:
    """Those that this run takes: one of `every` so many, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="all of them, not a few of each kind")
    return islice(made, 0, None, 1 if parser.parse_args().all else every)
