"""The rooms of the package: imports lead from the outer ones to the inner ones, and the format does no I/O."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

import ckptfmt

ROOT = Path(ckptfmt.__file__).parent
ADAPTERS = ROOT.parent / "adapters"
# from the inside out; a module may import what stands before its room, or beside it
LAYERS = (
    (
        "_version",
        "brief",
        "calls",
        "deprecated",
        "error_codes",
        "errors",
        "markup",
        "near",
        "on_demand",
        "packages",
        "progress",
        "threads",
        "tuples",
        "warning",
    ),
    ("format", "patterns"),
    ("frameworks", "storage"),
    ("layouts",),
    ("reading", "writing"),
    ("parallel",),
    ("conversion", "migration"),
    ("maintenance", "patching", "signing"),
    ("api", "checkpoint", "options", "patches", "save_options"),  # what the users of the package see
    ("manager", "recompute"),
    ("reporting", "viewing"),
    ("testing", "cli"),  # which use it as they do
)
LAYER_OF = {room: number for number, layer in enumerate(LAYERS) for room in layer}
ROOMS = [room for layer in LAYERS for room in layer if room != "cli"]


def modules(room: str) -> list[Path]:
    return [*(ROOT / room).rglob("*.py")] or [ROOT / f"{room}.py"]


def imported(module: Path) -> Iterator[str]:
    """The rooms that a module imports anywhere: at its top, within functions, and for annotations alone."""
    package = module.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = package[: len(package) - node.level + 1]
            parts = (*above, *(node.module.split(".") if node.module else ()))
            yield from parts[:1] or (alias.name for alias in node.names)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if any(name.partition(".")[0] == "ckptfmt" for name in names):
                yield "api"  # as a user does


@pytest.mark.parametrize("room", ROOMS)
def test_imports_lead_inwards(room: str) -> None:
    for module in modules(room):
        for other in imported(module):
            assert LAYER_OF[other] <= LAYER_OF[room], f"{module} imports {other}"


def test_no_circle_between_rooms() -> None:
    leads = {room: {other for module in modules(room) for other in imported(module)} - {room} for room in ROOMS}
    TopologicalSorter(leads).prepare()  # raises CycleError


def test_the_command_line_uses_public_names() -> None:
    """It stands outside: what it imports of the package itself is public."""
    for module in modules("cli"):
        for other in imported(module):
            assert other in LAYER_OF or other in ckptfmt.__all__, f"{module} imports {other}"


def test_every_module_has_a_room() -> None:
    there = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__", "__main__"} == set(LAYER_OF)


def functions(module: Path) -> Iterator[tuple[int, str]]:
    """How many lines each function of a module has, but for its docstring, and its name."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                assert node.body[0].end_lineno is not None
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            yield lines, f"{module}: {node.name}"


def test_functions_and_modules_are_short() -> None:
    """At most three functions have more than 40 lines, and no module more than 500."""
    sources = [path for folder in (ROOT, ADAPTERS) for path in folder.rglob("*.py")]
    assert [name for path in sources for lines, name in functions(path) if lines > 40][3:] == []
    assert [path for path in sources if len(path.read_text().splitlines()) > 500] == []


def test_the_format_does_no_io() -> None:
    for module in (ROOT / "format").glob("*.py"):
        calls = {node.func.id for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Call)
                 and isinstance(node.func, ast.Name)}  # fmt: skip
        assert not calls & {"open", "print", "input"}, module


def test_the_rooms_are_drawn() -> None:
    """In docs/architecture.md, the outer ones above the inner ones."""
    drawing = (ROOT.parent / "docs/architecture.md").read_text().partition("```text\n")[2].partition("```")[0]
    box = drawing.partition("┌")[2].partition("└")[0]
    lines = {room: [number for number, line in enumerate(box.splitlines()) if re.search(rf"[ │,]{room}[ ,│]", line)]
             for room in LAYER_OF}  # fmt: skip
    assert [room for room, found in lines.items() if not found] == []
    for inner, outer in pairwise(LAYERS):
        assert min(lines[room][0] for room in inner) > max(lines[room][0] for room in outer), f"{inner}, {outer}"
