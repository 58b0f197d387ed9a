"""How much memory the values of a manifest take, counted as they are made. [LIM-007]"""

from __future__ import annotations

import gc
import sys
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.errors import UnsupportedError
from ckptfmt.format.limits import Budget, costs_at_most, uncollected

LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=40)
    | st.binary(max_size=40) | st.text("abc", max_size=20)
)  # fmt: skip
VALUES = st.recursive(LEAVES, lambda items: st.lists(items, max_size=6), max_leaves=30) | st.lists(LEAVES, max_size=150)


def rounded(value: Any) -> int:
    return -(-sys.getsizeof(value) // 16) * 16


def taken(value: Any) -> int:
    """By a value that was decoded: what is shared takes nothing, lists take room for the collector too."""
    if isinstance(value, list):
        return 16 + rounded(value) + sum(map(taken, value))
    if isinstance(value, str | bytes):
        return rounded(value) if len(value) > 1 else 0
    if isinstance(value, float):
        return 32
    return rounded(value) if type(value) is int and not -6 < value < 257 else 0


@given(VALUES)
def test_what_values_take_is_counted(value: Any) -> None:
    raw, budget = msgpack.packb([value]), Budget(1 << 40)
    decoded = msgpack.unpackb(raw, list_hook=budget.take)
    assert budget.limit - budget.left == taken(decoded)
    assert costs_at_most(raw, 1 << 40)
    assert not costs_at_most(raw, taken(decoded) - 1), "the cheap bound is never too low"


@given(VALUES)
def test_more_than_there_is_room_for_is_refused(value: Any) -> None:
    raw = msgpack.packb([value])
    limit = taken(msgpack.unpackb(raw))
    msgpack.unpackb(raw, list_hook=Budget(limit).take)
    with pytest.raises(UnsupportedError) as caught:
        msgpack.unpackb(raw, list_hook=Budget(limit - 1).take)
    assert caught.value.code == "limit-exceeded"


def test_an_interrupt_leaves_the_collector_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come right after the collector was stopped."""
    stop = gc.disable

    def interrupted() -> None:
        stop()
        raise KeyboardInterrupt

    monkeypatch.setattr(gc, "disable", interrupted)
    with pytest.raises(KeyboardInterrupt), uncollected():
        pytest.fail("it came before")
    assert gc.isenabled()
