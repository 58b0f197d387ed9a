"""The package of js/, as `make js` builds it, for tests of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

JS = Path(__file__).parents[1] / "js"
NODE = shutil.which("node")


def missing() -> str:
    """Why the package cannot be run here; "" if it can."""
    if NODE is None:
        return "needs Node 20 or later"
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip("v\n").split(".")[0]) < 20:
        return "needs Node 20 or later"
    return "" if (JS / "dist" / "index.js").exists() else "js/ is not built: run `make js`"


def node() -> str:
    """The program that runs it; the test is skipped where that cannot be."""
    if why := missing():
        pytest.skip(why)
    return str(NODE)
