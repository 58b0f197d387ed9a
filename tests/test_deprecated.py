"""Spellings of an earlier version are told where they stand."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import ckptfmt
from ckptfmt.deprecated import warn_deprecated


def test_the_warning_says_the_new_spelling_and_points_at_the_program() -> None:
    with pytest.warns(
        DeprecationWarning, match=r"^f\(old=\) is deprecated, and goes on for one version: say new=$"
    ) as said:
        warn_deprecated("f(old=)", "new=")
    assert said[0].filename == __file__


def test_a_name_that_is_imported_points_at_the_import() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from ckptfmt.manager import Plan  # noqa: F401
    assert {one.filename for one in caught} == {__file__}


@pytest.mark.parametrize(
    ("package", "old", "new"),
    [("ckptfmt.manager", "Plan", "RetentionPlan"), ("ckptfmt.migration", "Loss", "LossClass")],
)
def test_a_name_of_an_earlier_version_is_that_of_today(package: str, old: str, new: str) -> None:
    module = import_module(package)
    for _ in range(2):  # every use is told, not the first alone
        with pytest.warns(DeprecationWarning, match=rf"^{package}\.{old} is deprecated, .* say {package}\.{new}$"):
            found = getattr(module, old)
        assert found is getattr(module, new)
    assert old not in module.__all__


PACKAGE = Path(ckptfmt.__file__).parent
TABLE = (PACKAGE.parent / "docs/versions.md").read_text()


def former() -> Iterator[tuple[str, str]]:
    """Former spellings and those of today, as the code's own tables have them: those of `former=`, by a name or as they
    stand, of `@formerly`, and of the manager."""
    for module in PACKAGE.rglob("*.py"):
        tree = ast.parse(module.read_text())
        assigned = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "former":
                table = assigned[node.value.id] if isinstance(node.value, ast.Name) else node.value
                if isinstance(table, ast.Dict):
                    yield from ast.literal_eval(table).items()
            elif isinstance(node, ast.FunctionDef):
                for one in node.decorator_list:
                    if isinstance(one, ast.Call) and isinstance(one.func, ast.Name) and one.func.id == "formerly":
                        yield node.name, ast.literal_eval(one.args[0])
        if module.name == "former.py":
            for name in ("_BACKGROUND", "_FLAX"):
                yield from ((option, option) for option in ast.literal_eval(assigned[name]))


@pytest.mark.parametrize(("old", "new"), sorted(set(former())))
def test_the_policy_lists_what_goes(old: str, new: str) -> None:
    rows = re.findall(r"^\| (`.*) \| (`.*) \|$", TABLE, re.MULTILINE)
    assert any(re.search(rf"\b{old}\b", before) and re.search(rf"\b{new}\b", now) for before, now in rows)


def test_the_tables_are_found() -> None:
    assert {"src", "dst", "to", "a", "b", "a_format", "Plan", "Loss", "max_in_flight", "prefix"} <= dict(
        former()
    ).keys()
