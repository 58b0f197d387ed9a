"""The cases, described. `python -m conformance.make` turns these descriptions into the files under `vectors/`.

Each module adds entries with the functions below. Expectations come from the description of a checkpoint, never
from a reader.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from typing import Any, NamedTuple

from .. import HERE
from ..build import Checkpoint, Files
from ..cases import INPUT, Case
from ..model import Encoder, earliest, lookup, path_value, without_bytes
from ..packing import pack

sys.setrecursionlimit(10_000)  # the deepest trees are 512 msgpack arrays deep

SINCE, FORMAT = "1.0.0", "1.0"
LATER: dict[str, str] = {  # the version of the suite that brought a case, for those that the first did not have
    identity: version
    for version, brought in json.loads((HERE / "since.json").read_text()).items()
    for identity in brought
}
Path = Iterable[Any]


class Entry(NamedTuple):
    """A case, and the files that it brings: the input, if it is built, and others by name."""

    case: Case
    files: Files | None = None
    others: tuple[tuple[str, str], ...] = ()


ENTRIES: dict[str, Entry] = {}


def add(entry: Entry) -> None:
    if entry.case.id in ENTRIES:
        raise ValueError(f"two cases are called {entry.case.id}")
    case, since = entry.case, LATER.get(entry.case.id, SINCE)
    version = max(text_of(earliest([case.operation, case.expect])), case.format)
    ENTRIES[case.id] = entry._replace(case=replace(case, since=since, format=version))


def text_of(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def msgpack(item: Any) -> str:
    """An item as the recipes have it."""
    return pack(item).hex()


def place(region: Any, offset: int) -> dict[str, Any]:
    return {"region": region, "offset": offset}


def chunk(path: Path, number: int, offset: int) -> dict[str, Any]:
    """A byte of a chunk."""
    return place({"tensor": path_value(list(path)), "chunk": number}, offset)


def edit(pointer: str, item: Any) -> list[dict[str, Any]]:
    """Steps that replace one item of the manifest, and nothing else."""
    return [{"do": "edit_manifest", "pointer": pointer, "msgpack": msgpack(item)}, {"do": "reseal"}]


def remove(pointer: str) -> list[dict[str, Any]]:
    return [{"do": "edit_manifest", "pointer": pointer, "msgpack": ""}, {"do": "reseal"}]


def valid(
    identity: str,
    title: str,
    spec: str,
    checkpoint: Checkpoint,
    operation: dict[str, Any] | None = None,
    expect: dict[str, Any] | None = None,
    *,
    needs: Iterable[str] = ("reader",),
    level: str = "must",
) -> None:
    """A checkpoint that every reader has to accept; read whole, if no other operation is given."""
    tree, _metadata = checkpoint.values()
    operation = operation or {"op": "read", "path": []}
    if expect is None:
        expect = {"value": lookup(tree, operation["path"])}
    if operation["op"] == "list":
        expect = {**expect, "tree": without_bytes(expect["tree"])}
    features = [*needs, *checkpoint.features()]
    case = Case(
        identity,
        title,
        list(dict.fromkeys(spec.split())),
        level,
        features,
        SINCE,
        text_of(checkpoint.since),
        {"path": INPUT},
        operation,
        expect,
    )
    add(Entry(case, checkpoint.build()))


def fault(
    identity: str,
    title: str,
    spec: str,
    base: str,
    steps: list[dict[str, Any]],
    error: str | dict[str, Any],
    operation: dict[str, Any] | None = None,
    *,
    needs: Iterable[str] = (),
    still: Iterable[Path] = (),
    generated: bool = False,
    name: str = INPUT,
    level: str = "must",
    lacks: Iterable[str] = (),
) -> None:
    """A checkpoint with one fault, made from the input of the case `base`. `error`: codes, or an expectation. `still`:
    paths that can be read all the same. `generated`: the input is made when the case is run."""
    expect: dict[str, Any] = {"error": {"any_of": error.split()}} if isinstance(error, str) else dict(error)
    of_base = ENTRIES[base].case
    values = [{"path": path_value(list(path)), "value": _value_of(base, path)} for path in still]
    if values:
        expect["still_readable"] = values
    features = [*of_base.features, *(feature for feature in needs if feature not in of_base.features)]
    features = [feature for feature in features if feature not in set(lacks)]
    source: dict[str, Any] = {"mutation": {"base": base, "steps": steps}}
    source |= ({"generated": True} if generated else {"path": INPUT}) | ({"name": name} if name != INPUT else {})
    operation = operation or {"op": "open"}
    add(
        Entry(
            Case(
                identity,
                title,
                list(dict.fromkeys(spec.split())),
                level,
                features,
                SINCE,
                FORMAT,
                source,
                operation,
                expect,
            )
        )
    )


def verified(
    identity: str, title: str, spec: str, base: str, steps: list[dict[str, Any]], *damage: dict[str, Any], **more: Any
) -> None:
    """The same, of which a whole verification tells this damage and no other; `more` is what `fault` takes."""
    fault(identity, title, spec, base, steps, {"damage": [*damage]}, {"op": "verify"}, needs=("verify",), **more)


def plain(
    identity: str,
    title: str,
    spec: str,
    source: dict[str, Any] | None,
    operation: dict[str, Any],
    expect: dict[str, Any],
    *,
    needs: Iterable[str] = ("reader",),
    level: str = "must",
    large: bool = False,
    others: dict[str, str] | None = None,
) -> None:
    """Any other case."""
    case = Case(
        identity,
        title,
        list(dict.fromkeys(spec.split())),
        level,
        list(needs),
        SINCE,
        FORMAT,
        source,
        operation,
        expect,
        large,
    )
    add(Entry(case, None, tuple((others or {}).items())))


def value_of(tree: Any) -> dict[str, Any]:
    """A tree as a value of the protocol."""
    found: dict[str, Any] = Encoder().encode(tree)[1]
    return found


def _value_of(base: str, path: Path) -> dict[str, Any]:
    expect = ENTRIES[base].case.expect
    return lookup(expect["value"], path_value(list(path)))


# in this order: a module builds on the cases of those before it
MODULES = (
    *(
        "trees",
        "dtypes",
        "names",
        "arrays",
        "codecs",
        "manifests",
        "records",
        "locating",
        "damage",
        "zips",
        "tags",
        "values",
    ),
    *(
        "packed",
        "packed_damage",
        "labels",
        "pages",
        "page_faults",
        "page_damage",
        "paged_directories",
        "patches",
        "patch_faults",
        "zarr",
        "crashes",
        "large",
        "writing",
        "paged_writing",
        "statistics",
    ),
    *("migrations", "migration_chains", "migration_faults", "casts", "formats", "golden", "agreement"),
)


def all_entries() -> dict[str, Entry]:
    """Every entry of every module."""
    for name in MODULES:
        import_module(f".{name}", __name__)
    return ENTRIES
