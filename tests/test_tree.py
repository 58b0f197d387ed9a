"""The tree: values to nodes and back (SPEC.md section 2), tags (section 13)."""

from __future__ import annotations

import collections
import enum
import pickle
import struct
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.errors import CkptError, CorruptError, InputError, UnknownTagWarning
from ckptfmt.format.tree import MAX_DEPTH, OMITTED, check, decode, leaves
from ckptfmt.testing import assert_same_tree
from ckptfmt.testing.strategies import integers, trees
from ckptfmt.writing.encoder import encode

X = np.arange(6, dtype=np.float32)


def dtypes_of(encoded: Any) -> list[str]:
    return ["int64" if source.dtype.kind in "mM" else source.dtype.name for source in encoded.sources]


def nested(depth: int) -> list[Any]:
    """`depth` lists, one in the other."""
    tree: list[Any] = []
    for _ in range(depth - 1):
        tree = [tree]
    return tree


# ---- the table of section 2, row by row

NODES = [
    (None, None),
    (True, True),
    (False, False),
    (0, 0),
    (-(1 << 63), -(1 << 63)),
    ((1 << 64) - 1, (1 << 64) - 1),
    (1 << 64, ["int", b"\x01" + bytes(8)]),
    (-(1 << 63) - 1, ["int", b"\xff\x7f" + b"\xff" * 7]),
    ((1 << 127) - 1, ["int", b"\x7f" + b"\xff" * 15]),
    (1 << 127, ["int", b"\x00\x80" + bytes(15)]),
    (-(1 << 127), ["int", b"\x80" + bytes(15)]),
    (1.5, 1.5),
    (complex(1.0, -2.0), ["complex", bytes.fromhex("000000000000f03f00000000000000c0")]),
    ("ü", "ü"),
    (b"\x00\xff", b"\x00\xff"),
    (np.float32(1.0), ["scalar", "float32", bytes.fromhex("0000803f")]),
    (np.bool_(True), ["scalar", "bool", b"\x01"]),
    (np.uint16(0x1234), ["scalar", "uint16", b"\x34\x12"]),
    (np.complex64(1j), ["scalar", "complex64", bytes.fromhex("000000000000803f")]),
    (ml_dtypes.bfloat16(1.0), ["scalar", "bfloat16", b"\x80\x3f"]),
    (ml_dtypes.int4(-1), ["scalar", "int4", b"\x0f"]),
    ({0: None, "0": 1}, ["dict", [0, "0"], [None, 1]]),
    ({1 << 64: True}, ["dict", [["int", b"\x01" + bytes(8)]], [True]]),
    ([1, [2]], ["list", [1, ["list", [2]]]]),
    ((), ["tuple", []]),
    (OrderedDict(b=1, a=2), ["tag", "collections.OrderedDict", None, ["dict", ["b", "a"], [1, 2]]]),
    (np.str_("s"), ["tag", "numpy.str_", None, "s"]),
    (np.bytes_(b"s"), ["tag", "numpy.bytes_", None, b"s"]),
    (np.datetime64(5, "25s"), ["tag", "numpy.datetime64", "25s", ["scalar", "int64", b"\x05" + bytes(7)]]),
    (np.int64(-1).view("m8"), ["tag", "numpy.timedelta64", "generic", ["scalar", "int64", b"\xff" * 8]]),
    (X, ["tensor", 0]),
    (np.zeros(2, "<M8[ns]"), ["tag", "numpy.datetime64", "ns", ["tensor", 0]]),
]


@pytest.mark.parametrize(("value", "node"), NODES, ids=[str(node)[:40] for _, node in NODES])
def test_nodes(value: Any, node: Any) -> None:
    encoded = encode(value)
    assert encoded.node == node
    assert type(encoded.node) is type(node)
    check(node, dtypes_of(encoded))


@given(trees())
def test_decoding_is_the_inverse_of_encoding(tree: Any) -> None:
    encoded = encode(tree)
    stored = msgpack.unpackb(msgpack.packb(encoded.node), strict_map_key=True)
    check(stored, dtypes_of(encoded))
    arrays = [source.view("i8") if source.dtype.kind in "mM" else source for source in encoded.sources]
    arrays = [array.astype(array.dtype.newbyteorder("=")) for array in arrays]
    assert_same_tree(decode(stored, arrays.__getitem__), tree)


@given(integers())
def test_ints_take_as_few_bytes_as_possible(value: int) -> None:  # [TREE-002]
    node = encode(value).node
    if -(1 << 63) <= value < 1 << 64:
        assert node == value
        assert type(node) is int
    else:
        assert node[0] == "int"
        assert int.from_bytes(node[1], "big", signed=True) == value
        assert int.from_bytes(node[1][1:], "big", signed=True) != value


def test_floats_keep_every_bit() -> None:  # [TREE-004]
    for bits in (0x8000000000000000, 0x7FF0000000000001, 0xFFF8DEADBEEF0001, 0x7FF0000000000000):
        (value,) = struct.unpack(">d", bits.to_bytes(8, "big"))
        assert msgpack.packb(encode(value).node) == b"\xcb" + bits.to_bytes(8, "big")
    assert msgpack.packb(encode(1.0).node)[0] == 0xCB


def test_strings_keep_zeros_at_their_end() -> None:
    """NumPy's own conversions drop them."""
    assert encode(np.str_("a\0")).node[3] == "a\0"
    assert encode(np.bytes_(b"a\0")).node[3] == b"a\0"


def test_dicts_keep_their_order() -> None:  # [TREE-008]
    assert list(decode(encode({"b": 1, "a": 2, 3: 4}).node, X.__getitem__)) == ["b", "a", 3]


# ---- tensors


def test_tensors_are_numbered_in_the_order_of_a_walk() -> None:  # [TREE-016]
    a, b, c = np.zeros(1), np.ones(1), np.full(1, 2.0)
    encoded = encode({"z": [a, {"y": b}], "a": (c, a)})
    assert [(path, source[0]) for path, source in zip(encoded.paths, encoded.sources, strict=True)] == [
        (("z", 0), 0),
        (("z", 1, "y"), 1),
        (("a", 0), 2),
    ]
    assert encoded.node[2][1] == ["tuple", [["tensor", 2], ["tensor", 0]]]


def test_the_same_memory_seen_in_the_same_way_is_one_tensor() -> None:  # [TREE-010] [TREE-011]
    encoded = encode([X, X[:], X.reshape(6), X.view(np.float32)])
    assert encoded.node == ["list", [["tensor", 0]] * 4]
    assert encoded.copied_views == ()


@pytest.mark.parametrize("dtype", ["f4", "M8[s]", "m8[7D]", ">M8[us]"])
@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0)])
def test_an_array_that_stands_twice_is_one_tensor(dtype: str, shape: tuple[int, ...]) -> None:  # [TREE-011]
    """Also one without elements, which has no memory to tell it by, and whose ints are a view made on the way."""
    once, other = np.zeros(shape, dtype), np.zeros(shape, dtype)
    assert len(encode([once, {"a": once, "b": other}, (once,)]).sources) == 2


def test_a_square_array_and_its_transpose_are_two_tensors() -> None:  # [TREE-011]
    square = np.arange(4.0).reshape(2, 2)
    encoded = encode({"a": square, 0: square.T})
    assert encoded.node == ["dict", ["a", 0], [["tensor", 0], ["tensor", 1]]]
    assert [set(group) for group in encoded.copied_views] == [{"a", "0"}]


def test_other_views_of_one_memory_are_separate_and_reported() -> None:  # [TREE-011]
    apart = np.arange(10.0)
    tree = {"whole": X, "part": X[2:4], "shape": X.reshape(2, 3), "low": apart[:5], "high": apart[5:]}
    encoded = encode(tree)
    assert len(encoded.sources) == 5
    assert sorted(map(sorted, encoded.copied_views)) == [["part", "shape", "whole"]]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6), st.booleans(), st.booleans()), max_size=12))
def test_views_of_one_memory(places: list[tuple[int, int, bool, bool]]) -> None:  # [TREE-011]
    """Those of one place are one tensor, and those that overlap otherwise are told, whatever can be written to."""
    memory = np.arange(20, dtype=np.int16)
    views = []
    for start, length, is_frozen, is_own in places:
        view = memory[start : start + length].copy() if is_own else memory[start : start + length]
        view.flags.writeable = not is_frozen
        views.append(view)
    encoded = encode(views)
    shared = {(start, start + length) for start, length, _, is_own in places if length and not is_own}
    assert len(encoded.sources) == len(shared) + sum(is_own or not length for _, length, _, is_own in places)
    told = {path for group in encoded.copied_views for path in group}
    overlap = {one for one in shared for other in shared if one != other and one[0] < other[1] and other[0] < one[1]}
    firsts = {}
    for number, (start, length, _, is_own) in enumerate(places):
        if (start, start + length) in overlap and not is_own:
            firsts.setdefault((start, start + length), str(number))
    assert told == set(firsts.values())


def test_empty_arrays_share_no_memory() -> None:
    empty = np.zeros((0, 3))
    assert len(encode([empty, np.zeros((0, 3))]).sources) == 2
    assert encode([empty[:], empty[1:]]).copied_views == ()


# ---- refused values


class Subclass(np.ndarray):
    pass


class Color(enum.IntEnum):
    RED = 1


class Float(float):
    pass


class Float64(np.float64):
    pass


class Str(np.str_):
    pass


UNSUPPORTED_LEAVES = [
    object(),
    int,
    len,
    Float(1),
    collections.UserDict(),
    memoryview(b"x"),
    "\ud800",
    np.str_("\udfff"),
    OMITTED,
    np.zeros(2).view(Subclass),
    np.ma.zeros(2),
    np.zeros((1, 1)).view(np.matrix),
    np.zeros(2, [("f", "f4")]).view(np.recarray),
]
UNSUPPORTED_DTYPES = [
    np.array([None]),
    np.array(["text"]),
    np.array([b"text"]),
    np.zeros(1, "V4"),
    np.zeros(1, [("field", "i4")]),
    np.zeros(1, np.longdouble),
    np.zeros(1, np.clongdouble),
    np.longdouble(1),
    np.void(b"abc"),
]


def refused(tree: Any, code: str, path: str) -> None:
    with pytest.raises(InputError) as raised:
        encode(tree)
    assert raised.value.code == code
    assert raised.value.tensor == path


@pytest.mark.parametrize("leaf", UNSUPPORTED_LEAVES, ids=lambda leaf: type(leaf).__name__)
def test_leaves_without_an_encoding_are_refused(leaf: Any) -> None:  # [TREE-013] [TREE-015]
    refused({"layers": [0, (leaf,)]}, "unsupported-leaf", "layers/1/0")


@pytest.mark.parametrize("leaf", UNSUPPORTED_DTYPES, ids=lambda leaf: str(leaf.dtype))
def test_dtypes_without_an_encoding_are_refused(leaf: Any) -> None:  # [TREE-013]
    refused({"layers": [0, (leaf,)]}, "unsupported-dtype", "layers/1/0")


@pytest.mark.parametrize("leaf", [Float64(1), Str("s")], ids=["float64", "str_"])
def test_subclasses_of_numpy_scalars_are_refused(leaf: Any) -> None:  # [TREE-013]
    """They would come back as their base class."""
    refused({"layers": [0, (leaf,)]}, "unsupported-leaf", "layers/1/0")


@pytest.mark.parametrize(
    "key", [True, 1.0, None, b"a", (1,), np.int64(1), np.str_("a"), Color.RED], ids=lambda key: type(key).__name__
)
def test_keys_that_are_neither_str_nor_int_are_refused(key: Any) -> None:  # [TREE-007]
    refused({"layers": [{key: 1}]}, "unsupported-key", "layers/0")


def test_keys_with_surrogates_are_refused() -> None:  # [TREE-015]
    refused({"a": {"\ud800": 1}}, "unsupported-key", "a/'\\ud800'")


def test_arrays_are_refused_where_only_plain_values_may_stand() -> None:  # [TREE-014]
    with pytest.raises(InputError) as raised:
        encode({"a": [X]}, allow_tensors=False)
    assert (raised.value.code, raised.value.tensor) == ("unsupported-leaf", "a/0")


@pytest.mark.parametrize("kind", ["list", "dict", "tuple"])
def test_cycles_are_refused(kind: str) -> None:  # [TREE-012]
    inner: list[Any] = []
    inner.append({"list": inner, "dict": {"k": inner}, "tuple": (inner,)}[kind])
    with pytest.raises(InputError) as raised:
        encode(inner)
    assert raised.value.code == "too-deep"


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1},
        OrderedDict(a=1),
        collections.deque([1]),
        collections.defaultdict(list, a=[1]),
        {1, (2, (3,))},
        range(3),
        np.zeros(1, "M8[s]"),
        np.datetime64(1, "s"),
        np.str_("x"),
        np.random.default_rng(1),
        collections.deque([OrderedDict(a=np.zeros(1, "m8[D]"))]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_tags_are_as_deep_as_readers_accept(value: Any) -> None:  # [TREE-012]
    encoded = encode(value)
    accepted = []
    for depth in range(MAX_DEPTH - 8, MAX_DEPTH + 1):
        node, tree = encoded.node, value
        for _ in range(depth):
            node, tree = ["list", [node]], [tree]
        try:
            check(node, dtypes_of(encoded))
        except CkptError:
            with pytest.raises(InputError) as raised:
                encode(tree)
            assert raised.value.code == "too-deep"
        else:
            accepted.append(depth)
            assert encode(tree).node == node
    assert 0 < len(accepted) < 9


def test_the_deepest_trees_are_those_that_readers_accept() -> None:  # [TREE-012]
    deepest = nested(MAX_DEPTH)
    check(encode(deepest).node, ())
    with pytest.raises(InputError) as raised:
        encode([deepest])
    assert raised.value.code == "too-deep"


@pytest.mark.parametrize("leaf", [np.datetime64(1, "s"), np.str_("s"), np.zeros(1, "M8[s]"), OrderedDict()], ids=repr)
def test_a_tag_counts_as_a_level(leaf: Any) -> None:  # [TREE-012]
    """An ordered dict as two, as it is a tag and a dict."""
    levels = 2 if isinstance(leaf, OrderedDict) else 1
    tree = leaf
    for _ in range(MAX_DEPTH - levels):
        tree = [tree]
    encoded = encode(tree)
    check(encoded.node, dtypes_of(encoded))
    with pytest.raises(InputError) as raised:
        encode([tree])
    assert raised.value.code == "too-deep"


@pytest.mark.parametrize("kind", ["list", "dict", "tag", "param"])
def test_readers_accept_depths_below_256(kind: str) -> None:  # [TREE-012]
    inner: Any = None
    for _ in range(MAX_DEPTH):
        inner = {
            "list": ["list", [inner]],
            "dict": ["dict", [0], [inner]],
            "tag": ["tag", "other", None, inner],
            "param": ["tag", "other", inner, None],
        }[kind]
    check(inner, ())
    with pytest.raises(CorruptError) as raised:
        check(["list", [inner]], ())
    assert raised.value.code == "bad-manifest"


# ---- refused nodes

SCALAR = ["scalar", "int64", bytes(8)]
BAD_NODES = [
    ("TREE-001", []),
    ("TREE-001", [1]),
    ("TREE-001", ["set", []]),
    ("TREE-001", {"a": 1}),
    ("TREE-001", ["list"]),
    ("TREE-001", ["list", [], None]),
    ("TREE-001", ["list", {}]),
    ("TREE-001", ["tuple", "ab"]),
    ("TREE-001", ["int", 5]),
    ("TREE-001", ["complex", "0123456789abcdef"]),
    ("TREE-001", ["scalar", 5, b""]),
    ("TREE-001", ["tag", "name", None]),
    ("TREE-001", ["tag", 5, None, None]),
    ("TREE-001", [["list", []]]),
    ("TREE-003", ["int", b""]),
    ("TREE-005", ["complex", bytes(15)]),
    ("TREE-005", ["scalar", "float32", bytes(8)]),
    ("TREE-005", ["scalar", "int4", b""]),
    ("TREE-006", ["dict", ["a"], []]),
    ("TREE-006", ["dict", ["a", "a"], [1, 2]]),
    ("TREE-006", ["dict", [1, ["int", b"\x01"]], [1, 2]]),
    ("TREE-007", ["dict", [True], [1]]),
    ("TREE-007", ["dict", [None], [1]]),
    ("TREE-007", ["dict", [1.0], [1]]),
    ("TREE-007", ["dict", [b"a"], [1]]),
    ("TREE-007", ["dict", [["int", b""]], [1]]),
    ("TREE-007", ["dict", [["list", []]], [1]]),
    ("TREE-009", ["tensor", 2]),
    ("TREE-009", ["tensor", -1]),
    ("TREE-009", ["tensor", True]),
    ("TREE-009", ["tensor", 0.0]),
    ("TREE-009", ["tensor", 0, 0]),
    ("TREE-014", ["tag", "other", ["tensor", 0], None]),
    ("TAG-003", ["tag", "collections.OrderedDict", "p", ["dict", [], []]]),
    ("TAG-003", ["tag", "collections.OrderedDict", None, ["list", []]]),
    ("TAG-003", ["tag", "collections.OrderedDict", None, "dict"]),
    ("TAG-003", ["tag", "numpy.datetime64", None, SCALAR]),
    ("TAG-003", ["tag", "numpy.datetime64", "fortnight", SCALAR]),
    ("TAG-003", ["tag", "numpy.datetime64", "0s", SCALAR]),
    ("TAG-003", ["tag", "numpy.datetime64", "s\n", SCALAR]),
    ("TAG-003", ["tag", "numpy.datetime64", "2147483648s", SCALAR]),  # NumPy counts in 31 bits
    ("TAG-003", ["tag", "numpy.datetime64", "9999999999s", SCALAR]),
    ("TAG-003", ["tag", "numpy.datetime64", "3generic", SCALAR]),
    ("TAG-003", ["tag", "numpy.datetime64", "s", ["scalar", "uint64", bytes(8)]]),
    ("TAG-003", ["tag", "numpy.timedelta64", "s", ["tensor", 1]]),
    ("TAG-003", ["tag", "numpy.timedelta64", "s", 5]),
    ("TAG-003", ["tag", "numpy.str_", None, b"s"]),
    ("TAG-003", ["tag", "numpy.str_", 1, "s"]),
    ("TAG-003", ["tag", "numpy.bytes_", None, "s"]),
]


@pytest.mark.parametrize(("statement", "node"), BAD_NODES, ids=[f"{s}-{str(n)[:40]}" for s, n in BAD_NODES])
def test_nodes_that_break_the_specification_are_refused(statement: str, node: Any) -> None:
    """[TREE-001] and what follows; wherever in the tree."""
    for tree in (node, ["list", [["tensor", 0], ["tensor", 1], node]]):
        with pytest.raises(CkptError) as raised:
            check(tree, ("int64", "float32"))
        assert raised.value.code == "bad-manifest", statement


def test_every_tensor_stands_in_the_tree() -> None:  # [TREE-009]
    check(["list", [["tensor", 1], ["tensor", 0]]], ("int8", "int8"))
    with pytest.raises(CorruptError, match="stands nowhere"):
        check(["list", [["tensor", 1]]], ("int8", "int8"))


def test_scalars_of_an_unknown_dtype_are_refused_by_name() -> None:  # [DTYPE-001]
    with pytest.raises(CkptError, match="float9") as raised:
        check(["scalar", "float9", b"x"], ())
    assert raised.value.code == "unknown-dtype"


def test_a_bool_scalar_is_0_or_1() -> None:  # [DTYPE-005]
    with pytest.raises(CorruptError):
        check(["scalar", "bool", b"\x02"], ())


def test_a_longer_int_than_needed_is_read() -> None:  # [TREE-002] binds writers
    check(["int", b"\x00\x00\x05"], ())
    assert decode(["int", b"\x00\x00\x05"], X.__getitem__) == 5


# ---- tags


class LaterNumPy:
    """As it will be when it has given up times without a unit, for which 2.5 warns."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def dtype(self, name: str) -> np.dtype[Any]:
        if name in ("m8", "M8"):
            raise TypeError(f"data type {name!r} not understood")
        return np.dtype(name)


@pytest.mark.parametrize("kind", ["m8", "M8"])
def test_times_without_a_unit_are_read_without_them(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:  # [TAG-004]
    numbers = np.array([5, -1])
    encoded = encode([numbers.view(kind), numbers[0].view(kind), numbers.view(f"{kind}[s]"), numbers.view(kind)])
    arrays = [np.asarray(source).view("i8") for source in encoded.sources]
    with_it = decode(encoded.node, arrays.__getitem__)
    assert [value.dtype for value in with_it] == [kind, kind, f"{kind}[s]", kind]
    monkeypatch.setattr("ckptfmt.format.tags.np", LaterNumPy())
    with pytest.warns(UnknownTagWarning, match="generic', first at '0', was read as int64") as told:
        found = decode(encoded.node, arrays.__getitem__)
    assert len(told) == 1
    assert_same_tree(found, [numbers, numbers[0], numbers.view(f"{kind}[s]"), numbers])


def test_unknown_tags_give_the_child_and_say_so() -> None:  # [TAG-001]
    node = ["tag", "elsewhere.Size", "param", ["tuple", [2, 3]]]
    check(node, ())
    with pytest.warns(UnknownTagWarning, match="elsewhere.Size"):
        assert decode(node, X.__getitem__) == (2, 3)


def test_unknown_tags_are_named_once_each() -> None:  # [TAG-001]
    nodes = [["tag", name, None, i] for i, name in enumerate(["one", "two", "one", "one"])]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert decode(["list", nodes], X.__getitem__) == [0, 1, 2, 3]
    assert len(caught) == 2


@pytest.mark.parametrize("count", [1, 2, 999_999_999, 1_000_000_000, 2_147_483_647])
def test_writers_use_no_time_unit_that_readers_refuse(count: int) -> None:  # [TAG-003]
    for value in (np.datetime64(5, f"{count}s"), np.zeros(2, f"m8[{count}ms]")):
        try:
            encoded = encode(value)
        except InputError as error:
            if error.code != "unsupported-dtype" or count < 1_000_000_000:
                raise
            continue
        check(encoded.node, dtypes_of(encoded))


# ---- parts of a tree


def keep(*wanted: Any) -> Any:
    return lambda path: path in wanted


def test_what_is_left_out() -> None:
    node = encode({"a": {"b": 1, "c": 2}, "l": [1, 2, 3], "t": (1, [2]), "o": OrderedDict(x=1)}).node
    assert decode(node, X.__getitem__, keep(("a", "b"))) == {"a": {"b": 1}}
    assert decode(node, X.__getitem__, keep(("l", 1), ("t", 1, 0))) == {"l": [OMITTED, 2, OMITTED], "t": (OMITTED, [2])}
    assert_same_tree(decode(node, X.__getitem__, keep(("o", "x"))), {"o": OrderedDict(x=1)})
    assert decode(node, X.__getitem__, keep(("a",))) is OMITTED  # a container goes with what it holds
    empty = encode({"a": {}, "b": [[], ()]}).node
    assert decode(empty, X.__getitem__, keep(("a",), ("b", 1))) == {"a": {}, "b": [OMITTED, ()]}
    assert decode(5, X.__getitem__, keep()) is OMITTED


def test_omitted_is_one_of_a_kind() -> None:
    assert pickle.loads(pickle.dumps(OMITTED)) is OMITTED
    assert not OMITTED
    assert repr(OMITTED) == "ckptfmt.OMITTED"


def test_leaves_and_their_paths() -> None:
    tree = {"a": [1, {}], 2: OrderedDict(x=()), "e": np.datetime64(1, "s")}
    found = list(leaves(encode(tree).node))
    assert [path for path, _ in found] == [("a", 0), ("a", 1), (2, "x"), ("e",)]
    assert found[1][1] == ["dict", [], []]


def calls_of_a_load(path: Path) -> int:
    """How many functions of Python a load calls."""
    calls = 0

    def count(_: Any, event: str, __: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        ckptfmt.load(path)
    finally:
        sys.setprofile(None)
    return calls


def test_a_load_calls_little_for_each_plain_value(tmp_path: Path) -> None:
    """Histories and buffers have a million of them: a small dict is checked once and decoded once, and no other pass
    goes over the tree."""
    found = []
    for count in (1000, 3000):
        ckptfmt.save(tmp_path / f"{count}", {"history": [{"loss": 0.5, "step": i, "at": None} for i in range(count)]})
        ckptfmt.load(tmp_path / f"{count}")
        found.append(calls_of_a_load(tmp_path / f"{count}"))
    assert (found[1] - found[0]) / 2000 < 8
