"""The rooms of the package: imports lead from the outer ones to the inner ones, and the format does no I/O."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ckptfmt

ROOT = Path(ckptfmt.__file__).parent
# from the inside out; a module may import what stands before its room, or beside it
LAYERS = (
    ("_version", "brief", "deprecated", "errors", "near", "options", "packages", "progress", "threads", "warning"),
    ("format", "patterns"),
    ("frameworks", "storage"),
    ("layouts",),
    ("reading", "writing"),
    ("parallel",),
    ("conversion", "migration"),
    ("maintenance", "manager"),
    ("testing", "cli"),
)
LAYER_OF = {room: number for number, layer in enumerate(LAYERS) for room in layer}


def imported(module: Path) -> Iterator[str]:
    """The rooms that a module imports when it is imported itself."""
    package = module.relative_to(ROOT).parts[:-1]
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            above = package[: len(package) - node.level + 1]
            parts = (*above, *(node.module.split(".") if node.module else ()))
            yield from parts[:1] or (alias.name for alias in node.names)


@pytest.mark.parametrize("room", [room for layer in LAYERS for room in layer if (ROOT / room).is_dir()])
def test_imports_lead_inwards(room: str) -> None:
    for module in (ROOT / room).rglob("*.py"):
        for other in imported(module):
            # the command line stands outside, and uses the public names
            assert LAYER_OF.get(other, -1 if room == "cli" else 99) <= LAYER_OF[room], f"{module} imports {other}"


def test_every_module_has_a_room() -> None:
    there = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__", "__main__"} == set(LAYER_OF)


def test_the_format_does_no_io() -> None:
    for module in (ROOT / "format").glob("*.py"):
        calls = {node.func.id for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Call)
                 and isinstance(node.func, ast.Name)}  # fmt: skip
        assert not calls & {"open", "print", "input"}, module
