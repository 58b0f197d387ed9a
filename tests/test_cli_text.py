"""The parts of the command line that are pure: the index parser, text for people, and the JSON form."""

from __future__ import annotations

import base64
import json
import math
from collections import OrderedDict
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.cli import index, json_form, lookup, text
from ckptfmt.cli.console import dumps
from ckptfmt.format.dtypes import DTYPES

# ---- indices

ends = st.none() | st.integers(-(10**20), 10**20)
items = (
    st.integers(-(10**20), 10**20)
    | st.builds(slice, ends, ends, ends)
    | st.sampled_from([..., slice(None), slice(None, None, -1)])
)
spaces = st.sampled_from(["", " ", "  "])


def written(item: Any) -> str:
    if item is ...:
        return "..."
    if not isinstance(item, slice):
        return str(item)
    start, stop, step = ("" if n is None else str(n) for n in (item.start, item.stop, item.step))
    return f"{start}:{stop}:{step}" if step else f"{start}:{stop}"


@given(st.lists(items, min_size=1, max_size=5), spaces, st.booleans(), st.booleans())
def test_an_index_is_read_as_numpy_reads_it(parts: list[Any], space: str, brackets: bool, comma: bool) -> None:
    body = f"{space},{space}".join(map(written, parts)) + ("," if comma else "")
    parsed = index.parse(f"{space}[{space}{body}]" if brackets else body)
    assert parsed == tuple(parts)
    wanted = eval(f"np.s_[{body}]")
    assert parsed == (wanted if isinstance(wanted, tuple) else (wanted,))


@pytest.mark.parametrize(
    "written",
    [
        *("", " ", ",", "[]", "[", "1,,2", "1.5", "a", "1:2:3:4", "....", "..", "--1", "1 2", "None", "True", "0x10"),
        *("1_0", "[1", "1]", "[[1]]", "()", "__import__('os')", "١", "1" * 5000, "\x1b[31m", "slice(1)", "1:a"),
    ],
)
def test_what_is_no_index_is_refused(written: str) -> None:
    with pytest.raises(ckptfmt.SelectionError) as caught:
        index.parse(written)
    assert caught.value.code == "bad-index"
    assert len(str(caught.value)) < 400


# ---- text

KEYS = ["model", "a b", "a/b", "é", "", "0", "-1", "007", " a", "a ", "'x'", '"', "a\n", "\x1b[31m", "\u202e", "(root)"]


def test_labels_of_different_keys_differ() -> None:
    keys = [*KEYS, 0, -1, 7, 1 << 100, "x" * 99, "x" * 100]
    assert len({text.label(key) for key in keys}) == len(keys)


@given(st.text() | st.text("\x1b\x9b\x00\n\u202e\u2066a["))
def test_text_is_made_visible(hostile: str) -> None:
    for shown in (text.visible(hostile), text.label(hostile), text.quoted(hostile, 10), text.scalar(hostile)):
        assert shown.isprintable()


def test_text_that_is_printable_stays_as_it_is() -> None:
    assert text.visible("[red]é値 ~/x[/red]") == "[red]é値 ~/x[/red]"
    assert text.label("layer_norm.weight") == "layer_norm.weight"


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (1 << 62, "4.0 EiB"),
        (1 << 75, "32,768.0 EiB"),
    ],
)
def test_sizes(number: int, shown: str) -> None:
    assert text.size(number) == shown


def test_huge_ints_do_not_take_quadratic_time_and_keep_their_value() -> None:
    huge = -(10**100_000)
    assert int(text.integer(huge), 0) == huge
    assert text.integer(huge, 20).endswith("... (332,193 bits)")
    assert text.integer(-(1 << 100)) == str(-(1 << 100))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda children: (
        st.lists(children, max_size=4)
        | st.lists(children, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), children, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "$int", "$dict", "$tuple"]), children, max_size=4)
        | st.dictionaries(st.text(), children, max_size=4).map(OrderedDict)
    ),
    max_leaves=20,
)


@given(plain, st.integers(0, 60))
def test_values_on_one_line_are_python_literals_within_their_limit(value: Any, limit: int) -> None:
    whole = text.inline(value)
    assert whole is not None
    assert whole.isprintable()
    names = {"OrderedDict": OrderedDict, "nan": math.nan, "inf": math.inf, "nanj": math.nan * 1j, "infj": 1j * math.inf}
    if "inf" not in whole and "nan" not in whole:  # these have no literals, above all not in complex numbers
        assert repr(eval(whole, names)) == repr(value)
    short = text.inline(value, limit)
    assert short == (whole if short is not None else None)
    assert short is None or len(short) <= limit + 2 + len("OrderedDict({})") * whole.count("OrderedDict")


# ---- the JSON form


def decoded(form: Any) -> Any:
    """The inverse of the JSON form, as its description has it."""
    if isinstance(form, list):
        return [decoded(item) for item in form]
    if not isinstance(form, dict):
        return form
    if len(form) != 1 or not next(iter(form)).startswith("$"):
        return {key: decoded(item) for key, item in form.items()}
    ((kind, value),) = form.items()
    match kind:
        case "$int":
            return int(value, 0)
        case "$float":
            return float(value)
        case "$complex":
            return complex(*map(decoded, value))
        case "$bytes":
            return base64.b64decode(value, validate=True)
        case "$tuple":
            return tuple(decoded(value))
        case "$dict":
            return {decoded(key): decoded(item) for key, item in value}
        case "$ordered":
            return OrderedDict((decoded(key), decoded(item)) for key, item in value)
    raise AssertionError(form)


def strict_loads(document: str) -> Any:
    """JSON without the NaN and Infinity that Python lets through, and with numbers that others read exactly."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    def exact(digits: str) -> int:
        assert abs(int(digits)) <= 1 << 53
        return int(digits)

    return json.loads(document, parse_constant=refuse, parse_int=exact)


@given(plain)
def test_plain_values_survive_json(value: Any) -> None:
    document = dumps(json_form.JsonEncoder().value(value))
    assert document.isascii()
    assert document.isprintable()
    assert repr(decoded(strict_loads(document))) == repr(value)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (np.float32(1.5), {"$scalar": 1.5, "dtype": "float32"}),
        (ml_dtypes.bfloat16(-2.5), {"$scalar": -2.5, "dtype": "bfloat16"}),
        (np.float64("nan"), {"$scalar": {"$float": "nan"}, "dtype": "float64"}),
        (np.uint64(1 << 63), {"$scalar": {"$int": str(1 << 63)}, "dtype": "uint64"}),
        (np.bool_(True), {"$scalar": True, "dtype": "bool"}),
        (ml_dtypes.int4(-8), {"$scalar": -8, "dtype": "int4"}),
        (np.complex64(1 - 2j), {"$scalar": {"$complex": [1.0, -2.0]}, "dtype": "complex64"}),
        (np.datetime64("2024-01-02", "D"), {"$scalar": "2024-01-02", "dtype": "datetime64[D]"}),
        (np.datetime64(1 << 61, "7D"), {"$scalar": {"$int": str(1 << 61)}, "dtype": "datetime64[7D]"}),
        (np.datetime64("NaT", "7D"), {"$scalar": "NaT", "dtype": "datetime64[7D]"}),
        (np.timedelta64(5, "s"), {"$scalar": 5, "dtype": "timedelta64[s]"}),
        (np.int64(5).view("m8"), {"$scalar": 5, "dtype": "timedelta64"}),
        (np.str_("a"), {"$scalar": "a", "dtype": "str"}),
        (np.bytes_(b"\xff"), {"$scalar": {"$bytes": "/w=="}, "dtype": "bytes"}),
    ],
)
def test_scalars_in_json(value: Any, form: Any) -> None:
    assert json_form.JsonEncoder().value(value) == form


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_arrays_of_every_dtype_in_json(name: str) -> None:
    array = np.array([[1], [1]]).astype(DTYPES[name].numpy)
    form = strict_loads(dumps(json_form.JsonEncoder().array(array)))
    one = complex(array[0, 0])  # -1 in int1
    assert [[complex(decoded(item)) for item in row] for row in form] == [[one], [one]]


MOST = np.iinfo(np.int64).max


@pytest.mark.parametrize(
    ("dtype", "numbers", "has_dates"),
    [
        ("M8[s]", [MOST, -MOST, 0], True),
        ("M8[7D]", [MOST // 7, -(MOST // 7), 0], True),
        ("M8[7D]", [0, MOST // 7 + 1], False),
        ("M8[25s]", [-(MOST // 25) - 1], False),
        ("M8", [-MOST - 1], True),
        ("M8", [-MOST - 1, 0], False),
        (">M8[7D]", [0, MOST // 7 + 1], False),
    ],
)
def test_times_without_a_date_are_shown_as_numbers(dtype: str, numbers: list[int], has_dates: bool) -> None:
    """For which NumPy raises, or prints another date."""
    times = np.array([*numbers, -MOST - 1]).view(dtype.replace(">", "")).astype(dtype)
    shown = text.printable(times)
    assert shown.dtype == (times.dtype if has_dates else np.int64)
    if has_dates:
        unit, count = np.datetime_data(times.dtype)
        one_by_one = np.array([number * count for number in numbers[: 0 if unit == "generic" else None]])
        assert shown.astype(str).tolist()[: len(one_by_one)] == one_by_one.view(f"M8[{unit}]").astype(str).tolist()
        assert str(shown[-1]) == "NaT"
    else:
        assert shown.tolist() == [*numbers, -MOST - 1]
        assert text.scalar(times[-2]) == f"{times.dtype.newbyteorder('=').name}({numbers[-1]})"


# ---- paths

TREE = {"a": {"b": 1, "": 2}, "a/b": 3, "": 4, 0: 5, "0": 6, "[x]": [7, (8,)], "-1": 9, "/": {"/": 10}, '["a"]': 11}


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("a", ("a",)),
        ("[x]/1/0", ("[x]", 1, 0)),
        ("-1", ("-1",)),
        ("a/", ("a", "")),
        ("///", ("/", "/")),
        ('["a/b"]', ("a/b",)),
        ('["a", "b"]', ("a", "b")),
        ("[0]", (0,)),
        ('["0"]', ("0",)),
        ("[]", ()),
        ('["a"]', ('["a"]',)),  # a key that looks like a typed path is found as text first
    ],
)
def test_paths_lead_to_their_values(asked: str, path: Any) -> None:
    value: Any = TREE
    for key in path:
        value = value[key]
    assert lookup.find(TREE, asked, "x.ckpt") == (path, value)


@pytest.mark.parametrize(
    "asked", ["b", "a/b/c", "[1.5]", "[true]", "[null]", '[["a"]]', '{"a": 1}', "[" * 9999, "[x]/2"]
)
def test_paths_that_lead_nowhere(asked: str) -> None:
    with pytest.raises(ckptfmt.SelectionError) as caught:
        lookup.find(TREE, asked, "x.ckpt")
    assert caught.value.code == "no-such-path"


@pytest.mark.parametrize(("asked", "fits"), [("a/b", [1, 3]), ("0", [5, 6]), ("", [TREE, 4])])
def test_an_ambiguous_path_names_the_exact_ones(asked: str, fits: list[Any]) -> None:
    with pytest.raises(ckptfmt.SelectionError) as caught:
        lookup.find(TREE, asked, "x.ckpt")
    assert caught.value.code == "ambiguous-path"
    named = caught.value.message.split("'")
    exact = [lookup.find(TREE, word, "x.ckpt")[1] for word in named if word.startswith("[")]
    assert sorted(map(str, exact)) == sorted(map(str, fits))
