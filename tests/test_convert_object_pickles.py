"""Pickles of ordinary programs, as Python and joblib write them, beside what these load: arrays and plain values are
data, objects become their attributes, and nothing is looked up."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import pickle
import shutil
import tracemalloc
import types
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import jax
import joblib
import ml_dtypes
import numpy as np
import pytest
from conversions import imported
from hostile import MATRIX, refused
from mangling import only_errors
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.conversion.source import walk

ROWS = np.random.default_rng(1).normal(size=(40, 3))
CLASSES = np.where(ROWS[:, 0] > 0, "a", "b")


def pickled(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def dumped(path: Path, value: Any, protocol: int = 4) -> Path:
    joblib.dump(value, path, protocol=protocol)
    return path


WRITERS = {"pickle": pickled, "joblib": dumped}

DATA = {
    "matrix": MATRIX,
    "turned": np.asfortranarray(MATRIX),
    "strided": MATRIX[::2, ::-1],
    "other byte order": np.arange(6, dtype=">f8").reshape(2, 3),
    "empty": np.zeros((0, 3), np.int8),
    "no axes": np.array(7.5),
    "times": np.arange(3).astype("M8[D]"),
    "bfloat16": np.ones(3, ml_dtypes.bfloat16),
    "bools": np.array([True, False]),
    "scalars": [np.float32(0.1), np.int64(-3), np.bool_(True)],
    "plain": {"a": [1, (2.5, "é", None, b"\xff")], 3: 1j, "day": datetime.date(2024, 2, 29)},
    "ordered": OrderedDict(a=1, b=MATRIX),
}


def same(one: Any, other: Any) -> bool:
    if isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in other)
    if isinstance(other, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(other, np.ndarray | np.generic):
        native = other.astype(other.dtype.newbyteorder("="))
        return one.shape == native.shape and one.dtype == native.dtype and one.tobytes() == native.tobytes()
    return bool(one == other)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("writer", WRITERS)
def test_data_is_read(tmp_path: Path, writer: str, protocol: int) -> None:
    path = WRITERS[writer](tmp_path / "a.pkl", DATA, protocol)
    with open_source(str(path)) as source:
        assert (source.format, source.losses) == ("pickle", ())
    tree, _ = imported(path)
    assert same(tree, DATA)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("writer", WRITERS)
def test_arrays_stay_in_the_file(tmp_path: Path, writer: str, protocol: int) -> None:
    large = {f"w{i}": np.full(1 << 19, i, np.float64) for i in range(6)}
    path = WRITERS[writer](tmp_path / "a.pkl", large, protocol)
    tracemalloc.start()
    with open_source(str(path)) as source:
        assert not any(array.flags.writeable for array in source.tree.values())
        assert [array[-1] for array in source.tree.values()] == list(range(6))
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()


def test_long_bytes_are_bytes(tmp_path: Path) -> None:
    value = {"a": b"x" * (1 << 20), "b": bytearray(b"y" * (1 << 20)), "c": "z" * (1 << 20)}
    tree, _ = imported(pickled(tmp_path / "a.pkl", value, 5))
    assert tree == value
    assert type(tree["b"]) is bytearray


def test_estimators_are_their_attributes(tmp_path: Path) -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, CLASSES == "a")
    for writer in WRITERS.values():
        path = writer(tmp_path / "a.pkl", pipeline)
        refused(path, "lossy", "a sklearn.pipeline.Pipeline becomes a dict of its attributes")
        tree, _ = imported(path, allow_loss="value")
        (_, scaler), (_, model) = tree["steps"]
        assert same(scaler["mean_"], pipeline[0].mean_)
        assert same(model["coef_"], pipeline[1].coef_)
        assert same(model["intercept_"], pipeline[1].intercept_)
        (tmp_path / "imported.ckpt").unlink()


def test_trees_of_a_forest(tmp_path: Path) -> None:
    """Their nodes are records, and their classes text."""
    forest = RandomForestClassifier(2, random_state=1).fit(ROWS, CLASSES)
    for writer in WRITERS.values():
        tree, _ = imported(writer(tmp_path / "a.pkl", forest), allow_loss="value")
        assert tree["classes_"] == ["a", "b"]
        for found, grown in zip(tree["estimators_"], forest.estimators_, strict=True):
            kept = grown.tree_.__getstate__()
            assert {name: same(array, kept["nodes"][name]) for name, array in found["tree_"]["nodes"].items()} == (
                dict.fromkeys(kept["nodes"].dtype.names, True)
            )
            assert same(found["tree_"]["values"], kept["values"])
            assert found["tree_"]["arguments"][0] == 3


@dataclasses.dataclass
class Config:
    lr: float = 0.5
    weights: Any = None


class Slots:
    __slots__ = ("a",)


class Table(dict[Any, Any]):
    pass


class Row(list[Any]):
    pass


class Mode(enum.Enum):
    FAST = 2


class Made:
    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> Any:
        return Made, self.arguments


Point = namedtuple("Point", "x y")


def objects() -> dict[str, tuple[Any, Any]]:
    """Objects of classes, and what becomes of them."""
    slots, table, row = Slots(), Table(x=1), Row([1, 2])
    slots.a = MATRIX
    table.name = row.name = "n"
    return {
        "dataclass": (Config(weights=MATRIX), {"lr": 0.5, "weights": MATRIX}),
        "slots": (slots, {"a": MATRIX}),
        "dict": (Table({"x": 1}), {"x": 1}),
        "dict with attributes": (table, {"name": "n", "items": {"x": 1}}),
        "list": (Row([1, MATRIX]), [1, MATRIX]),
        "list with attributes": (row, {"name": "n", "items": [1, 2]}),
        "enum": (Mode.FAST, 2),
        "namedtuple": (Point(1, MATRIX), (1, MATRIX)),
        "made with arguments": (Made(1, "a"), (1, "a")),
        "nothing": (Made(), {}),
        "objects": (np.array([[None, "a"], [1, MATRIX]], object), [[None, "a"], [1, MATRIX]]),
        "text": (np.array([["a", "é"]]), [["a", "é"]]),
        "matrix": (np.ones((2, 2)).view(np.matrix), np.ones((2, 2))),
        "records": (
            np.array([(1, 2.5, "a")], "i4,f8,U2"),
            {"f0": np.array([1], "i4"), "f1": np.array([2.5]), "f2": ["a"]},
        ),
        "nested": ({"a": [Config(1.0, Config())]}, {"a": [{"lr": 1.0, "weights": {"lr": 0.5, "weights": None}}]}),
    }


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("what", objects())
@pytest.mark.parametrize("writer", WRITERS)
def test_objects_become_what_they_are_made_of(tmp_path: Path, writer: str, what: str, protocol: int) -> None:
    value, expected = objects()[what]
    path = WRITERS[writer](tmp_path / "a.pkl", {"x": value}, protocol)
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.convert(path, tmp_path / "a.ckpt")
    assert raised.value.code == "lossy"
    assert all("become" in loss.message for loss in raised.value.report)
    tree, _ = imported(path, allow_loss="value")
    assert same(tree["x"], expected), tree["x"]


def test_an_object_within_itself(tmp_path: Path) -> None:
    config = Config(weights=[1])
    config.weights.append(config)
    tree, _ = imported(pickled(tmp_path / "a.pkl", {"x": config}), allow_loss="value")
    assert tree == {"x": {"lr": 0.5, "weights": [1, None]}}
    circle: list[Any] = []
    circle.append(circle)
    refused(pickled(tmp_path / "a.pkl", circle), "too-deep")


def test_tensors_of_torch_in_a_plain_pickle(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16), "p": torch.ones(3)[1:]}
    state = torch.nn.Linear(2, 3).state_dict()
    tree, _ = imported(pickled(tmp_path / "a.pkl", {**tensors, "state": state}))
    for name, tensor in {**tensors, **{f"state/{name}": tensor for name, tensor in state.items()}}.items():
        array = tree["state"][name[6:]] if name.startswith("state/") else tree[name]
        assert array.tobytes() == tensor.contiguous().view(torch.uint8).numpy().tobytes()


JAX = {"w": MATRIX.astype(ml_dtypes.bfloat16), "few": np.array([1, -2], ml_dtypes.int4), "no axes": np.float32(3)}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_jax(tmp_path: Path, writer: str, protocol: int) -> None:
    arrays = {name: jax.numpy.asarray(value) for name, value in JAX.items()}
    tree, _ = imported(WRITERS[writer](tmp_path / "a.pkl", arrays, protocol))
    assert same(tree, {name: np.asarray(value) for name, value in JAX.items()})


def test_arrays_of_older_jax(tmp_path: Path) -> None:
    path = pickled(tmp_path / "a.pkl", jax.numpy.asarray(MATRIX), 2)
    now, then = b"jax._src.array\n_reconstruct_array", b"jax._src.device_array\nreconstruct_device_array"
    assert now in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(now, then))
    assert same(imported(path)[0], MATRIX.astype(np.float32))
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray\n_reconstruct", b"some\nthing"))
    refused(path, "unsupported-source", "an array of JAX is left out")


GENSIM = Path(__file__).parent / "data/gensim"  # by make_gensim.py


def test_arrays_that_gensim_puts_into_files(tmp_path: Path) -> None:
    words = np.arange(6, dtype=np.float32).reshape(2, 3)
    for name in ("whole", "apart"):
        report = ckptfmt.convert(GENSIM / f"{name}.model", tmp_path / name, allow_loss=("value", "missing"))
        tree = ckptfmt.load(tmp_path / name)
        assert same([tree["wv"]["vectors"], tree["bias"]], [words, np.arange(4.0)])
        missing = [loss.path for loss in report.losses if loss.kind == "missing"]
        assert missing == (["counts"] if name == "apart" else [])
    shutil.copy(GENSIM / "apart.model", tmp_path)  # without the files beside it
    refused(tmp_path / "apart.model", "lossy", "'counts', 'wv/vectors': it lies in files beside", allow_loss="value")


def test_files_beside_are_no_way_out_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "secret.npy", MATRIX)
    apart = pickle.dumps(types.SimpleNamespace(**{"__numpys": ["/../../secret"]}), 4).replace(b"types", b"other")
    (tmp_path / "in" / "a.pkl").write_bytes(apart)
    (tmp_path / "in" / "a.pkl.").mkdir()
    refused(tmp_path / "in" / "a.pkl", "unsafe-source", "outside of the folder", allow_loss=True)


def test_what_python_2_wrote(tmp_path: Path) -> None:
    """Strings there are bytes, which pickles of arrays hold their elements in."""
    program = (
        b"\x80\x02}q\x00U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04U\x01b"
        b"q\x05\x87q\x06Rq\x07(K\x01K\x02\x85q\x08cnumpy\ndtype\nq\tU\x02i2q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03U\x01<q\r"
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89U\x04\x01\x00\xff\xffq\x0ftq\x10bs."
    )
    (tmp_path / "a.pkl").write_bytes(program)
    expected = pickle.loads(program, encoding="latin1")
    assert same(imported(tmp_path / "a.pkl")[0], expected)


def test_what_follows_a_pickle_is_told(tmp_path: Path) -> None:
    path = pickled(tmp_path / "a.pkl", {"a": 1})
    path.write_bytes(path.read_bytes() + pickle.dumps(2))
    refused(path, "lossy", "bytes follow the pickle, and are not read")


def program(path: Path, code: bytes) -> Path:
    path.write_bytes(b"\x80\x04" + code)
    return path


JOBLIB = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}("
DTYPE = b"X\5\0\0\0dtypecnumpy\ndtype\n(X\2\0\0\0f8I00\nI01\ntR(K\3X\1\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
KIND = b"X\x08\0\0\0subclasscnumpy\nndarray\nX\5\0\0\0orderX\1\0\0\0C"


def wrapped(shape: bytes, beside: bytes = b"") -> bytes:
    """A program with one array of joblib, and what follows it."""
    return JOBLIB + DTYPE + KIND + b"X\5\0\0\0shape(" + shape + b"t" + beside + b"ub"


def test_programs_that_were_made_to_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    for name in (b"os\nsystem", b"builtins\neval", b"subprocess\nPopen", b"builtins\n__import__", b"builtins\nsetattr"):
        refused(program(path, b"c" + name + b"\n(X\1\0\0\0atR."), "unsafe-source", "not required")
        refused(program(path, b"(X\1\0\0\0ai" + name + b"\n."), "unsafe-source")
    refused(program(path, b"\x8c\4evil\x8c\1f\x93(tR\x8c\1x\x85R."), "lossy", "becomes")
    refused(program(path, b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpuK\4tQ."), "bad-source")
    assert same(imported(program(path, wrapped(b"K\2") + bytes(16) + b"."))[0], np.zeros(2))
    refused(program(path, wrapped(b"K\3") + bytes(16) + b"."), "bad-source", "is cut off")
    refused(program(path, wrapped(b"I" + b"9" * 12 + b"\n") + b"."), "bad-source", "is cut off")
    refused(program(path, wrapped(b"J\xff\xff\xff\xff") + bytes(16) + b"."), "bad-source")
    aligned = b"X\x1b\0\0\0numpy_array_alignment_bytesK\x10"
    refused(program(path, wrapped(b"K\2", aligned) + b"\xff" + bytes(16) + b"."), "bad-source")
    refused(program(path, JOBLIB + b"ub."), "bad-source")
    nested = JOBLIB + DTYPE.replace(b"X\2\0\0\0f8", b"X\2\0\0\0O8") + KIND + b"X\5\0\0\0shape(K\1tub"
    refused(program(path, nested + b"\x80\x04cos\nsystem\n(tR.."), "unsafe-source")
    refused(program(path, nested * 300 + b"." * 301), "unsupported-source")


def test_values_far_larger_than_the_pickle(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    doubled = b"(K\1t" + b"".join(b"q%c(h%ch%ct" % (i, i, i) for i in range(60)) + b"."
    refused(program(path, doubled), "limit-exceeded")
    shared = b"c__main__\nA\n)\x81}(X\1\0\0\0a" * 40 + b"K\1"
    shared += b"".join(b"q%cX\1\0\0\0bh%cub" % (i, i) for i in range(40))
    refused(program(path, shared + b"."), "limit-exceeded", allow_loss=True)
    axes = b"(" + b"K\1" * 63 + b"M\xff\xfft"
    items = b"](" + b"N" * 65535 + b"e"
    head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0tR(K\1"
    dtype = b"cnumpy\ndtype\n(X\2\0\0\0O8I00\nI01\ntR(K\3X\1\0\0\0|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb"
    refused(program(path, head + axes + dtype + b"I00\n" + items + b"tb."), "limit-exceeded", allow_loss=True)


@pytest.mark.parametrize("writer", WRITERS)
def test_damage(tmp_path: Path, writer: str) -> None:
    values = {name: DATA[name] for name in ("matrix", "turned", "plain", "scalars")}
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, CLASSES)
    only_errors(WRITERS[writer](tmp_path / "a.pkl", {**values, "model": pipeline}), "pickle")


def test_a_cut_is_told(tmp_path: Path) -> None:
    for writer in WRITERS.values():
        path = writer(tmp_path / "a.pkl", {"a": MATRIX, "b": 1})
        data = path.read_bytes()
        for size in range(3, len(data), 17):
            path.write_bytes(data[:size])
            refused(path, "bad-source", "is cut off: it holds")


def test_no_class_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap_of_objects.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = program(tmp_path / "a.pkl", b"ctrap_of_objects\nTrap\n)\x81}(X\1\0\0\0aK\1ub.")
    assert imported(path, allow_loss="value")[0] == {"a": 1}
    with open_source(str(path)) as source:
        assert [path for path, _ in walk(source.tree)] == [(), ("a",)]
