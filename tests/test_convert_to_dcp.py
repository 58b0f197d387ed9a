"""Directories of torch's distributed checkpoint that conversions write: torch loads them, and so does this package."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversions import imported, in_order
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import peer

import ckptfmt
from ckptfmt.testing import assert_same_tree, strategies

torch = peer("torch")
dcp = peer("torch.distributed.checkpoint")

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


def written(folder: Path, tree: Any, **options: Any) -> ckptfmt.ConvertReport:
    ckptfmt.save(folder / "x.ckpt", tree, overwrite=True, durable=False)
    options = {"target_format": "torch-dcp", "durable": False, **options}
    return ckptfmt.convert(folder / "x.ckpt", folder / "dcp", **options)


def loaded(folder: Path, state: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(state, checkpoint_id=folder, no_dist=True)
    return state


def test_torch_goes_on_training(tmp_path: Path) -> None:
    """From a file of torch through a directory into another process's model and optimizer, whose int keys torch makes
    text of."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    groups = [{"params": model[0].parameters()}, {"params": model[1].parameters(), "lr": 0.5}]
    optimizer = torch.optim.AdamW(groups)
    model(torch.ones(5, 3)).sum().backward()
    optimizer.step()
    tree = {"model": model.state_dict(), "optim": optimizer.state_dict(), "step": 3, "size": torch.Size([1, 2])}
    torch.save(tree, tmp_path / "a.pt")
    assert ckptfmt.convert(tmp_path / "a.pt", tmp_path / "dcp", target_format="torch-dcp").losses == ()

    state = {
        "model": {name: torch.zeros_like(value) for name, value in tree["model"].items()},
        "optim": {
            "state": {
                key: {name: torch.zeros_like(value) for name, value in of.items()}
                for key, of in tree["optim"]["state"].items()
            },
            "param_groups": [dict.fromkeys(group) for group in tree["optim"]["param_groups"]],
        },
        "step": 0,
        "size": None,
    }
    found = loaded(tmp_path / "dcp", state)
    assert (found["step"], found["size"]) == (3, torch.Size([1, 2]))
    assert found["optim"]["param_groups"] == tree["optim"]["param_groups"]
    for name, value in tree["model"].items():
        assert torch.equal(found["model"][name], value)
    for number, of in tree["optim"]["state"].items():
        assert all(torch.equal(found["optim"]["state"][number][name], value) for name, value in of.items())

    assert ckptfmt.convert(tmp_path / "dcp", tmp_path / "b.pt").losses == ()
    again = torch.load(tmp_path / "b.pt")
    torch.optim.AdamW(groups).load_state_dict(again["optim"])
    assert again["optim"]["state"].keys() == tree["optim"]["state"].keys()


def test_elements_of_every_kind(tmp_path: Path) -> None:
    import ml_dtypes

    kinds = [bool, "i1", "i8", "u2", "f2", "f4", "f8", "c8", "c16", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]
    tree = {np.dtype(kind).name: np.array([[0, 1, 1], [1, 0, 1]]).astype(kind) for kind in kinds}
    tree |= {"scalar": np.array(7.5), "empty": np.zeros((0, 3), np.float32)}
    assert written(tmp_path, tree).losses == ()
    found, _ = imported(tmp_path / "dcp")
    assert_same_tree(in_order(found, tree), tree)
    for name, array in tree.items():
        state = loaded(tmp_path / "dcp", {name: torch.empty(array.shape, dtype=getattr(torch, ckpt_name(name, array)))})
        bits = state[name].contiguous().reshape(-1).view(torch.uint8).numpy() if array.size else np.empty(0, np.uint8)
        assert bits.tobytes() == np.ascontiguousarray(array).tobytes()


def ckpt_name(name: str, array: Any) -> str:
    return name if name not in ("scalar", "empty") else array.dtype.name


PLAIN = {"none": None, "flag": True, "n": 1 << 70, "x": 0.5, "z": 1 + 2j, "text": "é", "raw": b"\0", "list": [1, [2]]}


def test_values_come_as_torch_saves_them(tmp_path: Path) -> None:
    tree = {**PLAIN, "mixed": [MATRIX, {"a": 1}, (1, MATRIX + 1)], "set": {1, 2}, "betas": (0.9, 0.999)}
    assert written(tmp_path, tree).losses == ()
    state = loaded(tmp_path / "dcp", dict.fromkeys([*PLAIN, "set", "betas"]))
    assert state == {**PLAIN, "set": {1, 2}, "betas": (0.9, 0.999)}
    mixed = loaded(tmp_path / "dcp", {"mixed": [torch.zeros(2, 3), {"a": 0}, None]})["mixed"]
    assert torch.equal(mixed[0], torch.from_numpy(MATRIX))
    assert (mixed[1], mixed[2][0]) == ({"a": 1}, 1)
    assert torch.equal(mixed[2][1], torch.from_numpy(MATRIX + 1))
    found, _ = imported(tmp_path / "dcp")
    assert_same_tree(in_order(found, tree), tree)


LOST = {
    "int keys": ({"a": {1: MATRIX}}, "nesting", "a/1", "an int key becomes a string"),
    "empty dict": ({"a": {"b": {}}, "w": MATRIX}, "nesting", "a/b", "an empty dict is left out"),
    "empty in a list": ({"a": [{}, MATRIX]}, "nesting", "a/0", "an empty dict in a list becomes None"),
    "an alias": ({"a": MATRIX, "b": MATRIX}, "alias", "b", "a second copy of 'a'"),
    "a list": ([MATRIX, 5], "nesting", "", "a tree that is no dict gets the name 'tensor'"),
    "a leaf": (MATRIX, "nesting", "", "a tree that is no dict gets the name 'tensor'"),
    "text keys of a state": (
        {"o": {"state": {"0": {"step": 1}}, "param_groups": [{"params": [0]}]}},
        "nesting",
        "o/state/'0'",
        "a string becomes an int key, as in the state of an optimizer",
    ),
}


@pytest.mark.parametrize("what", LOST)
def test_what_is_lost_is_named_first(tmp_path: Path, what: str) -> None:
    tree, *loss = LOST[what]
    with pytest.raises(ckptfmt.InputError) as raised:
        written(tmp_path, tree)
    assert raised.value.code == "lossy"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.ckpt"]
    report = written(tmp_path, tree, allow_loss=True)
    assert [list(found) for found in report.losses] == [loss]
    assert report.verified


def test_names_that_torch_joins_alike(tmp_path: Path) -> None:
    for tree in ({"a.b": MATRIX, "a": {"b": MATRIX + 1}}, {"a": {"1": MATRIX, 1: MATRIX + 1}}):
        with pytest.raises(ckptfmt.InputError) as raised:
            written(tmp_path, tree, allow_loss=True)
        assert raised.value.code == "name-collision"


def test_any_tree_comes_back_or_its_losses_are_named(scratch: Callable[[], Any]) -> None:
    @settings(max_examples=max(10, settings().max_examples // 5))
    @given(tree=strategies.trees(max_leaves=6), verify=st.booleans())
    def check(tree: Any, verify: bool) -> None:
        with scratch() as folder:
            try:
                report = written(Path(folder), tree, allow_loss=True, verify=verify)
            except ckptfmt.InputError as error:
                assert error.code in ("name-collision", "unsupported-key")
                return
            found = ckptfmt.diff(f"{folder}/x.ckpt", f"{folder}/dcp")
            assert report.losses or not (found.changed or found.added or found.removed)

    check()


# ---- the place that it takes


def test_a_directory_takes_the_place_of_its_like_alone(tmp_path: Path) -> None:
    tree = {"w": MATRIX}
    written(tmp_path, tree)
    for path, code in ((tmp_path / "dcp", "exists"), (tmp_path / "mine", "exists")):
        path.mkdir(exist_ok=True)
        (path / "note").write_text("precious")
        with pytest.raises(ckptfmt.CkptError) as raised:
            ckptfmt.convert(tmp_path / "x.ckpt", path, target_format="torch-dcp")
        assert raised.value.code == code
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / "mine", target_format="torch-dcp", overwrite=True)
    assert raised.value.code == "not-replaceable"
    assert (tmp_path / "mine/note").read_text() == "precious"
    assert written(tmp_path, {"w": MATRIX + 1}, overwrite=True, durable=True).verified
    assert_same_tree(imported(tmp_path / "dcp")[0], {"w": MATRIX + 1})
    ckptfmt.save(tmp_path / "loose", tree, layout="loose")
    ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / "loose", target_format="torch-dcp", overwrite=True)
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_what_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, {"w": MATRIX})
    before = {path.name: path.read_bytes() for path in (tmp_path / "dcp").iterdir()}

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ckptfmt.CkptError) as raised:
        written(tmp_path, {"w": MATRIX + 1}, overwrite=True)
    assert raised.value.code == "disk-full"
    assert {path.name: path.read_bytes() for path in (tmp_path / "dcp").iterdir()} == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["dcp", "x.ckpt"]
