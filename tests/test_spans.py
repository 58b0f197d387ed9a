"""Names of many layers as one, in messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.frameworks.spans import spans


def test_names_that_differ_by_a_number_are_one() -> None:
    names = [f"layers.{i}.{name}" for i in range(12) for name in ("w", "b")]
    assert spans(["head", *names, "x.1", "x.2"]) == [
        ("head", 1),
        ("layers.{0..11}.w", 12),
        ("layers.{0..11}.b", 12),
        ("x.1", 1),
        ("x.2", 1),
    ]
    assert spans(["a/1", "a/2", "a/4"]) == [("a/1", 1), ("a/2", 1), ("a/4", 1)]  # a gap
    assert spans(["a1", "a2", "a3"]) == [("a1", 1), ("a2", 1), ("a3", 1)]  # no segment of its own
    assert spans(["h.10.w", "h.9.w", "h.8.w"]) == [("h.{8..10}.w", 3)]
    assert spans(["", "a", ""]) == [("", 1), ("", 1), ("a", 1)]
    assert spans(["01.w", "2.w", "3.w"]) == [("01.w", 1), ("2.w", 1), ("3.w", 1)]


@given(st.lists(st.from_regex(r"\A([ab]|[0-9]{1,2})([./]([ab]|[0-9]{1,2})){0,3}\Z"), max_size=30))
def test_none_is_lost(names: list[str]) -> None:
    assert sum(count for _, count in spans(names)) == len(names)


def test_a_mismatch_says_what_many_layers_share_once(tmp_path: Path) -> None:
    path = tmp_path / "c.ckpt"
    ckptfmt.save(path, {f"layers.{i}.{name}": np.ones(2) for i in range(12) for name in ("w", "b")})
    target = {f"layers.{i}.{name}": np.zeros(3) for i in range(12) for name in ("w", "b", "c")}
    with pytest.raises(ckptfmt.MismatchError) as caught:
        ckptfmt.load(path, into=target)
    text = str(caught.value)
    assert "missing from the checkpoint: layers.{0..11}.c;" in text
    assert "layers.{0..11}.w (found (2,), expected (3,)), layers.{0..11}.b (found" in text
    assert len(caught.value.report.missing) == 12  # the report has each
