"""Names of Zarr nodes (SPEC.md section 4): injective, legal, and checked."""

from __future__ import annotations

import re
from typing import Any

import pytest
import zarr
from hypothesis import example, given
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from ckptfmt.errors import CkptError, CorruptError
from ckptfmt.format.names import (
    Key,
    PathIndex,
    are_names_themselves,
    check_names,
    escape,
    is_int_text,
    parents,
    path_label,
    path_text,
)
from ckptfmt.testing.strategies import ODD_KEYS, keys

ESCAPES = [
    (0, "0"),
    (-1, "-1"),
    (1 << 70, str(1 << 70)),
    ("weight", "weight"),
    ("a.b-c_D9", "a.b-c_D9"),
    ("", "~"),
    ("0", "~30"),
    ("-1", "~2D1"),
    ("-0", "~2D0"),
    ("007", "~3007"),
    ("-", "-"),
    ("--1", "--1"),
    ("1a", "1a"),
    ("a/b", "a~2Fb"),
    ("~", "~7E"),
    ("a b", "a~20b"),
    ("a\n", "a~0A"),
    ("ü", "~C3~BC"),
    ("٣", "~D9~A3"),  # a digit elsewhere, none of [NAME-003]
    ("__init__", "~5F_init__"),
    ("_x", "_x"),
    ("zarr.json", "~7Aarr.json"),
    ("zarr.jsons", "zarr.jsons"),
    (".", "~2E"),
    ("..", ".~2E"),
    ("...", "..~2E"),
    (".hidden", ".hidden"),
    ("v1.", "v1~2E"),
    ("__.", "~5F_~2E"),
]


def unescape(segment: str) -> Key:
    """The key whose `escape` is `segment`. No reader needs it, as the manifest holds the keys."""
    if re.fullmatch(r"0|-?[1-9][0-9]*", segment):
        return int(segment)
    if segment == "~":
        return ""
    head, *rest = segment.split("~")
    return (head.encode() + b"".join(bytes.fromhex(r[:2]) + r[2:].encode() for r in rest)).decode()


@pytest.mark.parametrize(("key", "name"), ESCAPES)
def test_escapes(key: Any, name: str) -> None:  # [NAME-001] [NAME-002] [NAME-003] [NAME-004]
    assert escape(key) == name
    assert unescape(name) == key
    assert type(unescape(name)) is type(key)


@given(keys())
def test_unescaping_is_the_inverse_of_escaping(key: Any) -> None:
    """So escaping is injective."""
    found = unescape(escape(key))
    assert found == key
    assert type(found) is type(key)


@given(st.lists(keys(), min_size=1, max_size=5))
def test_names_of_any_path_are_legal(path: list[Any]) -> None:  # [NAME-006]
    name = "/".join(map(escape, path))
    check_names([name])
    for segment in name.split("/"):
        assert re.fullmatch("[A-Za-z0-9_.~-]+", segment)
        assert segment.strip(".")
        assert segment != "zarr.json"
        assert not segment.startswith("__")


@given(st.lists(keys(), min_size=1, max_size=3))
def test_zarr_takes_the_names(path: list[Any]) -> None:
    name = "/".join(map(escape, path))
    store = MemoryStore()
    zarr.create_group(store=store, path=name)
    assert zarr.open_group(store, path=name, mode="r").path == name


@given(st.lists(st.text("azyAZ09_.-~/\n é", max_size=4), max_size=4))
@example([])
@example(["model", "layers.0", "W_1-b", "y", "X."])
@example(["a", ""])
@example(["a\nb"])
def test_keys_that_are_names_themselves_are_known_together(keys: list[str]) -> None:  # [NAME-001]
    if are_names_themselves(keys):
        assert [escape(key) for key in keys] == keys
    assert are_names_themselves([key for key in keys if re.fullmatch("[A-Ya-y]([A-Za-z0-9_.-]*[A-Za-z0-9_-])?", key)])


def test_odd_keys_have_distinct_names() -> None:
    odd = [*ODD_KEYS, 0, -1, 7]
    assert len({escape(key) for key in odd}) == len(odd)


BAD_NAMES = [
    [""],
    ["a", ""],
    ["/a"],
    ["a/"],
    ["a//b"],
    ["."],
    [".."],
    ["a/../b"],
    ["zarr.json"],
    ["a/zarr.json"],
    ["zarr.json/a"],
    ["__a"],
    ["a/__b"],
    ["a b"],
    ["ü"],
    ["a\x00"],
    ["a\\b"],
    ["a:b"],
    ["a\n"],
    ["\na"],
    ["a" * 65_001],
    ["a", "a"],
    ["a", "a/b"],
    ["a/b/c", "a"],
    ["x", "a/b", "a/b/c/d"],
]


@pytest.mark.parametrize("names", BAD_NAMES, ids=lambda names: repr(names)[:30])
def test_illegal_names_are_refused(names: list[str]) -> None:  # [NAME-006]
    if names == [""]:
        names = ["", ""]  # alone it is the root [NAME-005]
    with pytest.raises(CorruptError, match="NAME-006") as raised:
        check_names(names)
    assert raised.value.code == "bad-manifest"


def test_a_line_feed_within_a_name_is_refused() -> None:  # [NAME-006]
    with pytest.raises(CorruptError, match="NAME-006"):
        check_names(["a\nb"])


@pytest.mark.parametrize(
    "names", [[], [""], ["a"], ["a", "b/a"], ["a/b", "a-b", "ab"], ["~", "a.", "-"], ["a" * 65_000]]
)
def test_legal_names_are_accepted(names: list[str]) -> None:  # [NAME-005] [NAME-006]
    check_names(names)


def test_parents() -> None:
    assert parents(["a/b/c", "a/d", "e"]) == {"a", "a/b"}
    assert parents([""]) == set()


def test_labels_of_paths() -> None:
    assert path_label(("model", 0, "w")) == "model/0/w"
    assert path_label(("model", "0", "a/b")) == "model/'0'/'a/b'"
    assert path_label(()) == ""


@given(st.lists(keys(), max_size=3), st.lists(keys(), max_size=3))
def test_no_two_paths_have_one_label(one: list[Key], other: list[Key]) -> None:
    assert (path_label(tuple(one)) == path_label(tuple(other))) == (one == other)
    assert path_label(tuple(one)).isprintable()


@given(st.lists(keys(), max_size=3), st.lists(st.lists(keys(), max_size=3), max_size=3))
def test_a_label_finds_its_path(path: list[Key], others: list[list[Key]]) -> None:
    """Unless it is the path text of another one, too."""
    index = PathIndex(map(tuple, [path, *others]))
    try:
        assert index.find(path_label(tuple(path)), "x.ckpt") == tuple(path)
    except CkptError as error:
        assert error.code == "ambiguous-path"


def test_path_text() -> None:
    assert path_text(("model", 0, "w")) == "model/0/w"
    assert path_text(()) == ""


def test_what_is_the_text_of_an_int() -> None:
    for key in ("0", "-7", "12", str(-(1 << 63))):
        assert is_int_text(key), key
    for other in ("00", "-0", "", "-", "٣", "1.0", "+1", " 1", "9" * 5000, 3, None):
        assert not is_int_text(other), other
