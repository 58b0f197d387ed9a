"""Spellings of an earlier version are told where they stand."""

from __future__ import annotations

import warnings
from importlib import import_module

import pytest

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
