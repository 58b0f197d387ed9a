"""Every class and every alias of a type has a name of its own in the whole package: a homonym says which it is."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).parents[1]
VARIABLES = {"ParamSpec", "TypeVar"}  # of types: each module has its own


def named(body: list[ast.stmt]) -> Iterator[str]:
    """The classes and aliases of types that a module defines, under conditions, too."""
    for statement in body:
        match statement:
            case ast.ClassDef(name=name):
                yield name
            case ast.Assign([ast.Name(name)], value) if is_type_name(name) and not is_variable(value):
                yield name
            case ast.AnnAssign(ast.Name(name)) if is_type_name(name):
                yield name
            case ast.If() | ast.Try():
                yield from named([*statement.body, *statement.orelse])


def is_type_name(name: str) -> bool:
    """In CapWords, which neither constants nor functions have."""
    plain = name.lstrip("_")
    return plain[:1].isupper() and (len(plain) == 1 or not plain.isupper()) and "_" not in plain


def is_variable(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in VARIABLES


def test_no_name_stands_for_two_classes() -> None:
    """A leading underscore makes no other name of it."""
    homes: dict[str, list[str]] = defaultdict(list)
    for folder in ("ckptfmt", "adapters"):
        for module in sorted((SOURCES / folder).rglob("*.py")):
            for name in named(ast.parse(module.read_text()).body):
                homes[name.lstrip("_")].append(module.relative_to(SOURCES).as_posix())
    assert {"Checkpoint", "LazyNode", "Region", "TorchAdapter", "OMITTED"} - homes.keys() == {"OMITTED"}
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}
