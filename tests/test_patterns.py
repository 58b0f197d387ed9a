"""Globs over path texts: `select=` and `compression=`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.patterns import matches, matches_any

TEXTS = st.text("ab/*?.[\n", max_size=8)

EXAMPLES = [
    ("model", "model", True),
    ("model", "model/w", True),
    ("model", "model/layers/0/w", True),
    ("model", "models", False),
    ("model", "a/model", False),
    ("model/w", "model", False),
    ("*", "model", True),
    ("*", "model/w", False),
    ("*/w", "model/w", True),
    ("*/w", "model/w/x", False),
    ("model/*/w", "model/layers/0/w", False),
    ("model/**/w", "model/layers/0/w", True),
    ("model/**/w", "model/w", False),
    ("model/**", "model/w", True),
    ("model/**", "model", False),
    ("**", "", True),
    ("**", "any/thing", True),
    ("**.bias", "a/b.bias", True),
    ("layer?", "layer1", True),
    ("layer?", "layer12", False),
    ("?", "/", False),
    ("**", "line\nfeed", True),
    ("*", "line\nfeed", True),
    ("a.b", "a.b", True),
    ("a.b", "axb", False),
    ("[ab]", "a", False),
    ("[ab]", "[ab]", True),
    ("", "", True),
    ("", "a", True),
    ("", "/a", True),
]


@pytest.mark.parametrize(("pattern", "text", "expected"), EXAMPLES)
def test_examples(pattern: str, text: str, expected: bool) -> None:
    assert matches(pattern, text) is expected


def by_definition(pattern: str, text: str) -> bool:
    """Matching one character after the other."""
    if not pattern:
        return not text
    if pattern.startswith("**"):
        return by_definition(pattern[2:], text) or (text != "" and by_definition(pattern, text[1:]))
    if pattern[0] == "*":
        return by_definition(pattern[1:], text) or (text[:1] not in ("", "/") and by_definition(pattern, text[1:]))
    return (
        text != ""
        and (text[0] == pattern[0] or (pattern[0] == "?" and text[0] != "/"))
        and by_definition(pattern[1:], text[1:])
    )


@given(TEXTS, TEXTS)
def test_matching_is_by_definition(pattern: str, text: str) -> None:
    expected = by_definition(pattern, text)
    if not set(pattern) & {"*", "?"}:
        expected = pattern in ("", text) or text.startswith(f"{pattern}/")
    assert matches(pattern, text) is expected


@given(TEXTS.filter(lambda text: not set(text) & {"*", "?"}), TEXTS)
def test_a_plain_pattern_stands_for_all_below_it(pattern: str, below: str) -> None:
    assert matches(pattern, pattern)
    assert matches(pattern, f"{pattern}/{below}")


def test_any_of_several() -> None:
    assert matches_any(["a", "b/*"], "b/c")
    assert not matches_any(["a", "b/*"], "c")
    assert not matches_any([], "a")
