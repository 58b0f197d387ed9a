"""Every public face of an open checkpoint, over hostile manifests: each ends in a value or a code."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from attack import attempt, folder, hostile

import ckptfmt
import ckptfmt.conversion.comparison
import ckptfmt.conversion.converter
import ckptfmt.maintenance.salvage
import ckptfmt.migration.view
import ckptfmt.reading.loading
import ckptfmt.reading.zarr_store
from ckptfmt.conversion import FORMATS
from ckptfmt.conversion.table import reader_of

for _format in FORMATS.values():
    reader_of(_format)  # its memory is not what is measured

HUGE = 1 << 40
LONG = "\x1b[2J\n" + "x" * 60_000


def mapping(path: Path) -> Any:
    with ckptfmt.open(path) as checkpoint:
        names = list(checkpoint)
        assert all(name in checkpoint for name in names)
        return len(checkpoint), [checkpoint[key] for key in checkpoint.tensors], repr(checkpoint), checkpoint.schema


def slices(path: Path) -> Any:
    with ckptfmt.open(path) as checkpoint:
        for tensor in checkpoint.values():
            assert len(repr(tensor)) < 200_000
            tensor[(slice(0, 2),) * tensor.ndim]
            tensor.read()


def options(path: Path) -> Any:
    with ckptfmt.open(path) as checkpoint:
        checkpoint.match({"w": np.zeros(12), "x": np.zeros(5, np.int64)})
        checkpoint.load(select="**", mmap=True)
        checkpoint.load(like={"w": np.zeros(12), "x": np.zeros(5, np.int64)}, strict=False, cast=True)


def as_zarr(path: Path) -> Any:
    with ckptfmt.open(path) as checkpoint:
        group: Any = checkpoint.zarr
        return [np.asarray(group[name][(slice(0, 1),) * group[name].ndim]) for name in ("w", "x") if name in group]


def migrated(path: Path) -> Any:
    document = {"ckptfmt": {"migration": 1}, "schema": "a", "from": "1", "to": "2", "steps": []}
    with ckptfmt.open(path, schema="2", migrations=document, source_schema=("a", "1")) as checkpoint:
        return checkpoint.tree


def converted(path: Path) -> Any:
    for suffix in (".ckpt", ".safetensors", ".npz", ".msgpack"):
        target = path.parent / f"out{suffix}"
        try:
            ckptfmt.convert(path, target, allow_loss=True, durable=False)
        finally:
            target.unlink(missing_ok=True)


def compared(path: Path) -> Any:
    ckptfmt.diff(path, path)


def repaired(path: Path) -> Any:
    ckptfmt.repair(path, path.parent / "mended.ckpt")


def command_line(path: Path) -> Any:
    for command in (["ls"], ["inspect", "--json"], ["get"], ["verify", "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "ckptfmt", *command, path], capture_output=True, timeout=60, check=False
        )
        assert b"Traceback" not in done.stderr, done.stderr[-2000:]
        assert len(done.stderr) < 200_000


FACES = (mapping, slices, options, as_zarr, migrated, converted, compared)


def shape(*sides: int) -> Callable[[dict[str, Any]], Any]:
    def change(document: dict[str, Any]) -> None:
        document["tensors"]["shape"][0] = list(sides)
        document["tensors"]["grid"][0] = [max(1, side) for side in sides]

    return change


def tree(node: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda document: document.update(tree=["dict", ["w", "x", "y"], [["tensor", 0], ["tensor", 1], node]])


def longer(document: dict[str, Any]) -> None:
    table = document["parts"][0]["chunks"]
    table["length"] = struct.pack("<Q", 8 * HUGE) + table["length"][8:]


CASES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a shape of 2^40": shape(HUGE),
    "a shape of 2^29 twice": shape(1 << 29, 1 << 29),
    "a shape without elements": shape(0, (1 << 63) - 1),
    "a length of 2^43": longer,
    "an int of a million bits": tree(["int", b"\x01" + bytes(125_000)]),
    "an int key of a million bits": tree(["dict", [["int", b"\x01" + bytes(125_000)]], [None]]),
    "a key of 60,000 characters": tree(["dict", [LONG], [1]]),
    "a key without characters": tree(["dict", [""], [1]]),
    "a tag that nobody knows": tree(["tag", LONG, LONG, ["tensor", 0]]),
    "a NaN": tree(float("nan")),
    "a scalar of a dtype that is none": tree(["scalar", "object", bytes(8)]),
    "metadata of control characters": lambda document: document.update(metadata=["dict", [LONG], [LONG]]),
    "a schema of control characters": lambda document: document.update(schema={"id": LONG, "version": LONG}),
}


def main() -> None:
    with folder() as here:
        for number, (title, change) in enumerate(CASES.items()):
            path = hostile(here / f"{number}.ckpt", change, layout="loose")
            attempt(title, path, actions=FACES)
        path = hostile(here / "repair.ckpt", CASES["a shape of 2^40"], layout="loose")
        attempt("a shape of 2^40", path, actions=(repaired, command_line))
        path = hostile(here / "names.ckpt", CASES["a key of 60,000 characters"])
        attempt("a key of 60,000 characters", path, actions=(command_line,))


if __name__ == "__main__":
    main()
