"""What a call says of an option that it does not have, or that had another name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import numpy as np
import pytest

import ckptfmt
from ckptfmt.calls import checked_class, formerly, keys_of, known, named_by, refuse_others, takes
from ckptfmt.manager import Background, Best, Every, Last, Memory, Schedule


class More(TypedDict, total=False):
    """Options of a call, by a set."""

    compression: str
    digest: str


@takes(More, name="store() of a test", former={"replace": "overwrite"})
def store(path: str, *, overwrite: bool = False, **options: Unpack[More]) -> Any:
    """Store nothing."""
    return path, overwrite, options


@checked_class
@dataclass(frozen=True, slots=True)
class Limit:
    """A small class of options."""

    most_bytes: int = 1


def said(call: Any, **options: Any) -> str:
    with pytest.raises(ckptfmt.InputError) as caught:
        call("p", **options)
    assert caught.value.code == "bad-option"
    return caught.value.message


def test_what_a_call_has_goes_through() -> None:
    assert store("p", overwrite=True, digest="sha256") == ("p", True, {"digest": "sha256"})
    assert store(path="p") == ("p", False, {})
    assert Limit(most_bytes=3).most_bytes == Limit(3).most_bytes == 3


def test_a_near_name_is_named() -> None:
    for wrong, right in (("compresion", "compression"), ("over_write", "overwrite"), ("digset", "digest")):
        assert said(store, **{wrong: 1}) == f"store() of a test has no option {wrong!r}; did you mean {right!r}?"
    assert said(store, zzz=1) == "store() of a test has no option 'zzz'"
    assert said(Limit, most_byte=1).startswith("Limit has no option 'most_byte'; did you mean 'most_bytes'?")


def test_the_call_that_has_it_is_named() -> None:
    known("fetch() of a test", frozenset({"digests", "retry_seconds"}), __name__)
    assert said(store, most_bytes=1) == "store() of a test has no option 'most_bytes'; it is one of Limit"
    assert said(store, retry_seconds=1).endswith("; it is one of fetch() of a test")
    assert said(store, digests=1).endswith("; did you mean 'digest'? It is one of fetch() of a test")


def test_few_calls_are_named_and_those_of_the_same_package_first() -> None:
    for number in range(5):
        known(f"far {number}", frozenset({"quite_common"}), "far.away.module")
    known("near", frozenset({"quite_common"}), __name__)
    known("here", frozenset({"other"}), __name__)
    with pytest.raises(ckptfmt.InputError, match="it is one of near and far 0 and far 1") as caught:
        refuse_others("here", ["quite_common"], frozenset({"other"}))
    assert "far 2" not in caught.value.message


def test_the_first_that_is_wrong_is_named() -> None:
    with pytest.raises(ckptfmt.InputError, match="'b'"):
        refuse_others("call", ["a", "b", "c"], frozenset({"a"}))
    refuse_others("call", ["a"], frozenset({"a"}))


def test_a_former_name_goes_on() -> None:
    with pytest.warns(DeprecationWarning, match=r"replace=.*say overwrite=") as caught:
        assert store("p", replace=True) == ("p", True, {})
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="replace="):
        assert "no option 'zzz'" in said(store, replace=True, zzz=1)


def test_a_call_of_a_former_name_goes_on() -> None:
    @formerly("store()")
    def put(path: str) -> Any:
        """Store nothing."""
        return store(path)

    with pytest.warns(DeprecationWarning, match=r"say store\(\)") as caught:
        assert put("p") == ("p", False, {})
    assert caught[0].filename == __file__


def test_a_signature_names_every_option() -> None:
    assert list(inspect.signature(store).parameters) == ["path", "overwrite", "compression", "digest"]
    assert (store.__name__, store.__doc__) == ("store", "Store nothing.")
    assert named_by(store) == {"path", "overwrite", *keys_of(More)}
    assert list(inspect.signature(Limit).parameters) == ["most_bytes"]


def test_what_is_wrong_besides_is_pythons_to_say() -> None:
    with pytest.raises(TypeError, match="path"):
        store()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "call",
    [
        Last,
        Every,
        lambda count: Best("loss", count),
        lambda count: Schedule(steps=count),
        lambda count: Background(max_in_flight=count),
        lambda count: Memory(keep=count),
    ],
    ids=["Last", "Every", "Best", "Schedule", "Background", "Memory"],
)
def test_what_counts_is_an_int_of_any_kind(call: Callable[[Any], Any]) -> None:
    assert call(np.int64(3)) == call(3)
    for wrong in (0, -1, 2.5, 2.0, "3", True, np.True_, None, np.float64(3)):
        if call(3) == Schedule(steps=3) and wrong is None:
            continue  # which is what it is without
        with pytest.raises(ckptfmt.InputError) as caught:
            call(wrong)
        assert (caught.value.code, caught.value.expected) == ("bad-option", "an int, 1 or more")
