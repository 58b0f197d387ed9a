"""Globs over path texts: `select=` and `compression=`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.format.names import Path, path_label
from ckptfmt.patterns import matches, near_selection, selector

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
    assert selector(["a", "b/*"])(("b", "c"))
    assert not selector(["a", "b/*"])(("c",))
    assert not selector([])(("a",))


ODD = [("vars", 0), ("vars", "0"), ("vars", "a/b"), ("vars", "a", "b"), ("vars", " x"), ("vars", "'0'"), ("it's", "w")]


@pytest.mark.parametrize("path", ODD, ids=path_label)
def test_a_label_that_is_shown_selects_its_path(path: Path) -> None:
    assert selector(path_label(path))(path)


def test_labels_tell_apart_what_texts_do_not() -> None:
    def selected(pattern: str) -> list[Path]:
        return list(filter(selector(pattern), ODD))

    assert selected("vars/'0'") == [("vars", "0"), ("vars", "'0'")]  # of the second it is the text, as it always was
    assert selected("vars/'a/b'") == [("vars", "a/b")]
    assert selected("vars/'*'") == [("vars", "0"), ("vars", " x"), ("vars", "'0'")]
    assert selected("vars/0") == [("vars", 0), ("vars", "0")]
    assert selected("vars/???") == [("vars", "'0'")], "quotes that nobody wrote count for nothing"
    assert selected("it's") == [("it's", "w")]


LAYERS = [("model", "layers", i, kind, name) for i in range(3) for kind in ("attn", "mlp") for name in ("weight", "b")]
DOTTED = [(f"model.layers.{i}.{name}.weight",) for i in range(3) for name in ("q_proj", "k_proj")]


@pytest.mark.parametrize(
    ("patterns", "paths", "expected"),
    [
        ("modle", LAYERS, "; did you mean 'model'?"),
        ("modle/**", LAYERS, "; did you mean 'model/**'?"),
        ("model/layers/*/atn/wieght", LAYERS, "; did you mean 'model/layers/*/attn/weight'?"),
        ("**/Weight", LAYERS, "; did you mean '**/weight'?"),
        ("**q_poj.weight", DOTTED, "; did you mean '**q_proj.weight'?"),
        ("model/layers/0/q_proj/weight", DOTTED, "; did you mean 'model.layers.0.q_proj.weight'?"),
        ("model/layers/**", DOTTED, "; did you mean 'model.layers.**'?"),
        (["modle", "xyz", "**.wieght"], DOTTED, "; did you mean '**.weight'?"),
        ("'0'", [("vars", "0"), ("vars", "1")], "; did you mean \"vars/'0'\"?"),
        ("zzz", LAYERS, ""),
        ("a", [], ""),
    ],
)
def test_near_names_of_what_selects_nothing(patterns: str | list[str], paths: list[Path], expected: str) -> None:
    assert not any(map(selector(patterns), paths))
    assert near_selection(patterns, paths) == expected
