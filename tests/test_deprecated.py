"""Spellings of an earlier version are told where they stand."""

from __future__ import annotations

import warnings

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
