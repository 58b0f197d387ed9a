"""Makes `vectors/` from the descriptions in `catalogue/`: `python -m conformance.make`, and with `--check` compares.

The bytes do not depend on the package `ckptfmt`, nor on any compressor: build.py writes checkpoints from SPEC.md alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import VECTORS
from .build import Files
from .cases import INPUT, flatten, hashes, write_files
from .catalogue import Entry, all_entries
from .recipes import Mutation


def make(folder: Path) -> None:
    """Write every case below `folder`, which must not hold any yet."""
    entries = all_entries()
    inputs: dict[str, Files] = {}
    for identity, entry in entries.items():
        here = folder / identity
        here.mkdir(parents=True)
        files = input_of(entry, inputs)
        document: dict[str, Any] = entry.case.document()
        if files is not None:
            inputs[identity] = files
            write_files(files, here / INPUT)
            document["input"] = {**document["input"], "sha256": hashes(flatten(files))}
        for name, text in entry.others:
            (here / name).write_text(text)
        lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
        (here / "case.json").write_text(f"{{\n{lines}\n}}\n")


def input_of(entry: Entry, inputs: dict[str, Files]) -> Files | None:
    """The input that is checked in, None if there is none."""
    if entry.files is not None:
        return entry.files
    source = entry.case.input
    if source is None or "path" not in source:
        return None
    made = Mutation(flatten(inputs[source["mutation"]["base"]]))
    made.apply(source["mutation"]["steps"])
    return {name: [data] for name, data in made.files.items()}


def listing(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def differences() -> list[str]:
    """Files of `vectors/` that are not what the descriptions give."""
    with tempfile.TemporaryDirectory() as name:
        make(Path(name))
        made, stored = listing(Path(name)), listing(VECTORS)
    return sorted(path for path in made.keys() | stored.keys() if made.get(path) != stored.get(path))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m conformance.make", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if something would change")
    if parser.parse_args().check:
        changed = differences()
        print("\n".join(changed) or "vectors/ is what the descriptions give")
        return 1 if changed else 0
    with tempfile.TemporaryDirectory(dir=VECTORS.parent) as name:  # nothing is lost if a description is wrong
        make(Path(name) / "vectors")
        shutil.rmtree(VECTORS, ignore_errors=True)
        (Path(name) / "vectors").rename(VECTORS)
    files = listing(VECTORS)
    cases = sum(path.endswith("/case.json") for path in files)
    print(f"{cases} cases, {len(files)} files, {sum(map(len, files.values())) / 2**20:.2f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
