"""Files of `torch.save` from ordinary training scripts, beside what torch itself loads of them: what is data is read,
what is not is named and can be left out, and no class of the file is looked up."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import decimal
import enum
import fractions
import pathlib
import pickle
import random
import types
import uuid
import zoneinfo
from collections import Counter, defaultdict, deque, namedtuple
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hostile import refused, torch_zip

import ckptfmt
from ckptfmt.frameworks.target import rebuild
from ckptfmt.testing.equality import first_difference

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.quantize_per"),
    pytest.mark.filterwarnings("ignore:Sparse"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested"),
]


class Mode(enum.Enum):
    FAST = 1


@dataclasses.dataclass
class Config:
    lr: float = 1.0

    class Inner:
        pass


class WithItems(dict[int, int]):
    def __reduce__(self) -> Any:
        return Config, (), {"a": 1}, iter([1, 2]), iter([(1, 2)])


Point = namedtuple("Point", "x y")


class Subclass(torch.Tensor):
    pass


def converted(tmp_path: Path, value: Any, *, protocol: int = 2, legacy: bool = False, allow_loss: bool = True) -> Any:
    """A saved value as the torch adapter loads it, and what was lost of it."""
    torch.save(value, tmp_path / "a.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    report = ckptfmt.convert(tmp_path / "a.pt", tmp_path / "a.ckpt", allow_loss=allow_loss, overwrite=True)
    return ckptfmt_torch.load(tmp_path / "a.ckpt"), report.losses


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same, in kind and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray | np.generic):
        first, second = (value.astype(value.dtype.newbyteorder("=")) for value in (one, other))
        return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()
    return bool(one == other)


DATA = {
    "a best metric": np.float64(0.5),
    "scalars": [np.float32(0.1), np.int64(-3), np.bool_(True), np.uint8(255), np.complex64(1j), np.float16(2)],
    "text": [np.str_("é"), np.bytes_(b"ab")],
    "the state of NumPy's generator": np.random.RandomState(1).get_state(),
    "the state of a new generator": np.random.default_rng(1).bit_generator.state,
    "the state of Python's generator": random.Random(1).getstate(),
    "arrays": [np.arange(6).reshape(2, 3), np.asfortranarray(np.ones((2, 3), "f2")), np.zeros((0, 2)), np.array(3)],
    "arrays of the other byte order": [np.arange(3, dtype=">i4"), np.arange(6, dtype=">f8").reshape(2, 3).T],
    "bools, and every byte": [np.array([True, False]), np.arange(256, dtype="u1")],
    "arrays of ml_dtypes": [np.ones(3, ml_dtypes.bfloat16), np.ones(2, ml_dtypes.float8_e4m3fn)],
    "sizes, dtypes, devices": [torch.Size([2, 3]), torch.bfloat16, torch.device("cuda", 1)],
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("what", DATA)
def test_data_is_read(tmp_path: Path, what: str, protocol: int, legacy: bool) -> None:
    saved = {"w": torch.arange(3.0), "x": DATA[what]}
    found, losses = converted(tmp_path, saved, protocol=protocol, legacy=legacy, allow_loss=False)
    assert losses == ()
    assert same(found, torch.load(tmp_path / "a.pt", weights_only=False)), found


def test_times_are_read(tmp_path: Path) -> None:
    times = [np.datetime64(3, "ns"), np.timedelta64(4, "25s"), np.arange(3).astype("M8[D]"), np.datetime64("NaT", "s")]
    torch.save(times, tmp_path / "a.pt")
    assert ckptfmt.convert(tmp_path / "a.pt", tmp_path / "a.ckpt").losses == ()
    assert same(ckptfmt.load(tmp_path / "a.ckpt"), times)


KINDS = {
    "Counter": Counter([30, 30, 80]),
    "defaultdict": defaultdict(list, {"loss": [1.0, 2.0], "t": [torch.ones(2)]}),
    "defaultdicts of builtins": [defaultdict(kind) for kind in (bool, int, float, complex, str, bytes, tuple, set)],
    "defaultdict without a factory": defaultdict(None, {"a": 1}),
    "deque": deque([1, 2], maxlen=5),
    "deque of tensors": deque([torch.ones(2)]),
    "bytearray": bytearray(b"ab\xff"),
    "set": {3, 1, "a", (1, None)},
    "set of sets": {frozenset({1, frozenset("a")}), (1, frozenset())},
    "frozenset": frozenset("ab"),
    "paths": [pathlib.PurePosixPath("runs/a.pt"), pathlib.Path("x"), pathlib.PureWindowsPath("c:\\runs", "a.pt")],
    "Namespace": argparse.Namespace(lr=1.0, path=pathlib.Path("a")),
    "SimpleNamespace": types.SimpleNamespace(a=1, b=[torch.ones(2)]),
    "dates": [datetime.date(2024, 2, 29), datetime.datetime(2024, 1, 1, 2, 3, 4, 5), datetime.time(1, 2)],
    "the second of two times": datetime.datetime(2024, 10, 27, 2, fold=1),
    "time zones": [datetime.UTC, datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)],
    "a span": datetime.timedelta(-1, 3, 7),
    "numbers": [decimal.Decimal("1.50"), fractions.Fraction(-3, 4), fractions.Fraction(7)],
    "UUID": uuid.UUID(int=7),
    "range and slice": [range(1, 9, 2), slice(None, 3)],
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("what", KINDS)
def test_plain_values_keep_their_kind(tmp_path: Path, what: str, protocol: int) -> None:
    saved = {"w": torch.ones(2), "x": KINDS[what]}
    if what == "the second of two times":  # which earlier protocols forget
        protocol = max(protocol, 4)
    found, losses = converted(tmp_path, saved, protocol=protocol, allow_loss=False)
    assert losses == ()
    assert first_difference(plain_arrays(found), plain_arrays(saved)) is None
    assert ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "b.pt").losses == ()
    back = torch.load(tmp_path / "b.pt", weights_only=False)
    assert first_difference(plain_arrays(back), plain_arrays(saved)) is None


def test_scalars_of_numpy_go_into_pt_as_tensors_which_is_told(tmp_path: Path) -> None:
    """`torch.load(weights_only=True)` takes no scalars of NumPy."""
    saved = {"lr": np.float64(0.5), "groups": [{"lr": np.float32(0.1)}], "best": np.bool_(True), "plain": 0.5}
    _, losses = converted(tmp_path, saved, allow_loss=False)
    assert losses == ()
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "b.pt")
    places = {"lr": "numpy.float64", "groups/0/lr": "numpy.float32", "best": "numpy.bool"}
    assert raised.value.report == tuple(
        ("value", path, f"{kind} becomes a tensor without axes") for path, kind in places.items()
    )
    ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "b.pt", allow_loss="value")
    back = torch.load(tmp_path / "b.pt", weights_only=True)
    assert type(back["plain"]) is float
    assert back["lr"].dtype == torch.float64
    assert back["lr"].item() == 0.5


def test_what_only_parts_of_go_into_pt_is_told(tmp_path: Path) -> None:
    values = {
        "generator": np.random.default_rng(1),
        "old": np.random.RandomState(1),
        "mode": Mode.FAST,
        "config": Config(),
    }
    ckptfmt.save(tmp_path / "a.ckpt", {"w": np.ones(2), **values})
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "a.pt")
    tags = ("numpy.random.Generator", "numpy.random.RandomState", "python.enum", "python.dataclass")
    told = {(kind, path): message for kind, path, message in raised.value.report}
    for name, tag in zip(values, tags, strict=True):
        assert told["value", name] == f"the tag {tag} is left out"


def plain_arrays(tree: Any) -> Any:
    """The tree with arrays for tensors."""
    return rebuild(tree, lambda _, leaf: leaf.numpy() if isinstance(leaf, torch.Tensor) else leaf)


def test_a_generator_of_python_keeps_its_state(tmp_path: Path) -> None:
    saved = random.Random(3)
    saved.gauss(0, 1)
    found, losses = converted(tmp_path, {"x": saved}, allow_loss=False)
    assert losses == ()
    assert type(found["x"]) is random.Random
    assert found["x"].getstate() == saved.getstate()


OTHERS = {
    "defaultdict of a function": (defaultdict(dict.fromkeys, {"a": 1}), {"a": 1}),
    "array of text": (np.array([["a", "é"]]), [["a", "é"]]),
    "version of torch": (torch.__version__, str(torch.__version__)),
    "keys that are scalars": ({np.int64(3): 1, (1, "a"): 2}, {"3": 1, "(1, 'a')": 2}),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("what", OTHERS)
def test_other_kinds_become_plain_ones_and_say_so(tmp_path: Path, what: str, protocol: int) -> None:
    saved, expected = OTHERS[what]
    found, losses = converted(tmp_path, {"w": torch.ones(2), "x": saved}, protocol=protocol)
    assert same(found["x"], expected), found["x"]
    assert losses
    assert all(loss.path.startswith("x") and "become" in loss.message for loss in losses)


def unknown() -> dict[str, Any]:
    return {
        "dataclass": Config(),
        "nested class": Config.Inner(),
        "class": Config,
        "enum": Mode.FAST,
        "namedtuple": Point(1, 2),
        "datetime in a zone": datetime.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
        "module": torch.nn.Linear(2, 2),
        "method": Config().__eq__,
        "function": np.tanh,
        "generator": np.random.default_rng(1),
        "objects": np.array([None, {}], object),
        "records": np.zeros(2, "i4,f4"),
        "long double": np.zeros(2, np.longdouble),
        "masked": np.ma.masked_array([1, 2], [0, 1]),
        "matrix": np.ones((2, 2)).view(np.matrix),
        "dtype": np.dtype("f4"),
        "exception": ValueError("x"),
        "meta": torch.ones(2, device="meta"),
        "subclass of dict": type(
            "Own", (dict,), {"__reduce__": lambda self: (Config, (), None, None, iter([(1, 2)]))}
        )(),
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_is_unknown_is_named_at_every_place_and_left_out(tmp_path: Path, protocol: int) -> None:
    values = unknown()
    saved = {"w": torch.arange(3.0), "args": values, "steps": [1, Mode.FAST, 3], "of": {Mode.FAST: 1, 2: 2}}
    torch.save(saved, tmp_path / "a.pt", pickle_protocol=protocol)
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.convert(tmp_path / "a.pt", tmp_path / "a.ckpt")
    assert raised.value.code == "lossy"
    assert {loss.path for loss in raised.value.report} == {*(f"args/{name}" for name in values), "steps/1", "of"}
    assert "Config is left out" in str(raised.value)
    found, losses = converted(tmp_path, saved, protocol=protocol)
    assert same(found, {"w": torch.arange(3.0), "args": {}, "steps": [1, None, 3], "of": {2: 2}})
    assert len(losses) == len(values) + 2


def test_a_file_of_one_object_says_what_to_save(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "unsupported-source", "torch.nn.modules.linear.Linear", allow_loss=True)
    refused(tmp_path / "a.pt", "unsupported-source", "torch.save(module.state_dict(), path)")
    torch.save({"net": torch.nn.Sequential(torch.nn.Linear(2, 2)), "w": torch.ones(1)}, tmp_path / "b.pt")
    words = "the module torch.nn.modules.container.Sequential is left out: save its state_dict()"
    refused(tmp_path / "b.pt", "lossy", words)


def parts() -> dict[str, tuple[Any, Any]]:
    """Tensors of several tensors, and what makes them of their parts."""
    dense = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    coo, csr = dense.to_sparse(), dense.to_sparse_csr()
    csc = dense.to_sparse_csc()
    each = torch.quantize_per_tensor(torch.arange(4.0), 0.5, 3, torch.quint8)
    rows = torch.quantize_per_channel(dense, torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.qint8)
    nested = torch.nested.nested_tensor([torch.ones(2), torch.zeros(3)])
    size = torch.Size((2, 2))
    return {
        "coo": (coo, {"layout": "sparse_coo", "indices": coo._indices(), "values": coo._values(), "size": size}),
        "csr": (csr, {"crow_indices": csr.crow_indices(), "values": csr.values(), "size": size}),
        "csc": (csc, {"ccol_indices": csc.ccol_indices(), "row_indices": csc.row_indices(), "size": size}),
        "per tensor": (each, {"int_repr": each.int_repr(), "scale": 0.5, "zero_point": 3, "dtype": "quint8"}),
        "per channel": (rows, {"int_repr": rows.int_repr(), "scale": rows.q_per_channel_scales(), "axis": 0}),
        "nested": (nested, {"values": nested.values(), "sizes": nested._nested_tensor_size()}),
    }


@pytest.mark.parametrize("what", ["coo", "csr", "csc", "per tensor", "per channel", "nested"])
def test_tensors_of_tensors_become_their_parts(tmp_path: Path, what: str) -> None:
    tensor, expected = parts()[what]
    found, losses = converted(tmp_path, {"x": tensor})
    assert [loss.path for loss in losses] == ["x"]
    assert {key: same(found["x"][key], value) for key, value in expected.items()} == dict.fromkeys(expected, True)


def test_tensors_that_are_conjugated_when_they_are_looked_at(tmp_path: Path) -> None:
    base = torch.arange(6).reshape(2, 3).to(torch.complex64) * (1 + 2j)
    lazy = {"conj": base.conj(), "neg": (base * 2).conj().imag, "t": (base * 3).conj().T}
    assert lazy["conj"].is_conj()
    assert lazy["neg"].is_neg()
    found, losses = converted(tmp_path, lazy)
    assert {name: torch.equal(found[name], lazy[name]) for name in lazy} == dict.fromkeys(lazy, True)
    assert losses == ()
    found, losses = converted(tmp_path, {"x": base, "conj": base.conj()})
    assert torch.equal(found["conj"], base.conj())
    assert [(loss.kind, loss.path) for loss in losses] == [("alias", "conj")]


def test_a_tensor_of_another_class_becomes_a_plain_one(tmp_path: Path) -> None:
    found, losses = converted(tmp_path, {"x": torch.arange(3.0).as_subclass(Subclass)})
    assert same(found["x"], torch.arange(3.0))
    assert [str(loss).partition(" becomes")[0] for loss in losses] == [f"value of 'x': a {__name__}.Subclass"]


def test_whatever_torch_reads_by_default_is_read(tmp_path: Path) -> None:
    """Each name that `torch.load(weights_only=True)` allows is known."""
    from torch._weights_only_unpickler import _get_allowed_globals

    from ckptfmt.conversion.torch_pickle import TensorPickle

    known = TensorPickle(None)._table()
    old = {
        name for name in _get_allowed_globals() if name.rpartition(".")[2].endswith("Tensor")
    }  # classes of torch 0.3
    small = {f"torch.{name}" for name in ("bits16", "bits1x8", "bits2x4", "bits4x2", "bits8")}
    small |= {f"torch.{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)}  # without tensors that are stored
    assert set(_get_allowed_globals()) - set(known) <= old | small


def test_an_unknown_name_is_neither_imported_nor_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "trap_of_pickles.py"
    module.write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    pickled = b"\x80\x02}X\1\0\0\0xctrap_of_pickles\nTrap\n)R}X\1\0\0\0aNsbs."
    torch_zip(tmp_path / "a.pt", pickled)
    report = ckptfmt.convert(tmp_path / "a.pt", tmp_path / "a.ckpt", allow_loss=True)
    assert [loss.message.partition(" ")[0] for loss in report.losses] == ["trap_of_pickles.Trap"]
    assert ckptfmt.load(tmp_path / "a.ckpt") == {}


def test_paths_that_are_far_longer_than_their_pickle(tmp_path: Path) -> None:
    """Parts of a path may be one text many times."""
    text = b"(X\xe8\3\0\0" + b"x" * 1000 + b"q\1"
    program = b"cpathlib\nPurePosixPath\n" + text + b"h\1" * 4 + b"tR."
    torch_zip(tmp_path / "a.pt", b"\x80\x02" + program)
    refused(tmp_path / "a.pt", "limit-exceeded", "path")
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp" / ".metadata").write_bytes(b"\x80\x02" + program)
    refused(tmp_path / "dcp", "limit-exceeded", "path")


def test_calls_that_copy_one_argument_again_and_again(tmp_path: Path) -> None:
    text = b"X\0\0\x10\0" + b"x" * (1 << 20)
    encoded = b"c_codecs\nencode\nq\0" + text + b"q\1X\6\0\0\0latin1q\2" + b"h\0h\1h\2\x86R" * 20_000
    items = pickle.dumps(list(range(100_000)), 2)[:-1] + b"q\1cbuiltins\nset\nq\0" + b"h\0h\1\x85R" * 20_000
    for program in (b"\x80\x02(" + encoded + b"t.", b"(" + items + b"t."):
        torch_zip(tmp_path / "a.pt", program)
        refused(tmp_path / "a.pt", "limit-exceeded")
