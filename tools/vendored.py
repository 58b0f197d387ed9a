"""Libraries of others that pages are drawn with, as npm publishes them: `ckptfmt/reporting/assets/vendored`.

    python tools/vendored.py            # fetches the packages of vendored.json anew, and writes their files
    python tools/vendored.py --check    # compares with what is there, and writes nothing

`npm pack` fetches; a package or a file of another sha256 than vendored.json has is refused. To take a newer release,
change its version and the digests there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "ckptfmt" / "reporting" / "assets" / "vendored"


def fetched(package: str, version: str, sha256: str) -> dict[str, bytes]:
    """The files of a package, by their paths in it."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, f"{package}@{version}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300)
        (path,) = Path(folder).glob("*.tgz")
        checked(f"{package} {version}", path.read_bytes(), sha256)
        with tarfile.open(path) as archive:
            files = ((member.name, archive.extractfile(member)) for member in archive if member.isfile())
            return {name.removeprefix("package/"): file.read() for name, file in files if file is not None}


def checked(name: str, data: bytes, sha256: str) -> bytes:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise SystemExit(f"{name} has the sha256 {found}, and not {sha256}")
    return data


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    asked = parser.parse_args()
    different = []
    for entry in json.loads((FOLDER / "vendored.json").read_text()):
        files = fetched(entry["package"], entry["version"], entry["sha256"])
        for one in entry["files"]:
            data, path = checked(one["name"], files[one["path"]], one["sha256"]), FOLDER / one["name"]
            if not asked.check:
                path.write_bytes(data)
            elif path.read_bytes() != data:
                different.append(one["name"])
    print(f"different: {', '.join(different)}" if different else "all are as they were published")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
