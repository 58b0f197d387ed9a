"""Values of Python's and NumPy's own classes: what comes back, what is refused, and that a file makes nothing else."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import decimal
import enum
import functools
import gc
import io
import json
import logging
import random
import subprocess
import sys
import threading
import types
import warnings
import zoneinfo
from collections import Counter, UserDict, defaultdict, deque
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given

import ckptfmt
from ckptfmt.format import tree as trees
from ckptfmt.format.tags import TAGS
from ckptfmt.frameworks import registry
from ckptfmt.frameworks.adapter import lower
from ckptfmt.frameworks.target import flatten
from ckptfmt.manager import snapshot
from ckptfmt.testing import assert_same_tree
from ckptfmt.testing.strategies import values
from ckptfmt.writing.encoder import encode


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"
    BOTH = (1, 2)


class Bits(enum.IntFlag):
    A = 1
    B = 2


class Point(NamedTuple):
    x: int
    y: Any


@dataclasses.dataclass(frozen=True)
class Config:
    lr: float
    steps: int = dataclasses.field(default=0, init=False)


def there_and_back(tmp_path: Path, tree: Any, **options: Any) -> Any:
    ckptfmt.save(tmp_path / "x.ckpt", tree, overwrite=True, durable=False)
    return ckptfmt.load(tmp_path / "x.ckpt", **options)


@given(values())
def test_any_value_comes_back_and_is_one_leaf(value: Any) -> None:
    encoded = encode({"x": [value]})
    trees.check(encoded.node, ())
    assert_same_tree(trees.decode(encoded.node, [].__getitem__), {"x": [value]})
    assert [path for path, _ in trees.leaves(encoded.node)] == [("x", 0)]
    assert [path for path, _ in flatten({"x": [value]})] == [("x", 0)]


def test_equal_sets_are_the_same_bytes() -> None:
    """Whatever the hashes of their items, which differ from process to process."""
    words = [f"layer{n}" for n in range(50)]
    assert encode(set(words)).node == ["tag", "python.set", None, ["list", sorted(words)]]


@pytest.mark.parametrize("name", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_generators_go_on_and_spawn_as_they_would(tmp_path: Path, name: str) -> None:
    generator = np.random.Generator(getattr(np.random, name)(7))
    generator.random(3), generator.integers(0, 9, 3, dtype=np.uint32), generator.spawn(2)
    found = there_and_back(tmp_path, generator)
    assert_same_tree(found, generator)
    assert (found.random(9) == generator.random(9)).all()
    assert (found.spawn(2)[1].random(9) == generator.spawn(2)[1].random(9)).all()


def test_a_generator_that_cannot_spawn_does_not_learn_it(tmp_path: Path) -> None:
    generator = np.random.Generator(np.random.RandomState(3)._bit_generator)
    found = there_and_back(tmp_path, generator)
    assert found.random() == generator.random()
    with pytest.raises(TypeError):
        found.spawn(1)


def test_older_generators_go_on(tmp_path: Path) -> None:
    ours, theirs = random.Random(5), np.random.RandomState(5)
    ours.gauss(0, 1), theirs.standard_normal()  # each has another one ready
    found = there_and_back(tmp_path, [ours, theirs])
    assert (found[0].gauss(0, 1), found[1].standard_normal()) == (ours.gauss(0, 1), theirs.standard_normal())
    assert (found[0].random(), found[1].rand()) == (ours.random(), theirs.rand())


def test_containers_keep_their_kind_around_tensors(tmp_path: Path) -> None:
    w = np.arange(3.0)
    tree = {
        "queue": deque([w, 1], maxlen=4),
        "default": defaultdict(list, {"a": [w]}),
        "counter": Counter("aab"),
        "args": argparse.Namespace(lr=0.1, w=w, out=Path("runs")),
        "simple": types.SimpleNamespace(self=1),
    }
    found = there_and_back(tmp_path, tree)
    assert_same_tree(found, tree)
    assert found["queue"][0] is found["default"]["a"][0] is found["args"].w
    assert found["default"]["new"] == []
    with ckptfmt.open(tmp_path / "x.ckpt") as checkpoint:
        assert checkpoint["queue/0"].shape == (3,)
        assert checkpoint["args/out"] == Path("runs")
        assert sorted(checkpoint) == ["args/w", "default/a/0", "queue/0"]
    assert ckptfmt.load(tmp_path / "x.ckpt", select="args/*")["args"].lr == 0.1
    target = {**tree, "queue": deque([np.zeros(3), 0], maxlen=4)}
    filled = ckptfmt.load(tmp_path / "x.ckpt", into=target)
    assert_same_tree(filled["queue"], tree["queue"])
    assert filled["queue"][0] is target["queue"][0]


def test_values_in_metadata_and_as_targets(tmp_path: Path) -> None:
    at = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    ckptfmt.save(tmp_path / "a", {"seen": {1, 2}, "at": at}, metadata={"at": at, "args": argparse.Namespace(x={1})})
    with ckptfmt.open(tmp_path / "a") as checkpoint:
        assert checkpoint.metadata == {"at": at, "args": argparse.Namespace(x={1})}
        assert (checkpoint["seen"], checkpoint.tree["at"]) == ({1, 2}, at)
    for option in ("into", "like"):
        found = ckptfmt.load(tmp_path / "a", **{option: {"seen": set(), "at": datetime.datetime.min}})
        assert found == {"seen": {1, 2}, "at": at}
    assert ckptfmt.load(tmp_path / "a", select="seen") == {"seen": {1, 2}}


def test_classes_come_back_where_they_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_classes", {})
    config = Config(0.5)
    object.__setattr__(config, "steps", 7)
    tree = {"mode": Mode.FAST, "both": Mode.BOTH, "bits": Bits.A | Bits.B, "point": Point(1, {2}), "config": config}
    with pytest.warns(ckptfmt.UnknownTagWarning, match=r"register gives? it back|register give it back") as told:
        plain = there_and_back(tmp_path, tree)
    assert plain == {
        "mode": "fast",
        "both": (1, 2),
        "bits": 3,
        "point": {"x": 1, "y": {2}},
        "config": {"lr": 0.5, "steps": 7},
    }
    assert [name in " ".join(str(one.message) for one in told) for name in ("Mode", "Point", "Config")] == [True] * 3
    template = {"mode": Mode.SLOW, "both": Mode.BOTH, "bits": Bits.A, "point": Point(0, set()), "config": Config(0.0)}
    for option in ("like", "into"):
        assert ckptfmt.load(tmp_path / "x.ckpt", **{option: template}) == tree
    for kind in (Mode, Bits, Point, Config):
        assert ckptfmt.register(kind) is kind
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ckptfmt.load(tmp_path / "x.ckpt")
    assert found == tree
    assert [type(value) for value in found.values()] == [type(value) for value in tree.values()]
    with pytest.raises(ckptfmt.InputError, match="expected an Enum, a NamedTuple or a dataclass"):
        ckptfmt.register(dict)


def test_a_value_that_an_enum_has_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ckptfmt.save(tmp_path / "a", {"mode": Mode.FAST})
    other = enum.Enum("Mode", {"SLOW": "slow"}, module=__name__, qualname="Mode")
    monkeypatch.setattr(registry, "_classes", {f"{__name__}.Mode": other})
    with pytest.warns(ckptfmt.UnknownTagWarning, match="was read as its value"):
        assert ckptfmt.load(tmp_path / "a") == {"mode": "fast"}
    with pytest.raises(ckptfmt.MismatchError, match="'fast' is no value of the enum Mode") as raised:
        ckptfmt.load(tmp_path / "a", like={"mode": other.SLOW})  # type: ignore[attr-defined]
    assert raised.value.tensor == "mode"


def test_nothing_that_a_file_names_is_looked_up() -> None:
    for node in (
        ["tag", "python.enum", "os.system", "echo owned"],
        ["tag", "collections.defaultdict", "os.getpid", ["dict", [], []]],
    ):
        trees.check(node, ())
        with pytest.warns(ckptfmt.UnknownTagWarning):
            found = trees.decode(node, [].__getitem__, restores=registry.RESTORES)
        assert type(found) in (str, dict)


def test_a_set_of_chosen_keys_is_refused_in_time() -> None:
    """Ints that all have one hash."""
    node = [
        "tag",
        "python.set",
        None,
        ["list", [["int", (n * (2**61 - 1)).to_bytes(16, "big")] for n in range(1, 30_000)]],
    ]
    trees.check(node, ())
    with pytest.raises(ckptfmt.CkptError) as raised:
        trees.decode(node, [].__getitem__)
    assert raised.value.code == "limit-exceeded"


def test_paths_of_other_systems() -> None:
    here = trees.decode(encode([Path("a/b"), PureWindowsPath("c:\\x"), PurePosixPath("/x")]).node, [].__getitem__)
    assert [type(path) for path in here] == [type(Path()), PureWindowsPath, PurePosixPath]
    assert type(trees.decode(["tag", "pathlib.Path", "windows", "c:\\x"], [].__getitem__)) is PureWindowsPath


def test_snapshots_hold_what_was_there() -> None:
    buffers = snapshot.SnapshotBuffers()
    rng, tree = np.random.default_rng(1), {"w": np.zeros(2), "q": deque([1]), "c": Counter("a"), "m": Mode.FAST}
    tree |= {"rng": rng, "dice": random.Random(1)}
    for _ in range(2):  # the second time as one of the same arrays
        taken = buffers.take(tree).tree
        expected = encode(tree).node
        tree["q"].append(2), tree["c"].update("b"), rng.random(), tree["dice"].random()  # type: ignore[attr-defined]
        assert encode(taken).node == expected != encode(tree).node


# ---- what is refused


class Plain:
    def __init__(self) -> None:
        self.a = 1


class Words(dict[str, int]):
    pass


REFUSED: dict[str, tuple[Any, str, str]] = {
    "function": (print, "the function builtins.print", "store its name"),
    "lambda": (lambda: 0, "<lambda>", "store its name"),
    "method": (Plain.__init__, "the function", "store its name"),
    "class": (Plain, "the class test_values.Plain", "store its name"),
    "module": (np, "a builtins.module", "store its name"),
    "partial": (functools.partial(print), "a functools.partial", "the name of its function"),
    "file": (io.StringIO("x"), "a _io.StringIO", "value.tell()"),
    "iterator": (iter([1]), "a builtins.list_iterator", "store list(value)"),
    "generator": ((n for n in [1]), "a builtins.generator", "store list(value)"),
    "lock": (threading.Lock(), "lock", "leave it out"),
    "logger": (logging.getLogger("x"), "a logging.Logger", "leave it out"),
    "object": (Plain(), "a test_values.Plain", "state_dict()"),
    "bare object": (object(), "a builtins.object", "plain values or arrays"),
    "dict of its own": (Words(), "a test_values.Words", "store dict(value)"),
    "UserDict": (UserDict(), "a collections.UserDict", "value.data"),
    "mapping": (types.MappingProxyType({}), "a builtins.mappingproxy", "store dict(value)"),
    "list in a set": ({(1, (2, types.SimpleNamespace))}, "the class types.SimpleNamespace", "store its name"),
    "object in a set": ({Config(1.0)}, "a builtins.set", "store list(value)"),
    "slice of floats": (slice(0.5), "a builtins.slice", "store a tuple"),
    "time zone": (datetime.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")), "a datetime.datetime", "astimezone"),
    "dtype": (np.dtype("f4"), "a numpy.dtype", "store str(value)"),
    "bit generator": (np.random.PCG64(1), "PCG64", "np.random.Generator(value)"),
    "memory": (memoryview(b"x"), "a builtins.memoryview", "store bytes(value)"),
    "masked array": (np.ma.zeros(2), "MaskedArray", "value.mask"),
    "matrix": (np.ones((1, 1)).view(np.matrix), "matrix", "np.asarray(value)"),
    "array of objects": (np.array([None]), "a tensor of dtype object", "value.tolist()"),
    "array of text": (np.array(["x"]), "a tensor of dtype <U1", "value.tolist()"),
    "array of records": (np.zeros(1, [("f", "i4")]), "a tensor of dtype [('f', '<i4')]", "dict of its fields"),
    "long double": (np.longdouble(1), "a scalar of dtype", "astype(np.float64)"),
    "float key": ({1.5: 0}, "the key 1.5 of type float", "str(key)"),
    "tuple key": ({(1, 2): 0}, "the key (1, 2) of type tuple", "list(value.items())"),
    "enum key": ({Mode.FAST: 0}, "of type Mode", "key.name"),
    "NumPy key": ({np.int64(1): 0}, "of type int64", "int(key)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_named_with_what_helps(what: str) -> None:
    value, found, advice = REFUSED[what]
    report = ckptfmt.check({"a": [value]})
    (refusal,) = report.refused
    assert not report.ok
    assert found in refusal.found
    assert advice in refusal.advice
    assert refusal.path.startswith("a/0")
    assert str(refusal) in str(report)


def test_a_default_that_has_no_name_is_refused() -> None:
    """In a program of its own: to JAX, where it was imported, a defaultdict is a node that `like=` gives back."""
    code = "import ckptfmt, collections; print(ckptfmt.check({'x': collections.defaultdict(lambda: 0)}))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "cannot store a collections.defaultdict at 'x'" in said
    assert "store dict(value)" in said


def test_all_that_is_refused_is_named_at_once(tmp_path: Path) -> None:
    tree = {"w": np.ones(2), "bad": [value for value, _, _ in REFUSED.values()], "good": {1}}
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.save(tmp_path / "a", tree)
    error = raised.value
    assert (error.code, error.tensor) == ("unsupported-leaf", "bad/0")
    assert len(error.report.refused) == len(REFUSED)
    assert str(error).count("cannot store") == 10
    assert f"and at {len(REFUSED) - 10} more places" in str(error)
    assert error.report == ckptfmt.check(tree)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ckptfmt.InputError, match="at 'bad/0'"):
        ckptfmt.check(tree).raise_refusals()


def test_check_says_what_a_save_would() -> None:
    assert ckptfmt.check({"a": np.ones(2)}, metadata={"b": {1}}).ok
    ckptfmt.check({"a": 1}).raise_refusals()
    assert str(ckptfmt.check({})) == "all of it can be saved"
    (refusal,) = ckptfmt.check({}, metadata={"b": [np.ones(2)]}).refused
    assert str(refusal) == "cannot store a tensor in metadata at 'b/0': put it into the tree"
    endless: list[Any] = [object()]
    endless.append(endless)
    assert [refusal.code for refusal in ckptfmt.check(endless).refused][-1] == "too-deep"
    (refusal,) = ckptfmt.check({"k" * 70_000: np.zeros(1)}).refused
    assert refusal.code == "name-too-long"


def test_every_tag_that_a_program_makes_is_one_that_a_value_has() -> None:
    """The tables of both ways agree: what is lowered is made again, under the same name."""
    samples = [
        *(Counter(), defaultdict(int), deque(), types.SimpleNamespace(), argparse.Namespace(), bytearray(), set()),
        *(frozenset(), range(1), slice(1), datetime.date.min, datetime.time(), datetime.datetime.min),
        *(datetime.timedelta(), datetime.UTC, decimal.Decimal(1), __import__("fractions").Fraction(1)),
        *(__import__("uuid").UUID(int=1), PurePosixPath(), Path(), random.Random(1), np.random.default_rng(1)),
        *(np.random.RandomState(1),),
    ]
    known = {lower(value).tag for value in samples}  # type: ignore[union-attr]
    native = ("collections.OrderedDict", *(name for name in TAGS if name.startswith("numpy.") and name.count(".") == 1))
    assert known == {name for name, tag in TAGS.items() if tag.restore is not None} - set(native)


def test_what_is_skipped_is_left_out(tmp_path: Path) -> None:
    tree = {
        "w": np.ones(2),
        "hparams": {"act": print, "lr": 0.1, "at": [1, {"f": len}]},
        "args": argparse.Namespace(f=len),
    }
    skip = ["hparams/act", "**/f"]
    assert not ckptfmt.check(tree).ok
    assert ckptfmt.check(tree, skip=skip).ok
    ckptfmt.save(tmp_path / "a", tree, skip=skip)
    expected = {"w": np.ones(2), "hparams": {"lr": 0.1, "at": [1, {}]}, "args": argparse.Namespace()}
    assert_same_tree(ckptfmt.load(tmp_path / "a"), expected)
    with ckptfmt.CheckpointManager(tmp_path / "run", skip=skip) as manager:
        manager.save(1, tree, block=False)
        manager.save(2, tree)
        manager.wait()
        for step in (1, 2):
            assert_same_tree(manager.restore(step), expected)
    with pytest.raises(ckptfmt.InputError, match="skip="):
        ckptfmt.save(tmp_path / "b", tree, skip=[1])  # type: ignore[list-item]


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(tmp_path: Path, enabled: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        there_and_back(tmp_path, {"a": [1]})
        with pytest.raises(ckptfmt.InputError):
            ckptfmt.save(tmp_path / "b", {"a": print})
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()


def test_values_go_along_with_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_classes", {f"{__name__}.Mode": Mode})
    extra = {
        "counts": [Counter("aab"), Counter(), defaultdict(list, {"k": [1]})],
        "args": argparse.Namespace(x={1, 2}, queue=deque([Counter("a")], 3)),
        "day": datetime.date(2024, 1, 1),
        "dice": random.Random(1),
        "mode": (Mode.FAST,),
    }
    ckptfmt.save(tmp_path / "a", {"model": {"w": np.ones(3)}, "extra": extra}, schema=("s", "1"))
    rules = [{"from": "w", "to": "v"}]
    document = {"ckptfmt_migration": 1, "schema": "s", "from": "1", "to": "2", "rules": rules, "at": "model"}
    (tmp_path / "m.json").write_text(json.dumps(document))
    expected = {"model": {"v": np.ones(3)}, "extra": extra}
    with ckptfmt.open(tmp_path / "a", schema="2", migrations=tmp_path / "m.json") as view:
        assert view["extra/day"] == datetime.date(2024, 1, 1)
        for found in (view.load(), view.load(like=expected), view.load(into=expected)):
            assert_same_tree(found, expected)
        assert_same_tree(view.load(select="extra/**"), {"extra": extra})
    ckptfmt.migrate(tmp_path / "a", tmp_path / "b", schema="2", migrations=tmp_path / "m.json")
    assert_same_tree(ckptfmt.load(tmp_path / "b"), expected)


def test_values_on_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    tree = {"seen": {1, 2}, "day": datetime.date(2024, 1, 2), "c": Counter("aab"), "dice": random.Random(1)}
    ckptfmt.save(tmp_path / "a", tree)
    ckptfmt.save(tmp_path / "b", {**tree, "day": datetime.date(2024, 1, 3), "c": {"a": 2, "b": 1}})
    shown = run("inspect", tmp_path / "a").stdout
    for text in ("{1, 2}", "datetime.date(2024, 1, 2)", "Counter({'a': 2, 'b': 1})", "Random(...)"):
        assert text in shown
    assert run("get", tmp_path / "a", "day").stdout.strip() == "datetime.date(2024, 1, 2)"
    document = json.loads(run("inspect", "--json", tmp_path / "a").stdout)["tree"]
    assert document["seen"] == {"$tag": "python.set", "param": None, "child": [1, 2]}
    changes = ckptfmt.diff(tmp_path / "a", tmp_path / "b").changed
    assert [(change.path, change.kind) for change in changes] == [("day", "value"), ("c", "tag")]


def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ckptfmt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_a_variable_of_keras_is_refused_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    (refusal,) = ckptfmt.check({"v": keras.Variable(np.ones(2))}).refused
    assert refusal.advice == "store value.numpy()"


@pytest.mark.parametrize("micro", [1, -1, 999_999, 1_000_001, -86_399_999_999, 3_600_000_000])
def test_offsets_of_less_than_a_second_are_kept(tmp_path: Path, micro: int) -> None:
    """Which Python's own `fromisoformat` takes for none."""
    zone = datetime.timezone(datetime.timedelta(microseconds=micro))
    moment = datetime.datetime(2026, 1, 2, 3, tzinfo=zone)
    tree = {"zone": zone, "time": moment.timetz(), "moment": moment}
    ckptfmt.save(tmp_path / "a.ckpt", tree)
    found = ckptfmt.load(tmp_path / "a.ckpt")
    assert found == tree
    assert [found[name].utcoffset() for name in ("time", "moment")] == [datetime.timedelta(microseconds=micro)] * 2
