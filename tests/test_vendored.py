"""Libraries of others in the package are as they were published."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "ckptfmt" / "reporting" / "assets" / "vendored"
ENTRIES = json.loads((FOLDER / "vendored.json").read_text())


def test_each_file_has_its_digest_and_each_package_its_licence() -> None:
    files = {one["name"]: one["sha256"] for entry in ENTRIES for one in entry["files"]}
    assert {path.name for path in FOLDER.iterdir()} == {*files, "vendored.json"}
    for name, sha256 in files.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == sha256, name
    for entry in ENTRIES:
        (licence,) = (one["name"] for one in entry["files"] if one["name"].startswith("LICENSE"))
        assert "Permission to use, copy, modify, and/or distribute" in (FOLDER / licence).read_text()


def test_the_page_of_reasons_names_the_versions() -> None:
    text = (ROOT / "docs/decisions/0022-pages-of-one-file.md").read_text()
    assert all(entry["version"].rpartition(".")[0] in text for entry in ENTRIES)


@pytest.mark.slow
def test_npm_has_the_same() -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    command = [sys.executable, ROOT / "tools" / "vendored.py", "--check"]
    assert (
        subprocess.run(command, check=True, capture_output=True, text=True).stdout == "all are as they were published\n"
    )
