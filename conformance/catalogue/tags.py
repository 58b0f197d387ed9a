"""Tagged nodes: known ones, unknown ones, and wrong ones. SPEC.md section 13."""

from __future__ import annotations

import struct
from typing import Any

from ..build import Checkpoint
from ..model import Scalar, Tag, Tensor, tensor
from . import edit, fault, valid

TIMES = Tensor("int64", (3,), struct.pack("<3q", 0, 1_600_000_000, -(2**63)))
ORDERED, NUMPY = "tag:collections.OrderedDict", "tag:numpy"
ONE = Scalar("int64", struct.pack("<q", 5))

KNOWN: dict[str, tuple[str, str, Any]] = {
    "ordered-dict": ("An ordered dict.", ORDERED, Tag("collections.OrderedDict", None, {"b": 1, "a": {"c": TIMES}})),
    "ordered-dict-empty": ("An empty ordered dict.", ORDERED, Tag("collections.OrderedDict", None, {})),
    "datetime64": ("A tensor of times.", NUMPY, Tag("numpy.datetime64", "s", TIMES)),
    "datetime64-count": ("Times in units of 25 seconds.", NUMPY, Tag("numpy.datetime64", "25s", TIMES)),
    "datetime64-generic": ("Times without a unit.", NUMPY, Tag("numpy.datetime64", "generic", TIMES)),
    "datetime64-scalar": ("One time.", NUMPY, Tag("numpy.datetime64", "ns", ONE)),
    "timedelta64": ("A tensor of spans of time.", NUMPY, Tag("numpy.timedelta64", "D", TIMES)),
    "timedelta64-scalar": ("One span of time.", NUMPY, Tag("numpy.timedelta64", "ms", ONE)),
    "str": ("A NumPy string, with zeros at its end.", NUMPY, Tag("numpy.str_", None, "ü\0\0")),
    "bytes": ("NumPy bytes, with zeros at their end.", NUMPY, Tag("numpy.bytes_", None, b"a\0\0")),
}
for _name, (_title, _feature, _tag) in KNOWN.items():
    valid(
        f"tag-{_name}",
        f"{_title} A reader that does not know the tag gives its child.",
        "TAG-001 TAG-002",
        Checkpoint({"t": [_tag]}),
    )
for _unit in ("Y", "M", "W", "h", "m", "us", "ps", "fs", "as", "2147483647s"):
    valid(
        f"tag-unit-{_unit.lower() if _unit != 'M' else 'month'}",
        f"The unit {_unit}.",
        "TAG-003",
        Checkpoint({"t": Tag("numpy.timedelta64", _unit, ONE)}),
    )
UNKNOWN = {
    "unknown": (
        "An unknown tag is read as its child, and named once.",
        [Tag("my.thing", {"a": [1]}, {"x": TIMES}), Tag("my.thing", None, 2)],
    ),
    "module-function": (
        "A tag that names a function: nothing is looked up or called.",
        Tag("os.system", "echo owned > owned", "rm -rf"),
    ),
    "builtin": ("A tag that names a builtin.", Tag("builtins.eval", None, "1 + 1")),
    "import-path": ("A tag that names a module that could be imported.", Tag("this", None, None)),
    "nested-unknown": ("Unknown tags within each other.", Tag("a", None, Tag("b", None, [Tag("a", 1, 1)]))),
    "empty-name": ("A tag with an empty name.", Tag("", None, 1)),
}
for _name, (_title, _tree) in UNKNOWN.items():
    _checkpoint = Checkpoint({"t": _tree})
    valid(f"tag-{_name}", _title, "TAG-001 TAG-002 SEC-001", _checkpoint)
    valid(
        f"tag-{_name}-list",
        _title,
        "TAG-001 TAG-002 SEC-001",
        _checkpoint,
        {"op": "list"},
        {"tree": _checkpoint.values()[0]},
    )
valid(
    "tag-path",
    "A tag adds no segment to a path.",
    "TAG-001",
    Checkpoint({"t": Tag("x", None, {"a": TIMES})}),
    {"op": "read", "path": ["t", "a"]},
)
_NESTED = Checkpoint({"t": Tag("example.org/outer", 1, Tag("example.org/inner", 2, [TIMES]))})
valid(
    "tag-path-nested",
    "What stands at the path of two tags is the outer one.",
    "TREE-018 TAG-001",
    _NESTED,
    {"op": "read", "path": ["t"]},
)
valid(
    "tag-path-known",
    "What stands at the path of a tagged node is that, not its child.",
    "TREE-018",
    Checkpoint({"t": Tag("collections.OrderedDict", None, {"a": 1})}),
    {"op": "read", "path": ["t"]},
    needs=("reader", ORDERED),
)
valid(
    "tag-alias",
    "One tensor, tagged and plain.",
    "TREE-010 TAG-001",
    Checkpoint({"plain": TIMES, "times": Tag("x", None, TIMES)}),
)
_deep: Any = []
for _ in range(254):
    _deep = [_deep]
valid(
    "tag-deepest",
    "Param and child of a tag nested as deeply as is allowed.",
    "TREE-012 TAG-001",
    Checkpoint(Tag("x", _deep, _deep)),
)
valid(
    "tag-base", "A plain value and a tensor.", "TAG-001", Checkpoint({"v": 1, "t": TIMES, "f": tensor("float64", (3,))})
)
KEY, DATA = tensor("uint32", (2,), "key"), tensor("float32", (2, 3), "parameter")
_SCALED = {"data": DATA, "shape": (2, 3), "stride": (3, 1)}
FRAMEWORKS = {
    "torch-parameter": ("A parameter of torch.", "tag:torch", Tag("torch.Parameter", True, DATA)),
    "torch-state-dict": (
        "A state dict of torch, with the versions of its modules.",
        "tag:torch",
        Tag(
            "torch.state_dict",
            {"": {"version": 1}, "norm": {"version": 2, "more": {"weight.version": 1}}},
            Tag("collections.OrderedDict", None, {"norm.weight": DATA}),
        ),
    ),
    "numpy-ndarray": ("A NumPy array among tensors of a framework.", NUMPY, Tag("numpy.ndarray", None, DATA)),
    "torch-subclass": (
        "A quantised tensor of torch, and a parameter made of such.",
        "tag:torch",
        [
            Tag("torch.tensor_subclass", "a.Scaled", _SCALED | {"context": Tag("torch.dtype", None, "bfloat16")}),
            Tag(
                "torch.tensor_subclass",
                "a.Twice",
                {
                    "inner": Tag("torch.tensor_subclass", "a.Scaled", _SCALED | {"context": None}),
                    **{"context": [1, "x"], "shape": (), "stride": (), "requires_grad": False},
                },
            ),
        ],
    ),
    "torch-size": ("A size of torch.", "tag:torch", Tag("torch.Size", None, (2, 3))),
    "torch-dtype": ("A dtype of torch.", "tag:torch", Tag("torch.dtype", None, "bfloat16")),
    "torch-device": ("A device that no machine has.", "tag:torch", Tag("torch.device", None, "cuda:999")),
    "torch-saved": (
        "Bytes that torch.save made: they are never unpickled.",
        "tag:torch",
        Tag("torch.saved", None, b"cos\nsystem\n(S'x'\ntR."),
    ),
    "jax-key": ("Random keys of JAX.", "tag:jax", Tag("jax.key", "threefry2x32", KEY)),
    "jax-pytree": (
        "A node of a JAX pytree.",
        "tag:jax",
        Tag("jax.pytree", "flax.struct.State", {"step": 1, "w": DATA}),
    ),
    "namedtuple": ("A named tuple.", "tag:python", Tag("python.namedtuple", "collections.Point", {"x": 1, "y": KEY})),
    "dataclass": (
        "A dataclass whose class is a function.",
        "tag:python",
        Tag("python.dataclass", "os.system", {"command": "true"}),
    ),
}
for _name, (_title, _feature, _tag) in FRAMEWORKS.items():
    _checkpoint = Checkpoint({"t": [_tag]})
    valid(
        f"tag-{_name}",
        f"{_title} A reader that cannot make it gives its child.",
        "TAG-004 TAG-001 TAG-002 SEC-001",
        _checkpoint,
        needs=("reader", _feature),
    )
    valid(
        f"tag-{_name}-list",
        f"{_title} It is listed as its child by a reader that cannot make it.",
        "TAG-004 TAG-001 TAG-002 SEC-001",
        _checkpoint,
        {"op": "list"},
        {"tree": _checkpoint.values()[0]},
        needs=("reader", _feature),
    )
TIME = ["scalar", "int64", bytes(8)]
_KEYS, _ITEMS = ["data", "context", "shape", "stride"], [None, ["tuple", [2]], ["tuple", [1]]]
_MADE = ["dict", _KEYS, [["tensor", 0], *_ITEMS]]
BAD: dict[str, tuple[str, str, Any]] = {
    "ordered-dict-list": (
        "An ordered dict of a list.",
        ORDERED,
        ["tag", "collections.OrderedDict", None, ["list", []]],
    ),
    "ordered-dict-param": (
        "An ordered dict with a param.",
        ORDERED,
        ["tag", "collections.OrderedDict", 1, ["dict", [], []]],
    ),
    "ordered-dict-leaf": ("An ordered dict of a number.", ORDERED, ["tag", "collections.OrderedDict", None, 1]),
    "str-bytes": ("A NumPy string of bytes.", NUMPY, ["tag", "numpy.str_", None, b"a"]),
    "str-param": ("A NumPy string with a param.", NUMPY, ["tag", "numpy.str_", "U5", "a"]),
    "bytes-str": ("NumPy bytes of a string.", NUMPY, ["tag", "numpy.bytes_", None, "a"]),
    "time-no-param": ("A time without a unit.", NUMPY, ["tag", "numpy.datetime64", None, TIME]),
    "time-unit": ("An unknown unit.", NUMPY, ["tag", "numpy.datetime64", "century", TIME]),
    "time-unit-empty": ("An empty unit.", NUMPY, ["tag", "numpy.datetime64", "", TIME]),
    "time-unit-zero": ("A unit with the count 0.", NUMPY, ["tag", "numpy.datetime64", "0s", TIME]),
    "time-unit-leading-zero": ("A count with a leading zero.", NUMPY, ["tag", "numpy.datetime64", "05s", TIME]),
    "time-unit-2-31": ("A count of 2³¹.", NUMPY, ["tag", "numpy.datetime64", "2147483648s", TIME]),
    "time-unit-digits": ("A count of eleven digits.", NUMPY, ["tag", "numpy.datetime64", "10000000000s", TIME]),
    "time-unit-generic": ("A count before `generic`.", NUMPY, ["tag", "numpy.datetime64", "2generic", TIME]),
    "time-unit-blank": ("A blank before the unit.", NUMPY, ["tag", "numpy.datetime64", "1 s", TIME]),
    "time-unit-line": ("A line feed after the unit.", NUMPY, ["tag", "numpy.datetime64", "s\n", TIME]),
    "time-float": ("Times of a tensor of floats.", NUMPY, ["tag", "numpy.datetime64", "s", ["tensor", 1]]),
    "time-int32": (
        "A time of an int32 scalar.",
        NUMPY,
        ["tag", "numpy.timedelta64", "s", ["scalar", "int32", bytes(4)]],
    ),
    "torch-parameter-int": ("A parameter that is a number.", "tag:torch", ["tag", "torch.Parameter", True, 1]),
    "torch-parameter-param": (
        "A parameter without its bool.",
        "tag:torch",
        ["tag", "torch.Parameter", None, ["tensor", 0]],
    ),
    "torch-state-dict-dict": (
        "A state dict of a plain dict.",
        "tag:torch",
        ["tag", "torch.state_dict", ["dict", [], []], ["dict", [], []]],
    ),
    "torch-state-dict-param": (
        "A state dict without its versions.",
        "tag:torch",
        ["tag", "torch.state_dict", None, ["tag", "collections.OrderedDict", None, ["dict", [], []]]],
    ),
    "torch-state-dict-version": (
        "A state dict whose versions are numbers.",
        "tag:torch",
        ["tag", "torch.state_dict", ["dict", [""], [1]], ["tag", "collections.OrderedDict", None, ["dict", [], []]]],
    ),
    "numpy-ndarray-number": ("An array that is a number.", NUMPY, ["tag", "numpy.ndarray", None, 5]),
    "numpy-ndarray-param": ("An array with a param.", NUMPY, ["tag", "numpy.ndarray", "f4", ["tensor", 0]]),
    "torch-subclass-param": (
        "A tensor made of others whose class is a number.",
        "tag:torch",
        ["tag", "torch.tensor_subclass", 5, _MADE],
    ),
    "torch-subclass-list": (
        "A tensor made of others that is a list.",
        "tag:torch",
        ["tag", "torch.tensor_subclass", "a.Scaled", ["list", [["tensor", 0]]]],
    ),
    **{
        f"torch-subclass-{name}": (
            f"A tensor made of others {what}.",
            "tag:torch",
            ["tag", "torch.tensor_subclass", "a.Scaled", ["dict", [*_KEYS, *keys], [["tensor", 0], *_ITEMS, *items]]],
        )
        for name, what, keys, items in (
            ("key", "with a key that is a number", [0], [None]),
            ("trained", "whose requires_grad is a number", ["requires_grad"], [1]),
        )
    },
    **{
        f"torch-subclass-{name}": (
            f"A tensor made of others {what}.",
            "tag:torch",
            ["tag", "torch.tensor_subclass", "a.Scaled", ["dict", keys, [["tensor", 0], *items]]],
        )
        for name, what, keys, items in (
            ("context", "without a context", ["data", "shape", "stride"], [["tuple", [2]], ["tuple", [1]]]),
            ("shape", "without a shape", ["data", "context", "stride"], [None, ["tuple", [1]]]),
            ("negative", "with a negative side", _KEYS, [None, ["tuple", [-2]], ["tuple", [1]]]),
            ("stride", "whose strides are a list", _KEYS, [None, ["tuple", [2]], ["list", [1]]]),
        )
    },
    "torch-size-list": ("A size that is a list.", "tag:torch", ["tag", "torch.Size", None, ["list", [1]]]),
    "torch-size-param": ("A size with a param.", "tag:torch", ["tag", "torch.Size", 1, ["tuple", [1]]]),
    "torch-dtype-int": ("A dtype that is a number.", "tag:torch", ["tag", "torch.dtype", None, 5]),
    "torch-device-param": ("A device with a param.", "tag:torch", ["tag", "torch.device", "cuda", "cuda:0"]),
    "torch-saved-str": ("What torch.save made as a str.", "tag:torch", ["tag", "torch.saved", None, "x"]),
    "jax-key-float": ("Keys whose data are floats.", "tag:jax", ["tag", "jax.key", "threefry2x32", ["tensor", 1]]),
    "jax-key-param": ("Keys without a generator.", "tag:jax", ["tag", "jax.key", None, ["tensor", 0]]),
    "jax-pytree-list": ("A pytree node of a list.", "tag:jax", ["tag", "jax.pytree", "a.B", ["list", []]]),
    "namedtuple-tuple": (
        "A named tuple of a tuple.",
        "tag:python",
        ["tag", "python.namedtuple", "a.B", ["tuple", [1]]],
    ),
    "dataclass-param": (
        "A dataclass without its class.",
        "tag:python",
        ["tag", "python.dataclass", None, ["dict", [], []]],
    ),
    "time-number": ("A time of a plain number.", NUMPY, ["tag", "numpy.timedelta64", "s", 5]),
}
for _name, (_title, _feature, _node) in BAD.items():
    fault(
        f"tag-bad-{_name}",
        f"{_title} A reader that knows the tag refuses it.",
        "TAG-003",
        "tag-base",
        edit("/tree/2/0", _node),
        "bad-manifest",
        needs=(_feature,),
    )
