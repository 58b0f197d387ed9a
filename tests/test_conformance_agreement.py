"""Readers that were made apart from each other accept and refuse the same manifests, whatever is changed in them: what
no sentence of SPEC.md decides, they would decide each in its own way. [READ-008]"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from javascript import missing

from conformance import VECTORS
from conformance.__main__ import implementation
from conformance.cases import INPUT, read_flat, write_files
from conformance.packing import pack
from conformance.process import Implementation
from conformance.recipes import Mutation

BASES = (  # none has a tag: readers that know one look at more [TAG-003]
    *("manifest-unknown-keys", "codec-several", "dtype-int4", "empty-tensors", "grid-even-file", "grid-columns-loose"),
    *("tree-scalars", "tree-dict-int-keys", "packed-two-parts", "packed-part-manifests", "packed-placement-runs"),
)
NUMBERS = (0, 1, 2, -1, 64, 4096, 2**31, 2**32, 2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.0, 1.0)
TEXTS = (
    "",
    "a",
    "x",
    "a/b",
    "..",
    "zarr.json",
    "file",
    "packed",
    "loose",
    "zstd",
    "sha256",
    "xxh3-128",
    "int4",
    "bool",
)
NODES = (["int", b""], ["int", b"\5"], ["tensor", 0], ["tensor", 1], ["list", []], ["tuple", [1]], ["dict", ["a"], [1]])
POOL: tuple[Any, ...] = (
    *(None, True, False, *NUMBERS, *TEXTS, b"", bytes(8), bytes(16), bytes(32), [], [0], [1, 1], {}, {"path": "x"}),
    *(*NODES, ["scalar", "bool", b"\2"], ["complex", bytes(16)]),
)


def places(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every item within a manifest, with the keys that lead to it."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield (*at, str(key)), item
        yield from places(item, (*at, str(key)))


def changed(chance: random.Random, old: Any) -> str:
    """Another item in place of `old`, as msgpack in hex; "" takes it away."""
    kind = chance.random()
    if kind < 0.1:
        return ""
    if kind < 0.4 and isinstance(old, bytes) and old:
        at = chance.randrange(len(old))
        return pack(old[:at] + bytes([chance.choice((0, 1, 2, 128, 255))]) + old[at + 1 :]).hex()
    if kind < 0.5 and type(old) is int:
        return pack(old + chance.choice((-1, 1))).hex()
    if kind < 0.55 and isinstance(old, list | bytes) and old:
        return pack(old[:-1]).hex()
    return pack([*old, chance.choice(POOL)] if kind < 0.6 and isinstance(old, list) else chance.choice(POOL)).hex()


def mutant(chance: random.Random) -> tuple[str, Mutation]:
    """A checkpoint with one or two items of its manifest changed, and what was done to it."""
    base = chance.choice(BASES)
    made, done = Mutation(read_flat(VECTORS / base / INPUT)), [base]
    for _ in range(chance.choice((1, 1, 2))):
        keys, old = chance.choice([*places(made.document)])
        pointer = "/" + "/".join(key.replace("~", "~0").replace("/", "~1") for key in keys)
        step = {"do": "edit_manifest", "pointer": pointer, "msgpack": changed(chance, old)}
        made.apply([step])
        done.append(f"{pointer} {step['msgpack'][:80]}")
        if not isinstance(old, int | str | bytes | None):
            break  # what stood below is gone
    made.apply([{"do": "reseal"}])
    return " ".join(done), made


def verdict(reader: Implementation, path: Path) -> str:
    reply = reader.ask({"op": "open", "file": str(path)})
    return "accepted" if reply.kind == "ok" else str(reply.body["code"] if reply.kind == "error" else reply.body)


@pytest.mark.parametrize("seed", range(2))
def test_readers_accept_and_refuse_the_same(tmp_path: Path, seed: int) -> None:
    chance, differing, refused = random.Random(seed), [], 0
    with ExitStack() as stack:
        names = ["ckptfmt", "python", *([] if missing() else ["javascript"])]
        readers = [stack.enter_context(implementation(name, 60)) for name in names]
        for reader in readers:
            reader.start()
        for number in range(150):
            done, made = mutant(chance)
            path = tmp_path / f"{number}.ckpt"
            write_files({name: [data] for name, data in made.files.items()}, path)
            found = {name: verdict(reader, path) for name, reader in zip(names, readers, strict=True)}
            if done.startswith("packed"):
                del found["python"]  # which lacks that layout
            refused += found["ckptfmt"] != "accepted"
            if len({one == "accepted" for one in found.values()}) > 1:
                differing.append((done, found))
    assert differing == []
    assert 30 < refused < 150
