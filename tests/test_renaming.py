"""Other names for what a checkpoint has: `prefix=`, `strip_prefix=`, `add_prefix=`."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from migrations import document

import ckptfmt
from ckptfmt.format.renaming import WRAPPERS, stripped

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")
nn = torch.nn
W, B = np.ones((2, 3), np.float32), np.zeros(3, np.float32)


def saved(folder: Path, tree: Any, **options: Any) -> Path:
    ckptfmt.save(folder / "c.ckpt", tree, overwrite=True, durable=False, **options)
    return folder / "c.ckpt"


def names(path: Path, **options: Any) -> list[Any]:
    """What finds the tensors of a checkpoint, opened and loaded with options that agree."""
    with ckptfmt.open(path, **options) as one, ckptfmt.open(path) as other:
        assert all(one[name] is tensor for name, tensor in one.items())
        loaded = other.load(**options)
        assert repr(one.load()) == repr(loaded) == repr(ckptfmt.load(path, **options))
        assert len(one) == len({id(tensor) for tensor in one.values()})
        return one.keys()


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"prefix": "model"}, ["module.w", "module.b", "layers/0"]),
        ({"prefix": "model/"}, ["module.w", "module.b", "layers/0"]),
        ({"prefix": ("model", "layers")}, ["0"]),
        ({"prefix": ("model", "layers", 0)}, [""]),
        ({"prefix": "model/layers/0"}, [""]),
        ({"prefix": "model/module."}, ["w", "b"]),
        ({"prefix": "ema."}, ["w"]),
        ({"prefix": "model", "strip_prefix": "module."}, ["w", "b", "layers/0"]),
        ({"strip_prefix": "module."}, ["model/w", "model/b", "model/layers/0", "ema.w"]),
        ({"strip_prefix": ["module.", "ema."]}, ["model/w", "model/b", "model/layers/0", "w"]),
        ({"strip_prefix": "model/"}, ["module.w", "module.b", "layers/0", "ema.w"]),
        ({"strip_prefix": "model/module."}, ["w", "b", "layers/0", "ema.w"]),
        ({"prefix": "model/module"}, ["w", "b"]),
        ({"prefix": "ema"}, ["w"]),
        ({"strip_prefix": ["nothing.", "ema."]}, ["model/module.w", "model/module.b", "model/layers/0", "w"]),
        ({"strip_prefix": WRAPPERS}, ["model/module.w", "model/module.b", "model/layers/0", "ema.w"]),
        ({"prefix": "ema.", "add_prefix": "x."}, ["x.w"]),
        ({"prefix": "ema.", "add_prefix": "x/y/z."}, ["x/y/z.w"]),
        ({"prefix": "ema.", "add_prefix": "x/"}, ["x/w"]),
    ],
    ids=str,
)
def test_names(tmp_path: Path, options: Any, found: list[str]) -> None:
    tree = {"model": {"module.w": W, "module.b": B, "layers": [W + 1]}, "ema.w": W + 2, "step": 3}
    assert names(saved(tmp_path, tree), **options) == found


def test_names_of_wrappers_go_wherever_they_stand(tmp_path: Path) -> None:
    tree = {"_orig_mod.layers.0._orig_mod.w": W, "my_orig_mod.w": B, "_orig_mod": W + 1, "a.module.w": W + 2}
    path = saved(tmp_path, tree)
    assert names(path, strip_prefix="_orig_mod.") == ["layers.0.w", "my_orig_mod.w", "_orig_mod", "a.module.w"]
    assert names(path, strip_prefix=["module.", "_orig_mod."])[-1] == "a.module.w"  # which may be the model's own


@given(st.lists(st.sampled_from(["a", "module", *(w[:-1] for w in WRAPPERS)]), min_size=1, max_size=5))
def test_stripping_twice_is_stripping_once_for_wrappers(parts: list[str]) -> None:
    for wrapper in WRAPPERS:
        once = stripped(".".join([*parts, "w"]), wrapper)
        assert stripped(once, wrapper) == once
        assert wrapper[:-1] not in once.split(".")[:-1]


def test_containers_and_other_keys_stay(tmp_path: Path) -> None:
    tree = {"a": OrderedDict({"m.x": (W, 1), 0: "m."}), "m.": B, "l": [{"m.y": None}]}
    found = ckptfmt.load(saved(tmp_path, tree), strip_prefix="m.")
    assert type(found["a"]) is OrderedDict
    assert list(found["a"]) == ["x", 0]
    assert type(found["a"]["x"]) is tuple
    assert list(found) == ["a", "m.", "l"]
    assert found["l"] == [{"y": None}]


def test_aliases_stay_one(tmp_path: Path) -> None:
    found = ckptfmt.load(saved(tmp_path, {"m.a": W, "m.b": W}), strip_prefix="m.")
    assert found["a"] is found["b"]


def test_int_keys_and_labels(tmp_path: Path) -> None:
    path = saved(tmp_path, {0: {"w": W}, "0": {"b": B}, "a/b": {"x": W}})
    assert names(path, prefix=0) == ["w"]
    assert names(path, prefix="'0'") == ["b"]
    assert names(path, prefix="a/b") == ["x"]
    with pytest.raises(ckptfmt.SelectionError, match="fits 2 paths"):
        ckptfmt.load(path, prefix="0")


def test_damage_is_named_as_it_is_stored(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": {"module.w": W + 7}})
    data = bytearray(path.read_bytes())
    data[data.index((W + 7).tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(ckptfmt.CorruptError) as caught:
        ckptfmt.load(path, prefix="model", strip_prefix="module.")
    assert caught.value.tensor == "model/module.w"


def test_a_part_reads_that_part(tmp_path: Path) -> None:
    path = saved(tmp_path, {"small": B, "large": np.ones(1 << 20)})
    with ckptfmt.open(path) as checkpoint:
        checkpoint.load(prefix="small")
        assert checkpoint.bytes_read == B.nbytes


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"prefix": "mod"}, "no-such-path", ["prefix='mod'", "module.", "x"]),
        ({"prefix": "modul"}, "no-such-path", ["prefix='modul'", "module."]),
        (
            {"strip_prefix": ["nothing.", "mod."]},
            "no-such-path",
            ["'nothing.' or 'mod.'", "At the top there are module."],
        ),
        ({"prefix": "model."}, "no-such-path", ["no name begins with it", "module."]),
        ({"prefix": "x/y"}, "no-such-path", ["prefix='x/y'"]),
        ({"strip_prefix": "module"}, "bad-option", ["strip_prefix='module'", "Write 'module.'"]),
        ({"add_prefix": "module"}, "bad-option", ["add_prefix='module'", "Write 'module.'"]),
        ({"strip_prefix": [1]}, "bad-option", ["strip_prefix= is a text"]),
        ({"strip_prefix": "other."}, "bad-option", ["two values", "'w'", "prefix="]),
    ],
    ids=str,
)
def test_refusals(tmp_path: Path, options: Any, code: str, words: list[str]) -> None:
    path = saved(tmp_path, {"module.w": W, "other.w": B, "w": W + 1, "x": B})
    for call in (ckptfmt.load, ckptfmt.open):
        with pytest.raises(ckptfmt.CkptError) as caught:
            call(path, **options)
        assert caught.value.code == code
        assert caught.value.path == str(path)
        assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("options", "select", "write"),
    [
        ({"prefix": "model"}, "model/module.*", "'module.*'"),
        ({"prefix": ("model",)}, ["model/layers", "x"], "['layers', 'x']"),
        ({"prefix": "model/module."}, "model/module.w", "'w'"),
        ({"prefix": "model", "strip_prefix": "module."}, "model/module.w", "'w'"),
        ({"strip_prefix": "model/"}, "model/layers/**", "'layers/**'"),
        ({"prefix": "ema.", "add_prefix": "x."}, "w", "'x.w'"),
    ],
)
@pytest.mark.parametrize("into", [False, True])
def test_a_pattern_for_the_names_before_is_told(
    tmp_path: Path, options: Any, select: Any, write: str, into: bool
) -> None:
    path = saved(tmp_path, {"model": {"module.w": W, "module.b": B, "layers": [W]}, "ema.w": W})
    more = {"into": {"w": np.zeros_like(W)}} if into else {}
    with pytest.raises(ckptfmt.SelectionError, match="matches nothing") as caught:
        ckptfmt.load(path, **options, select=select, **more)
    assert caught.value.code == "no-match"
    assert f"write select={write}" in str(caught.value)
    assert next(iter(options)) in caught.value.advice


def test_versions_of_modules_follow_their_names(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    path = tmp_path / "c.ckpt"
    ckptfmt_torch.save(path, {"model": nn.DataParallel(module)})
    wanted = module.state_dict()._metadata
    for options in ({"prefix": "model", "strip_prefix": "module."}, {"prefix": "model/module."}):
        assert ckptfmt_torch.load(path, **options)._metadata == wanted
    ckptfmt_torch.save(tmp_path / "plain.ckpt", module)
    found = ckptfmt_torch.load(tmp_path / "plain.ckpt", add_prefix="module.")
    assert found._metadata["module.1"] == wanted["1"]


def compiled_in_the_middle() -> Any:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    module[0] = torch.compile(module[0])
    return module


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of torch.compile
def test_modules_of_any_wrapper(tmp_path: Path) -> None:
    plain = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    for wrapped, strip in (
        (nn.DataParallel(plain), "module."),
        (torch.compile(plain), "_orig_mod."),
        (compiled_in_the_middle(), "_orig_mod."),
        (nn.DataParallel(compiled_in_the_middle()), ["module.", "_orig_mod."]),
    ):
        ckptfmt_torch.save(tmp_path / "c.ckpt", wrapped, overwrite=True)
        target = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        assert ckptfmt_torch.load_into(tmp_path / "c.ckpt", target, strip_prefix=strip).ok
        for one, other in zip(target.parameters(), wrapped.parameters(), strict=True):
            assert torch.equal(one, other)
    ckptfmt_torch.save(tmp_path / "plain.ckpt", plain)
    assert ckptfmt_torch.load_into(tmp_path / "plain.ckpt", nn.DataParallel(plain), add_prefix="module.").ok
    assert ckptfmt_torch.load_into(tmp_path / "plain.ckpt", torch.compile(plain), add_prefix="_orig_mod.").ok


# ---- beside migrations


RULES = document({"from": "a.w", "to": "b.w"})


def test_migrations_see_the_new_names(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": {"module.a.w": W}, "step": 1}, schema=("s", "1"))
    names = {"prefix": "model", "strip_prefix": "module."}
    found = ckptfmt.load(path, schema="2", migrations=RULES, **names)
    assert list(found) == ["b.w"]
    report = ckptfmt.migrate(path, tmp_path / "out", RULES, schema="2", **names)
    assert report.saved is not None
    with ckptfmt.open(tmp_path / "out") as checkpoint:
        assert checkpoint.keys() == ["b.w"]
        assert checkpoint.provenance[-1]["renamed"] == {"prefix": ["model"], "strip": ["module."], "add": ""}


def test_a_view_has_names_of_its_own(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a.w": W, "t": OrderedDict({"b.x": (W,)})}, schema=("s", "1"))
    with ckptfmt.open(path, schema="2", migrations=document({"from": "a.w", "to": "b.w"}, rest="keep")) as view:
        found = view.load(strip_prefix="b.", add_prefix="c/")
        assert list(found) == ["c"]
        assert list(found["c"]) == ["w", "t"]
        assert type(found["c"]["t"]) is OrderedDict
        assert type(found["c"]["t"]["x"]) is tuple
        assert view.match({"w": np.zeros_like(W)}, prefix="b.").ok
        assert view.keys() == ["b.w", "t/b.x/0"]
