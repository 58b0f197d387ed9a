"""Int keys that another library wrote as text, and empty nodes that it wrote as None, like a template that has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.format.names import Path as TreePath
from ckptfmt.frameworks.int_keys import as_asked
from ckptfmt.frameworks.target import flatten
from ckptfmt.testing.equality import assert_same_tree

VECTOR = np.arange(3, dtype=np.float32)


class Nothing(NamedTuple):
    """A state without fields, such as optax has."""


def loaded(folder: Path, tree: Any, like: Any) -> Any:
    ckptfmt.save(folder / "x.ckpt", tree, overwrite=True, durable=False)
    return ckptfmt.load(folder / "x.ckpt", like=like)


def test_text_stands_for_the_ints_of_a_template(tmp_path: Path) -> None:
    stored = {"layers": {"0": {"w": VECTOR}, "1": {"w": VECTOR + 1}}, "steps": {"-3": 1, "10": 2}}
    found = loaded(tmp_path, stored, {"layers": [{"w": VECTOR}, {"w": VECTOR}], "steps": {-3: 0, 10: 0}})
    assert_same_tree(found, {"layers": [{"w": VECTOR}, {"w": VECTOR + 1}], "steps": {-3: 1, 10: 2}})
    assert_same_tree(loaded(tmp_path, stored, stored), stored)


@pytest.mark.parametrize(
    ("stored", "like"),
    [
        ({"00": VECTOR}, {0: VECTOR}),  # no int is written so
        ({"²": VECTOR}, {2: VECTOR}),
        ({0: VECTOR, "0": VECTOR + 1}, {0: VECTOR}),  # the checkpoint has both
        ({0: VECTOR}, {"0": VECTOR}),
    ],
)
def test_what_stays_another_key(tmp_path: Path, stored: Any, like: Any) -> None:
    with pytest.raises(ckptfmt.MismatchError):
        loaded(tmp_path, stored, like)


def test_empty_nodes(tmp_path: Path) -> None:
    like = {"state": (VECTOR, Nothing()), "rest": {}}
    for empty in (None, {}, []):
        found = loaded(tmp_path, {"state": (VECTOR, empty), "rest": empty}, like)
        assert type(found["state"][1]) is Nothing
        assert found["rest"] == {}
    with pytest.raises(ckptfmt.MismatchError, match="empty dict"):
        loaded(tmp_path, {"state": (VECTOR, 3), "rest": {}}, like)


int_trees = st.recursive(
    st.integers(),
    lambda inner: (
        st.dictionaries(st.integers(-3, 20), inner, min_size=1, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "0", "1", "-1"]), inner, min_size=1, max_size=3)
        | st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


@given(int_trees)
def test_any_template_finds_what_was_written_as_text(tree: Any) -> None:
    """Where all keys are text, paths come as the template has them, and those that need no change stay."""
    paths = [path for path, _ in flatten(tree)]
    written: dict[TreePath, TreePath] = {tuple(map(str, path)): path for path in paths}
    given_path = as_asked(list(written), paths)
    for text, path in written.items():
        assert given_path(text) == path
    assert all(as_asked(paths, paths)(path) == path for path in paths)
