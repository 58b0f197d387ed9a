"""Tags over tensors through migrations: they stay where the names stay, go where all names go together, and are else
left out with a word. [MIG-021]"""

from __future__ import annotations

import warnings
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from migrations import document, saved

import ckptfmt
from ckptfmt import UnknownTagWarning
from ckptfmt.conversion import open_source
from ckptfmt.frameworks.adapter import Tagged
from ckptfmt.testing import assert_same_tree

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
pytest.importorskip("ckptfmt_torch")
nn = torch.nn

W, X = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(2, dtype=np.float32)
Pair = namedtuple("Pair", "one two")
TURN = [{"op": "rearrange", "pattern": "a b -> b a"}]


def tag(name: str, param: Any, child: Any) -> Tagged:
    return Tagged(name, param, child, lambda value: value)


def tags(path: Path) -> dict[str, list[Any]]:
    """The tags of a checkpoint that NumPy does not make, by label."""
    with open_source(str(path)) as source:
        assert source.ours is not None
        return {"/".join(map(str, place)): list(found) for place, found in source.ours.tags.items()}


def migrated(folder: Path, tree: Any, *rules: Any, said: str = "", **more: Any) -> dict[str, list[Any]]:
    """The tags after a migration, of which a load of the lazy view has the same values as one of what is written."""
    path, made = saved(folder, tree), document(*rules, **more)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ckptfmt.migrate(path, folder / "new", made, schema="2", overwrite=True)
    assert [
        said in str(one.message)
        for one in caught
        if "is left out" in str(one.message) or "are left out" in str(one.message)
    ] == [True] * bool(said)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownTagWarning)
        for framework in (None, "torch"):
            lazy = ckptfmt.load(path, schema="2", migrations=made, framework=framework)
            assert_same(lazy, ckptfmt.load(folder / "new", framework=framework))
    return tags(folder / "new")


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        assert getattr(one, "_metadata", None) == getattr(other, "_metadata", None)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    elif isinstance(one, torch.Tensor):
        assert one.requires_grad == other.requires_grad
        assert torch.equal(one, other)
    else:
        assert_same_tree(one, other)


def parameter(array: Any) -> Any:
    return nn.Parameter(torch.tensor(array), requires_grad=False)


def test_where_names_stay(tmp_path: Path) -> None:
    """Whatever becomes of the elements, and of what lies elsewhere."""
    tree = {
        "net": {"w": parameter(W), "b": parameter(X)},
        "pair": Pair(torch.tensor(W), 3),
        "state": nn.BatchNorm1d(2).state_dict(),
        "odd": tag("my.thing", {"a": [1]}, [torch.tensor(X), {"deep": torch.tensor(W)}]),
        "scaled": tag("my.scale", {"by": [2]}, torch.tensor(X)),
        "other": torch.tensor(W),
    }
    rules = [
        {"from": "net/w", "with": TURN, "to": "net/w"},
        {"from": "pair/one", "with": TURN, "to": "pair/one"},
        {"from": "other", "to": "another"},
    ]
    before = tags(saved(tmp_path, tree))
    assert set(before) == {"net/w", "net/b", "pair", "state", "odd", "scaled"}
    assert migrated(tmp_path, tree, *rules, rest="keep") == before


@pytest.mark.filterwarnings("ignore:.*an unknown tag:ckptfmt.UnknownTagWarning")
def test_where_all_of_it_goes(tmp_path: Path) -> None:
    tree = {"old": {"pair": Pair(torch.tensor(W), torch.tensor(X)), "w": parameter(W), "odd": tag("my.one", 1, [X])}}
    rules = [{"from": "old/pair/{f}", "to": "new/pair/{f}"}, {"from": "old/w", "to": "new.w"}]
    rules += [{"from": "old/odd/0", "to": "odd/0"}]
    found = migrated(tmp_path, tree, *rules)
    kind = f"{Pair.__module__}.Pair"
    assert found == {
        "new/pair": [("python.namedtuple", kind)],
        "new.w": [("torch.Parameter", False)],
        "odd": [("my.one", 1)],
    }
    path, made = saved(tmp_path, tree), document(*rules)
    like = {"new": {"pair": Pair(np.empty_like(W), np.empty_like(X))}}
    got = ckptfmt.load(path, schema="2", migrations=made, like=like, strict=False)
    assert type(got["new"]["pair"]) is Pair
    with ckptfmt.open(path, schema="2", migrations=made) as view:
        assert type(view.load(prefix="new.w", framework="torch")) is nn.Parameter
        assert type(view.load(framework="torch", select="new.w")["new.w"]) is nn.Parameter


def test_copies_and_aliases_have_it_too(tmp_path: Path) -> None:
    rules = [
        {"from": "w", "with": [{"op": "copy"}], "to": "v"},
        {"from": "w", "with": [{"op": "alias"}], "to": "u"},
    ]
    found = migrated(tmp_path, {"w": parameter(W)}, *rules, rest="keep")
    assert set(found) == {"u", "v", "w"}
    loaded = ckptfmt.load(tmp_path / "new", framework="torch")
    assert loaded["u"] is loaded["w"]
    lazy = ckptfmt.load(tmp_path / "src", schema="2", migrations=document(*rules, rest="keep"), framework="torch")
    assert lazy["u"] is lazy["w"]


def test_what_changes_places(tmp_path: Path) -> None:
    tree = {"a": tag("my.a", None, {"x": W, "y": X}), "b": tag("my.b", None, {"x": X, "y": W})}
    rules = [{"from": "a/{f}", "to": "b/{f}"}, {"from": "b/{f}", "to": "a/{f}"}]
    assert migrated(tmp_path, tree, *rules) == {"b": [("my.a", None)], "a": [("my.b", None)]}
    rules = [{"from": "b/{f}", "with": [{"op": "drop"}], "to": []}, {"from": "a/{f}", "to": "b/{f}"}]
    assert migrated(tmp_path, tree, *rules, said="'my.b'") == {"b": [("my.a", None)]}


@pytest.mark.parametrize(
    "rule",
    [
        {"from": "pair/one", "to": "pair/first"},
        {"from": "pair/one", "to": "elsewhere"},
        {"from": "pair/one", "with": [{"op": "drop"}], "to": []},
        {"from": "w", "to": "pair/three"},
    ],
)
def test_what_other_names_are_in_is_told(tmp_path: Path, rule: Any) -> None:
    tree = {"pair": Pair(torch.tensor(W), torch.tensor(X)), "w": torch.tensor(W)}
    found = migrated(tmp_path, tree, rule, rest="keep", said=f"'python.namedtuple {Pair.__module__}.Pair'")
    assert found == {}


def test_a_tensor_that_is_made_of_one_is_that_one(tmp_path: Path) -> None:
    """A Parameter that is turned under another name; of parts and of joined ones none says what they are."""
    tree = {"kernel": parameter(W), "qk": parameter(W), "a": parameter(X), "b": parameter(X)}
    turned = {"from": "kernel", "with": TURN, "to": "weight"}
    halves = {"from": "qk", "with": [{"op": "split", "axis": 0, "sizes": [1, 1]}], "to": ["q", "k"]}
    joined = {"from": ["a", "b"], "with": [{"op": "concat", "axis": 0, "sizes": [2, 2]}], "to": "ab"}
    found = migrated(tmp_path, tree, turned, halves, joined, said="'torch.Parameter'")
    assert found == {"weight": [("torch.Parameter", False)]}


def test_keys_stay_with_their_bits(tmp_path: Path) -> None:
    tree = {"a": jax.random.key(0, impl="rbg"), "b": jax.random.split(jax.random.key(1), 2), "w": W}
    rules = [{"from": "a", "to": "c"}, {"from": "b", "with": TURN, "to": "b"}]
    path, made = saved(tmp_path, tree), document(*rules, rest="keep")
    with pytest.warns(UnknownTagWarning, match=r"jax\.key"):
        found = ckptfmt.load(path, schema="2", migrations=made, framework="jax")
    assert jax.numpy.issubdtype(found["c"].dtype, jax.dtypes.prng_key)
    assert found["b"].dtype == np.uint32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownTagWarning)
        like = {"c": jax.random.key(0, impl="unsafe_rbg"), "b": np.empty((2, 2), np.uint32), "w": W}
        with pytest.raises(ckptfmt.MismatchError, match="unsafe_rbg"):
            ckptfmt.load(path, schema="2", migrations=made, like=like)


# ---- versions of modules


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.h = nn.ModuleList(nn.ModuleDict({"norm": nn.BatchNorm1d(2), "act": nn.ReLU()}) for _ in range(2))
        self.qk = nn.Linear(3, 2)


def versions(found: dict[str, list[Any]], at: str = "") -> dict[str, int]:
    ((name, param),) = found[at]
    assert name == "torch.state_dict"
    return {module: of["version"] for module, of in param.items()}


UP = {"from": "h.{i:int}.norm.{name}", "to": "layers.{i}.ln.{name}"}


@pytest.mark.parametrize("at", ["", "model"])
def test_versions_go_with_their_modules_and_come_back(tmp_path: Path, at: str) -> None:
    state = Net().state_dict()
    tree, more = ({at: state} if at else state), {"rest": "keep", **({"at": at} if at else {})}
    made = document(UP, **more)
    path = saved(tmp_path, tree)
    ckptfmt.migrate(path, tmp_path / "up", made, schema="2")
    before, up = versions(tags(path), at), versions(tags(tmp_path / "up"), at)
    assert up["layers.0.ln"] == before["h.0.norm"] == 2
    assert up["qk"] == before["qk"]
    assert not any(name.endswith("norm") for name in up)
    ckptfmt.migrate(tmp_path / "up", tmp_path / "back", made, schema="1", down=True)
    assert versions(tags(tmp_path / "back"), at) == before
    assert ckptfmt.diff(path, tmp_path / "back").equal
    (change,) = [one for one in ckptfmt.diff(path, tmp_path / "up").changed if one.kind == "tag"]
    assert change.path == at
    assert "'h.0.norm'" in str(change.before)
    assert "'layers.0.ln'" in str(change.after)
    migrated(tmp_path, tree, UP, **more)


def test_versions_of_what_goes_apart_are_told(tmp_path: Path) -> None:
    state = Net().state_dict()
    halves = [{"op": "split", "axis": 0, "sizes": [1, 1]}]
    rules = [
        {"from": "qk.weight", "with": halves, "to": ["q.weight", "k.weight"]},
        {"from": "qk.bias", "with": halves, "to": ["q.bias", "k.bias"]},
        {"from": "h.1.norm.{name}", "with": [{"op": "drop"}], "to": []},
    ]
    found = versions(migrated(tmp_path, state, *rules, rest="keep"))
    assert not found.keys() & {"qk", "h.1.norm", "q"}, "of which 1 says nothing"
    assert found["h.0.norm"] == 2
    apart = {"from": "h.0.norm.weight", "with": halves, "to": ["one", "two"]}
    found = versions(
        migrated(
            tmp_path,
            state,
            *rules,
            apart,
            rest="keep",
            said="are left out, as their tensors went apart: 'h.0.norm' [MIG",
        )
    )
    assert not found.keys() & {"qk", "h.0.norm"}


def test_a_wrapper_comes_and_goes(tmp_path: Path) -> None:
    state = nn.DataParallel(nn.BatchNorm1d(2)).state_dict()
    found = versions(migrated(tmp_path, state, {"from": "module.{rest:**}", "to": "{rest}"}))
    assert found == {"": 2}
    found = versions(migrated(tmp_path, nn.BatchNorm1d(2).state_dict(), {"from": "{name}", "to": "module.{name}"}))
    assert found[""] == 2


def test_a_state_dict_that_goes_to_several_places_has_no_versions(tmp_path: Path) -> None:
    state = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)}).state_dict()
    rules = [{"from": "a.{name}", "to": "first/{name}"}, {"from": "b.{name}", "to": "second/{name}"}]
    assert migrated(tmp_path, state, *rules, said="'torch.state_dict'") == {}


def test_upgrades_keep_unknown_tags_with_any_param(tmp_path: Path) -> None:
    path = saved(tmp_path, {"w": tag("my.scale", {"by": [2]}, W), "o": OrderedDict(a=W)})
    ckptfmt.upgrade(path, tmp_path / "new")
    assert tags(tmp_path / "new") == tags(path) == {"w": [("my.scale", {"by": [2]})]}
