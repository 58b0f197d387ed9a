"""The suite as one archive, to be released with its digest: `python -m conformance.archive FOLDER`. The same tree gives
the same bytes on every machine: nothing is compressed, as compressors differ."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

from . import DOCUMENTS, HERE, SPEC, VERSION

_LEFT_OUT = {"__pycache__", "node_modules"}


def write(folder: Path) -> Path:
    """Write the archive, and beside it a file with its sha256; gives the archive's path."""
    target = folder / f"ckptfmt-conformance-{VERSION}.zip"
    files = [
        path
        for path in sorted(HERE.rglob("*"), key=lambda path: path.as_posix())
        if path.is_file() and not _LEFT_OUT & set(path.parts)
    ]
    with zipfile.ZipFile(target, "w") as archive:
        for path in (*DOCUMENTS, SPEC.with_name("LICENSE"), *files):
            member = zipfile.ZipInfo(path.relative_to(HERE.parent).as_posix(), (1980, 1, 1, 0, 0, 0))
            member.external_attr, member.create_system = 0o100644 << 16, 3
            archive.writestr(member, path.read_bytes())
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    target.with_suffix(".zip.sha256").write_text(f"{digest}  {target.name}\n")
    return target


if __name__ == "__main__":
    print(write(Path(sys.argv[1] if len(sys.argv) > 1 else ".")).with_suffix(".zip.sha256").read_text(), end="")
