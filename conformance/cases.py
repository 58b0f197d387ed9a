"""The cases of the suite, as they lie on the disk, and their inputs, ready to be opened."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import VECTORS
from .build import Files
from .recipes import Flat, Mutation

INPUT = "input.ckpt"


@dataclass(frozen=True)
class Case:
    """One case.json, and the directory that it stands in."""

    id: str
    title: str
    spec: list[str]
    level: str
    features: list[str]
    since: str
    format: str
    input: dict[str, Any] | None
    operation: dict[str, Any]
    expect: dict[str, Any]
    large: bool = False

    @property
    def folder(self) -> Path:
        return VECTORS / self.id

    def document(self) -> dict[str, Any]:
        fields = {key: value for key, value in vars(self).items() if key != "large"}
        return {**fields, "large": True} if self.large else fields


def read_case(folder: Path) -> Case:
    return Case(**json.loads((folder / "case.json").read_text()))


def read_cases(select: Iterable[str] = (), *, large: bool = False) -> list[Case]:
    """All cases in order of their id, or those whose id is, or begins with, an entry of `select`."""
    chosen = tuple(select)
    folders = sorted(path.parent for path in VECTORS.glob("*/case.json"))
    cases = [read_case(folder) for folder in folders if not chosen or folder.name.startswith(chosen)]
    return [case for case in cases if large or not case.large or case.id in chosen]


# ---- inputs


def read_flat(path: Path) -> Flat:
    """A checkpoint's objects as they lie on the disk."""
    if path.is_file():
        return {"": path.read_bytes()}
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


def flatten(files: Files) -> Flat:
    """Built objects as bytes."""
    return {name: b"".join(p if isinstance(p, bytes) else bytes(p) for p in pieces) for name, pieces in files.items()}


def write_files(files: Files, path: Path) -> None:
    """Write built objects; runs of zeros become holes."""
    for name, pieces in files.items():
        target = path / name if name else path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            for piece in pieces:
                if isinstance(piece, int):
                    out.seek(piece, os.SEEK_CUR)
                else:
                    out.write(piece)


def derive(mutation: dict[str, Any]) -> Mutation:
    """Apply a recipe to the input of the case that is its base."""
    made = Mutation(read_flat(VECTORS / mutation["base"] / INPUT))
    made.apply(mutation["steps"])
    return made


def hashes(files: Flat) -> str | dict[str, str]:
    """The sha256 of a file, or of each object of a directory."""
    found = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    return found.get("", found)


class BadInput(Exception):
    """The input of a case is not what its case.json says."""


def prepare(case: Case, scratch: Path) -> Path:
    """The input of a case, where an implementation can open it: in its place, or made in `scratch`."""
    source = case.input
    if source is None:
        return scratch / "absent.ckpt"
    path = scratch / str(source.get("name", INPUT))
    if "path" in source:
        return checked(case.folder / str(source["path"]), source["sha256"])
    if "build" in source:
        from .catalogue.large import BUILDERS

        write_files(BUILDERS[source["build"]](), path)
        return path
    return materialise(source, path)


def input_of(identity: str, scratch: Path) -> Path:
    """The input of another case, which is checked in."""
    return prepare(read_case(VECTORS / identity), scratch)


def checked(path: Path, sha256: Any) -> Path:
    """`path`, if it still has the digests that its case names."""
    if not path.exists() or hashes(read_flat(path)) != sha256:
        raise BadInput(f"{path} is not what its case.json says; was it changed by a checkout?")
    return path


def materialise(source: dict[str, Any], path: Path) -> Path:
    """What cannot be checked in is made here: links, odd names, empty directories."""
    if "mutation" in source:
        made = derive(source["mutation"])
        write_files({name: [data] for name, data in made.files.items()}, path)
        for name, destination in made.links.items():
            outside = path.parent / destination
            outside.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path / name, outside)
            (path / name).symlink_to(outside)
    for entry in source.get("disk", []):
        target = path / entry["at"] if entry["at"] else path
        target.parent.mkdir(parents=True, exist_ok=True)
        _DISK[entry["kind"]](target, entry)
    return path


def _sparse(path: Path, entry: dict[str, Any]) -> None:
    with path.open("wb") as out:
        out.write(bytes.fromhex(entry["head"]))
        out.truncate(entry["size"])
        out.seek(0, os.SEEK_END)
        out.write(bytes.fromhex(entry["tail"]))


_DISK: dict[str, Callable[[Path, dict[str, Any]], Any]] = {
    "directory": lambda path, _: path.mkdir(parents=True),
    "file": lambda path, entry: path.write_bytes(bytes.fromhex(entry["hex"])),
    "pipe": lambda path, _: os.mkfifo(path),
    "sparse": _sparse,
}


def missing_on_this_system(case: Case) -> str:
    """Why a case cannot be put or judged here; "" if it can."""
    kinds = {entry["kind"] for entry in (case.input or {}).get("disk", [])}
    if "pipe" in kinds and sys.platform == "win32":
        return "this system has no pipes"
    judged = case.operation.get("options", {}).get("digest") == "blake3"
    return "judging blake3 digests takes the package blake3" if judged and find_spec("blake3") is None else ""
