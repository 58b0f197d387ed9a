"""Tags of values that programs keep beside tensors: counters, sets, dates, generators of random numbers.
SPEC.md section 13."""

from __future__ import annotations

from typing import Any

from ..build import Checkpoint
from ..model import Tag, tensor
from . import edit, fault, valid

NAMES = ("bool", "int", "float", "complex", "str", "bytes", "list", "tuple", "dict", "set", "frozenset")
DATA = tensor("float32", (2, 3), "value")
WORDS = {"has_uint32": 0, "uinteger": 7}
PCG = {"bit_generator": "PCG64", "state": {"state": 2**127 + 1, "inc": 3}, **WORDS}
SMALL = {**PCG, "state": {"state": 1, "inc": 3}}  # of ints that msgpack has
MT = {"bit_generator": "MT19937", "state": {"key": [2**32 - 1 - n for n in range(624)], "pos": 624}}
SEED = {"entropy": 2**100, "spawn_key": [1, 2], "pool_size": 4, "n_children_spawned": 3}

VALID: dict[str, tuple[str, Any]] = {
    "counter": ("A counter.", Tag("collections.Counter", None, {"a": 2, "b": -1, 7: 0})),
    "defaultdict": ("A dict with a default.", Tag("collections.defaultdict", "list", {"loss": [1.0, 2.0]})),
    "defaultdict-none": ("A dict with a default, and nothing that makes it.", Tag("collections.defaultdict", None, {})),
    "defaultdict-tensor": (
        "A dict with a default that holds a tensor.",
        Tag("collections.defaultdict", "dict", {0: DATA}),
    ),
    "deque": ("A queue.", Tag("collections.deque", None, [1, "b", [DATA]])),
    "deque-bounded": ("A queue that is full.", Tag("collections.deque", 2, [1, 2])),
    "namespace": ("A namespace.", Tag("types.SimpleNamespace", None, {"a": 1, "self": DATA, "__class__": "int"})),
    "arguments": (
        "Arguments of a program, with a path among them.",
        Tag("argparse.Namespace", None, {"lr": 0.1, "out": Tag("pathlib.Path", "posix", "runs/7")}),
    ),
    "bytearray": ("Bytes that can be changed.", Tag("python.bytearray", None, b"\0\xff")),
    "set": ("A set.", Tag("python.set", None, [None, 1, "a", (2, b"x")])),
    "set-empty": ("An empty set.", Tag("python.set", None, [])),
    "set-of-sets": ("Sets in a set.", Tag("python.frozenset", None, [Tag("python.frozenset", None, [1])])),
    "range": ("A range.", Tag("python.range", None, (10, -(2**70), -3))),
    "slice": ("A slice.", Tag("python.slice", None, (None, 5, None))),
    "date": ("A day.", Tag("datetime.date", None, "2024-02-29")),
    "time": ("A time of day.", Tag("datetime.time", None, "23:59:59.000001")),
    "time-fold": ("The second of two equal times.", Tag("datetime.time", {"fold": 1}, "01:30:00")),
    "datetime": ("A moment in no time zone.", Tag("datetime.datetime", None, "0001-01-01T00:00:00")),
    "datetime-zone": (
        "A moment in a time zone with a name.",
        Tag("datetime.datetime", {"zone": "CET", "fold": 1}, "2024-10-27T02:30:00.500000+01:00"),
    ),
    "timedelta": ("A span of time.", Tag("datetime.timedelta", None, -1)),
    "timedelta-most": ("The longest span.", Tag("datetime.timedelta", None, 86_399_999_999_999_999_999)),
    "timezone": ("A time zone.", Tag("datetime.timezone", None, "-03:30")),
    "timezone-name": ("A time zone with a name.", Tag("datetime.timezone", "IST", "+05:30")),
    "decimal": ("A decimal number.", Tag("decimal.Decimal", None, "-1.50E+400")),
    "decimal-nan": ("A decimal that signals.", Tag("decimal.Decimal", None, "sNaN12")),
    "fraction": ("A fraction.", Tag("fractions.Fraction", None, "-3/4")),
    "uuid": ("A UUID.", Tag("uuid.UUID", None, "12345678-1234-5678-1234-567812345678")),
    "path": ("A path.", Tag("pathlib.Path", "posix", "/runs/7")),
    "pure-path": ("A path that only says what it is.", Tag("pathlib.PurePath", "windows", "c:\\runs\\7")),
    "random": ("A generator of Python.", Tag("random.Random", None, (3, (*range(1, 625), 624), 0.5))),
    "generator": ("A generator of NumPy.", Tag("numpy.random.Generator", SEED, PCG)),
    "generator-mt": ("One without what it was seeded with.", Tag("numpy.random.Generator", None, MT)),
    "random-state": (
        "An older generator of NumPy.",
        Tag("numpy.random.RandomState", None, {**MT, "has_gauss": 1, "gauss": -0.25}),
    ),
    "enum": ("A member of an enum, whose class is a function.", Tag("python.enum", "os.system", "true")),
    "enum-tuple": ("A member whose value is a tuple.", Tag("python.enum", "a.Mode", (1, 2))),
    "torch-generator": ("A generator of torch.", Tag("torch.Generator", "cpu", b"\1\2")),
    **{
        f"default-{name.lower().replace('.', '-')}": (
            f"A dict whose default is {name}().",
            Tag("collections.defaultdict", name, {}),
        )
        for name in (*NAMES, "collections.Counter", "collections.deque", "os.system")
    },
}
for _name, (_title, _tag) in VALID.items():
    valid(
        f"value-{_name}",
        f"{_title} A reader that does not know the tag gives its child.",
        "TAG-001 TAG-002 TAG-004 SEC-001",
        Checkpoint({"t": [_tag]}),
    )


def dict_of(values: dict[str, Any]) -> list[Any]:
    """The node of a dict of plain values."""
    items = [dict_of(item) if isinstance(item, dict) else ["list", item] if isinstance(item, list) else item
             for item in values.values()]  # fmt: skip
    return ["dict", list(values), items]


def changed(state: dict[str, Any], **changes: Any) -> list[Any]:
    return dict_of({**state, **changes})


NUMBERS = ["tuple", [3, ["tuple", [*range(1, 625), 625]], None]]
BAD: dict[str, tuple[str, Any]] = {
    "counter-list": ("A counter of a list.", ["collections.Counter", None, ["list", []]]),
    "defaultdict-param": ("A default that is a number.", ["collections.defaultdict", 1, ["dict", [], []]]),
    "deque-tuple": ("A queue of a tuple.", ["collections.deque", None, ["tuple", []]]),
    "deque-full": ("A queue of more than it takes.", ["collections.deque", 1, ["list", [1, 2]]]),
    "deque-negative": ("A queue of fewer than none.", ["collections.deque", -1, ["list", []]]),
    "namespace-key": ("A namespace with a number for a name.", ["types.SimpleNamespace", None, ["dict", [1], [1]]]),
    "arguments-param": ("Arguments with a param.", ["argparse.Namespace", "x", ["dict", [], []]]),
    "bytearray-str": ("Bytes that are text.", ["python.bytearray", None, "x"]),
    "set-list": ("A set with a list in it.", ["python.set", None, ["list", [["list", []]]]]),
    "set-tensor": ("A set with a tensor in it.", ["python.set", None, ["list", [["tensor", 0]]]]),
    "set-tuple": (
        "A set with a list in a tuple in it.",
        ["python.frozenset", None, ["list", [["tuple", [["list", []]]]]]],
    ),
    "set-set": ("A set with a set in it.", ["python.set", None, ["list", [["tag", "python.set", None, ["list", []]]]]]),
    "range-step": ("A range that does not move.", ["python.range", None, ["tuple", [0, 1, 0]]]),
    "range-float": ("A range of floats.", ["python.range", None, ["tuple", [0.0, 1, 1]]]),
    "slice-two": ("A slice of two.", ["python.slice", None, ["tuple", [0, 1]]]),
    "slice-str": ("A slice of text.", ["python.slice", None, ["tuple", ["a", None, None]]]),
    "date-none": ("A day that is none.", ["datetime.date", None, "2023-02-29"]),
    "date-short": ("A day without its dashes.", ["datetime.date", None, "20240229"]),
    "time-zero": ("A time with seconds that are not written.", ["datetime.time", None, "01:30"]),
    "datetime-blank": ("A moment with a blank for the T.", ["datetime.datetime", None, "2024-01-01 00:00:00"]),
    "datetime-fold": ("A fold of two.", ["datetime.datetime", ["dict", ["fold"], [2]], "2024-01-01T00:00:00"]),
    "datetime-zone": (
        "The name of a time zone that is not there.",
        ["datetime.datetime", ["dict", ["zone"], ["CET"]], "2024-01-01T00:00:00"],
    ),
    "datetime-more": ("A param of another name.", ["datetime.datetime", ["dict", ["x"], [1]], "2024-01-01T00:00:00"]),
    "timedelta-long": ("A span that is too long.", ["datetime.timedelta", None, ["int", (10**20).to_bytes(9, "big")]]),
    "timedelta-float": ("A span that is a float.", ["datetime.timedelta", None, 1.0]),
    "timezone-day": ("A time zone of a day.", ["datetime.timezone", None, "+24:00"]),
    "timezone-word": ("A time zone that is a word.", ["datetime.timezone", None, "Z"]),
    "decimal-blank": ("A number with a blank.", ["decimal.Decimal", None, " 1"]),
    "decimal-word": ("A word that is no number.", ["decimal.Decimal", None, "one"]),
    "fraction-zero": ("A fraction of zero.", ["fractions.Fraction", None, "1/0"]),
    "fraction-terms": ("A fraction not in its lowest terms.", ["fractions.Fraction", None, "2/4"]),
    "fraction-long": ("A fraction of very many digits.", ["fractions.Fraction", None, "1/1" + "0" * 5000]),
    "uuid-capital": ("A UUID in capitals.", ["uuid.UUID", None, "ABCDEF00-1234-5678-1234-567812345678"]),
    "path-system": ("A path of no system.", ["pathlib.Path", "amiga", "a"]),
    "path-twice": ("A path with two slashes.", ["pathlib.PurePath", "posix", "a//b"]),
    "random-place": ("A place beyond the numbers.", ["random.Random", None, NUMBERS]),
    "random-few": ("Too few numbers.", ["random.Random", None, ["tuple", [3, ["tuple", [1, 2]], None]]]),
    "generator-place": (
        "A place beyond the numbers of a state.",
        ["numpy.random.Generator", None, dict_of({**MT, "state": {**MT["state"], "pos": 625}})],  # type: ignore[dict-item]
    ),
    "generator-name": (
        "A generator of another name.",
        ["numpy.random.Generator", None, changed(SMALL, bit_generator="system")],
    ),
    "generator-word": ("A number beyond its bits.", ["numpy.random.Generator", None, changed(SMALL, uinteger=2**32)]),
    "generator-more": ("A state with one key more.", ["numpy.random.Generator", None, changed(SMALL, x=1)]),
    "generator-seed": (
        "A seed of a pool that takes all memory.",
        ["numpy.random.Generator", changed({**SEED, "entropy": 5}, pool_size=2**31), dict_of(SMALL)],
    ),
    "random-state-gauss": (
        "A state without its last number.",
        ["numpy.random.RandomState", None, dict_of(MT)],
    ),
    "enum-param": ("A member without its class.", ["python.enum", None, 1]),
    "enum-tensor": ("A member that is a tensor.", ["python.enum", "a.Mode", ["list", [["tensor", 0]]]]),
    "torch-generator-str": ("A generator whose state is text.", ["torch.Generator", "cpu", "x"]),
}
for _name, (_title, _node) in BAD.items():
    fault(
        f"value-bad-{_name}",
        f"{_title} A reader that knows the tag refuses it.",
        "TAG-003",
        "tag-base",
        edit("/tree/2/0", ["tag", *_node]),
        "bad-manifest",
        needs=("tag:values",),
    )
