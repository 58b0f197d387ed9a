"""The table of error codes (docs/errors.toml), and the program that writes docs/errors.md from it."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[1] / "docs"
TABLE = tomllib.loads((DOCS / "errors.toml").read_text())


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_errors", DOCS / "make_errors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
