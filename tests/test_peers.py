"""Tests say themselves what they need: where torch is missing, those that need no torch still run."""

from __future__ import annotations

import ast
from pathlib import Path

from peers import WITH_TORCH

TESTS = sorted(Path(__file__).parent.glob("test_*.py"))
NEEDING = {*WITH_TORCH, "ckptfmt_torch", "safetensors.torch"}


def imports_at_once(source: str) -> list[str]:
    """What a module imports of torch and what needs it, before it has said that it is skipped without."""
    found: list[str] = []
    for node in ast.parse(source).body:
        parts = list(ast.walk(node))
        is_asked = any(isinstance(part, ast.Constant) and part.value in NEEDING for part in parts)
        if is_asked and any(isinstance(part, ast.Attribute) and part.attr == "importorskip" for part in parts):
            return found
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [name for name in names if name in NEEDING or name.partition(".")[0] in NEEDING]
    return found


def test_nothing_of_torch_is_imported_at_once() -> None:
    found = {path.name: imports_at_once(path.read_text()) for path in TESTS}
    assert {name: names for name, names in found.items() if names} == {}


def test_what_is_found() -> None:
    assert imports_at_once("import torch\n") == ["torch"]
    assert imports_at_once("from safetensors.torch import save_file\n") == ["safetensors.torch"]
    assert imports_at_once("import pytest\npytest.importorskip('torch')\nimport torch\n") == []
    assert imports_at_once("import pytest\npytest.importorskip('onnx')\nimport torch.nn\n") == ["torch.nn"]
